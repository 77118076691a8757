"""Runs become spans, metrics and events of OpenTelemetry while they are recorded."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from opentelemetry.trace import get_current_span

from recorder import ChatHistoryCallback
from recorder.core.installation import INSTALL_OPENTELEMETRY
from recorder.errors import ConfigError
from recorder.integrations.otel import OpenTelemetryExporter
from recorder.messages import HumanMessage, SystemMessage
from recorder.models import ChatOpenAI
from recorder.testing import Answer, LoopbackProvider, song
from tests.collector import Collector, Telemetry, telemetry
from tests.oracle import begin, finish, new_url, record, run_python, say, sql


@pytest.fixture
def app(collector: Collector) -> Iterator[Telemetry]:
    """Yield the providers of an application that sends to the collector."""
    with telemetry(collector.url) as found:
        yield found


@pytest.fixture
def history(tmp_path: Path) -> Iterator[ChatHistoryCallback]:
    """Yield a recorder on a new database."""
    with ChatHistoryCallback(new_url(tmp_path), flush_interval=0) as found:
        yield found


def model(provider: LoopbackProvider, history: ChatHistoryCallback, **options: Any) -> ChatOpenAI:
    """Return a model of the provider that is recorded."""
    return ChatOpenAI(
        model="gpt-x", base_url=provider.base_url, api_key="k", callbacks=[history], max_retries=0, **options
    )


def hexadecimal(span: Any) -> tuple[str, str]:
    """Return trace and id of a span of OpenTelemetry's API."""
    context = span.get_span_context()
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"


def test_a_song_is_a_span_with_the_names_of_the_conventions(
    collector: Collector, app: Telemetry, history: ChatHistoryCallback
) -> None:
    """It has the parameters, the usage and the times of the run, and no text of the messages."""
    with LoopbackProvider() as provider, OpenTelemetryExporter(history, **app.providers()) as exporter:
        chat = model(provider, history, temperature=0.5, max_tokens=900, stop=["END"])
        assert "".join(chunk.text for chunk in chat.stream("Sing!")) == song()
    [span] = collector.received("span")
    [(id, started, first, ended)] = sql(
        history.recorder.url, "SELECT id, started_at, first_token_at, ended_at FROM runs"
    )
    attributes = span["attributes"]
    wait = attributes.pop("gen_ai.response.time_to_first_chunk")
    usage = [attributes.pop(f"gen_ai.usage.{name}_tokens") for name in ("input", "output")]
    assert attributes.pop("gen_ai.response.id").startswith("chatcmpl-")
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-x",
        "gen_ai.request.stream": True,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 900,
        "gen_ai.request.stop_sequences": ["END"],
        "gen_ai.response.model": "gpt-x",
        "gen_ai.response.finish_reasons": ["stop"],
        "recorder.run.id": id,
        "recorder.run.status": "complete",
    }
    assert (span["name"], span["kind"], span["status"], span["parent"]) == (
        "chat gpt-x",
        "client",
        "unset",
        None,
    )
    assert (span["scope"], span["schema"]) == ("recorder", "https://opentelemetry.io/schemas/1.41.0")
    assert [_iso(span["start"]), _iso(span["end"])] == [started, ended]
    assert _iso(span["start"] + round(wait * 1e6) * 1_000) == first
    assert min(usage) > 0
    assert exporter.stats().spans == 1


def _iso(nanoseconds: int) -> str:
    from datetime import UTC, datetime, timedelta

    from recorder.core.clock import iso

    return iso(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=nanoseconds // 1_000))


def test_metrics_are_measured_from_the_times_of_the_tokens(
    collector: Collector, app: Telemetry, history: ChatHistoryCallback
) -> None:
    """There is one duration and one first chunk a run, and a pause for each chunk after the first if all are wanted."""
    with (
        LoopbackProvider() as provider,
        OpenTelemetryExporter(history, **app.providers(), chunk_samples=None),
    ):
        [*model(provider, history).stream("Sing!")]
    found = {each["name"]: each for each in collector.received("metric")}
    assert found["gen_ai.client.operation.duration"]["count"] == 1
    assert found["gen_ai.client.operation.time_to_first_chunk"]["count"] == 1
    tokens = sql(history.recorder.url, "SELECT token_count FROM runs")[0][0]
    pauses = found["gen_ai.client.operation.time_per_output_chunk"]
    assert 1 <= pauses["count"] <= tokens - 1
    assert pauses["bounds"][:2] == [0.01, 0.02]
    kinds = {
        each["attributes"]["gen_ai.token.type"]: each["sum"]
        for each in collector.received("metric", "gen_ai.client.token.usage")
    }
    usage = sql(history.recorder.url, "SELECT input_tokens, output_tokens FROM runs")[0]
    assert (kinds["input"], kinds["output"]) == usage
    assert found["gen_ai.client.operation.duration"]["attributes"] == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-x",
        "gen_ai.response.model": "gpt-x",
    }


def test_the_span_stands_in_the_one_of_the_application(
    collector: Collector, app: Telemetry, history: ChatHistoryCallback
) -> None:
    """Its parent is the span in which the call began, which the metadata of the run keep."""
    with OpenTelemetryExporter(history, **app.providers()):
        with app.tracer_provider.get_tracer("app").start_as_current_span("request") as request:
            run_id = begin(history, metadata={"step": 1})
        finish(history, run_id, "Hello")  # the call goes on when the block has ended
    trace, parent = hexadecimal(request)
    [span] = [each for each in collector.received("span") if each["name"] == "chat"]
    assert (span["trace"], span["parent"]) == (trace, parent)
    [(stored,)] = sql(history.recorder.url, "SELECT metadata FROM runs")
    assert json.loads(stored) == {"step": 1, "traceparent": ANY_FLAGS(f"00-{trace}-{parent}-")}


class ANY_FLAGS:  # it reads as a value
    """Equal to a traceparent that begins like this."""

    def __init__(self, begin: str) -> None:
        self.begin = begin

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and other.startswith(self.begin) and len(other) == len(self.begin) + 2

    __hash__ = None  # type: ignore[assignment]


def test_an_error_has_its_type_and_its_message(
    collector: Collector, app: Telemetry, history: ChatHistoryCallback
) -> None:
    """The finish reason of an answer that did not come is "error"."""
    with (
        LoopbackProvider(Answer.error(429)) as provider,
        OpenTelemetryExporter(history, **app.providers()),
        pytest.raises(openai.RateLimitError),
    ):
        model(provider, history).invoke("Hi")
    [span] = collector.received("span")
    assert (span["status"], span["attributes"]["error.type"]) == ("error", "openai.RateLimitError")
    assert "429" in span["message"]
    assert span["attributes"]["gen_ai.response.finish_reasons"] == ["error"]
    [duration] = collector.received("metric", "gen_ai.client.operation.duration")
    assert duration["attributes"]["error.type"] == "openai.RateLimitError"


def test_a_cancelled_stream_is_no_error_and_its_choice_is(
    collector: Collector, app: Telemetry, history: ChatHistoryCallback
) -> None:
    """The application stopped the answer itself."""
    with LoopbackProvider() as provider, OpenTelemetryExporter(history, **app.providers()):
        stream: Any = model(provider, history).stream("Sing!")
        next(stream)
        stream.close()
    [span] = collector.received("span")
    assert span["status"] == "unset"
    assert span["attributes"]["recorder.run.status"] == "cancelled"
    assert span["attributes"]["gen_ai.response.finish_reasons"] == ["error"]


def test_content_is_exported_only_when_asked_for(
    collector: Collector, app: Telemetry, history: ChatHistoryCallback
) -> None:
    """Messages are JSON in the form of the conventions; without `content` none of their texts leaves."""
    secret = [SystemMessage("Be secret."), HumanMessage("secret question")]
    with OpenTelemetryExporter(history, **app.providers()):
        record(history, *secret, reply="secret answer")
    assert "secret" not in json.dumps(collector.received("span"))
    with OpenTelemetryExporter(history, **app.providers(), content=True):
        record(history, *secret, reply="secret answer")
    attributes = collector.received("span")[-1]["attributes"]
    assert json.loads(attributes["gen_ai.input.messages"]) == [
        {"role": "system", "parts": [{"type": "text", "content": "Be secret."}]},
        {"role": "user", "parts": [{"type": "text", "content": "secret question"}]},
    ]
    assert json.loads(attributes["gen_ai.output.messages"]) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "secret answer"}]}
    ]


def test_an_evaluation_is_an_event_in_the_span_of_its_run(
    collector: Collector, app: Telemetry, history: ChatHistoryCallback
) -> None:
    """It has the name, the label and the score; a comment only as content."""
    with OpenTelemetryExporter(history, **app.providers(), content=True):
        run_id = record(history)
        history.add_feedback(run_id, score=0.5, label="fair", comment="short")
    [span], [event] = collector.received("span"), collector.received("event")
    assert (event["name"], event["trace"], event["span"]) == (
        "gen_ai.evaluation.result", span["trace"], span["id"],
    )  # fmt: skip
    assert event["attributes"].pop("recorder.annotation.id")
    assert event["attributes"] == {
        "gen_ai.evaluation.name": "user_feedback",
        "gen_ai.evaluation.score.label": "fair",
        "gen_ai.evaluation.score.value": 0.5,
        "gen_ai.evaluation.explanation": "short",
        "recorder.run.id": str(run_id),
    }


def test_a_conversation_is_named_only_where_the_application_named_it(
    collector: Collector, app: Telemetry, history: ChatHistoryCallback
) -> None:
    """An id that recorder has made up is left out."""
    with OpenTelemetryExporter(history, **app.providers()):
        record(history)
        with history.conversation("c1"):
            record(history)
        record(history, metadata={"thread_id": (made := str(uuid.UUID(int=7 << 76 | 1 << 63)))})
    found = [span["attributes"].get("gen_ai.conversation.id") for span in collector.received("span")]
    assert sorted(map(str, found)) == [made, "None", "c1"]


def test_a_run_in_many_commits_is_one_span(
    collector: Collector, app: Telemetry, history: ChatHistoryCallback
) -> None:
    """Its tokens are added up over the commits, and a pause between two commits counts, too."""
    with OpenTelemetryExporter(history, **app.providers(), chunk_samples=None):
        run_id = begin(history)
        for text in ("a", "b", "c"):
            say(history, run_id, [text])
            history.flush().wait(10)
        finish(history, run_id, "abc")
    [span] = collector.received("span")
    assert span["attributes"]["gen_ai.request.stream"] is True
    [pauses] = collector.received("metric", "gen_ai.client.operation.time_per_output_chunk")
    assert pauses["count"] == 2


def test_a_run_that_goes_on_after_it_was_idle_is_sent_again(
    collector: Collector, app: Telemetry, tmp_path: Path
) -> None:
    """The second span has the same ids and its own end; the duration is counted once."""
    url = new_url(tmp_path)
    with (
        ChatHistoryCallback(url, flush_interval=0, run_idle_timeout=0.01) as history,
        OpenTelemetryExporter(history, **app.providers()) as exporter,
        app.tracer_provider.get_tracer("app").start_as_current_span("request") as request,
    ):
        run_id = begin(history)
        say(history, run_id, ["a"])
        while not exporter.stats().spans:
            history.flush().wait(10)
        say(history, run_id, ["b"])
        finish(history, run_id, "ab")
    first, second = [each for each in collector.received("span") if each["name"] == "chat"]
    assert (first["id"], first["trace"], first["parent"]) == (second["id"], second["trace"], second["parent"])
    assert second["parent"] == hexadecimal(request)[1]
    statuses = [span["attributes"]["recorder.run.status"] for span in (first, second)]
    assert statuses == ["interrupted", "complete"]
    [duration] = collector.received("metric", "gen_ai.client.operation.duration")[-1:]
    assert duration["count"] == 1


def test_a_run_whose_id_is_used_already_has_the_ids_of_its_new_id(
    collector: Collector, app: Telemetry, history: ChatHistoryCallback
) -> None:
    """Two runs with one id are two spans, each named by the id under which its run is stored."""
    run_id = uuid.uuid4()
    with OpenTelemetryExporter(history, **app.providers()):
        for reply in ("one", "two"):
            record(history, run_id=run_id, reply=reply)
            history.flush().wait(10)
    spans = collector.received("span")
    stored = {id for (id,) in sql(history.recorder.url, "SELECT id FROM runs")}
    assert {span["attributes"]["recorder.run.id"] for span in spans} == stored
    assert len({span["id"] for span in spans}) == len(stored) == 2
    assert [span["attributes"].get("recorder.run.attempt") for span in spans] == [None, 2]


def test_additions_without_a_run_are_no_spans(
    collector: Collector, app: Telemetry, history: ChatHistoryCallback
) -> None:
    """Messages and titles are passed over."""
    with OpenTelemetryExporter(history, **app.providers()) as exporter:
        history.add_messages("Hi", conversation_id="c1")
        history.update_conversation("c1", title="T")
    assert collector.received("span") == []
    assert (exporter.stats().errors, exporter.stats().waiting) == (0, 0)


def test_hostile_texts_are_cut_and_sent(
    collector: Collector, app: Telemetry, history: ChatHistoryCallback
) -> None:
    """Lone surrogates, huge names and huge messages fail no export, and the others in the page arrive, too."""
    hostile = "\ud800" + "x" * 300_000
    with OpenTelemetryExporter(history, **app.providers(), content=True) as exporter:
        record(
            history,
            HumanMessage(hostile),
            reply=hostile,
            metadata={"ls_model_name": hostile, "ls_provider": hostile},
        )
        record(
            history,
            invocation_params={
                "temperature": "warm",
                "stop": [hostile[:2_000]] * 20,
                "n": 10**40,
                "top_k": [],
            },
        )
    spans = collector.received("span")
    assert len(spans) == 2
    assert max(len(span["name"]) for span in spans) == 200
    assert max(len(json.dumps(span)) for span in spans) < 350_000
    assert exporter.stats().errors == 0


def test_two_exporters_give_a_run_the_same_ids(
    collector: Collector, app: Telemetry, history: ChatHistoryCallback
) -> None:
    """Two backends may want other names; the application's span is noted once."""
    with (
        OpenTelemetryExporter(history, **app.providers(), conventions="1.36"),
        OpenTelemetryExporter(history, **app.providers()),
        app.tracer_provider.get_tracer("app").start_as_current_span("request"),
    ):
        record(history)
    one, two = [span for span in collector.received("span") if span["name"] == "chat"]
    assert (one["id"], one["trace"], one["parent"]) == (two["id"], two["trace"], two["parent"])
    assert {one["schema"][-6:], two["schema"][-6:]} == {"1.36.0", "1.41.0"}
    [(stored,)] = sql(history.recorder.url, "SELECT metadata FROM runs")
    assert stored.count("traceparent") == 1


def test_the_applications_own_traceparent_is_used(
    collector: Collector, app: Telemetry, history: ChatHistoryCallback
) -> None:
    """A queue or another process may have brought it along."""
    given = f"00-{7:032x}-{9:016x}-01"
    with (
        OpenTelemetryExporter(history, **app.providers()),
        app.tracer_provider.get_tracer("app").start_as_current_span("request"),
    ):
        record(history, metadata={"traceparent": given})
    [span] = [each for each in collector.received("span") if each["name"] == "chat"]
    assert (span["trace"], span["parent"]) == (f"{7:032x}", f"{9:016x}")


def test_a_sampler_leaves_a_whole_trace_out(collector: Collector, history: ChatHistoryCallback) -> None:
    """A child of a run that is not sampled is not sampled; what was left out is counted."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased

    tracers = TracerProvider(sampler=ParentBased(ALWAYS_OFF), shutdown_on_exit=False)
    with OpenTelemetryExporter(history, tracer_provider=tracers) as exporter:
        parent = begin(history)
        record(history, parent_run_id=parent)
        finish(history, parent, "done")
    assert (exporter.stats().spans, exporter.stats().not_sampled) == (0, 2)


def test_a_task_exports_in_the_span_of_its_own_context(
    collector: Collector, app: Telemetry, history: ChatHistoryCallback
) -> None:
    """Concurrent calls have the spans of their own tasks as parents."""

    async def call(chat: ChatOpenAI, name: str) -> tuple[str, str]:
        with app.tracer_provider.get_tracer("app").start_as_current_span(name) as span:
            await chat.ainvoke(name)
            assert get_current_span() is span
            return hexadecimal(span)

    async def both() -> list[tuple[str, str]]:
        with LoopbackProvider() as provider:
            chat = model(provider, history)
            found = await asyncio.gather(call(chat, "one"), call(chat, "two"))
            await chat.aclose() if hasattr(chat, "aclose") else None
            return list(found)

    with OpenTelemetryExporter(history, **app.providers()):
        parents = asyncio.run(both())
    spans = [span for span in collector.received("span") if span["name"] == "chat gpt-x"]
    assert sorted((span["trace"], span["parent"]) for span in spans) == sorted(parents)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conventions": "2.0"}, "conventions is '2.0'"),
        ({"conventions": "1.36", "content": True}, "no attributes for messages"),
        ({"chunk_samples": -1}, "chunk_samples is -1"),
        ({"max_queue_bytes": 0}, "max_queue_bytes is 0"),
    ],
    ids=["conventions", "content", "samples", "queue"],
)
def test_invalid_options_are_refused(
    history: ChatHistoryCallback, options: dict[str, Any], message: str
) -> None:
    """The error names the option and its value."""
    with pytest.raises(ConfigError, match=message):
        OpenTelemetryExporter(history, **options)


def test_only_a_callback_can_be_exported() -> None:
    """Another object is refused by its type."""
    with pytest.raises(ConfigError, match="object of type str; pass a ChatHistoryCallback"):
        OpenTelemetryExporter("sqlite:///a.db")


def test_without_the_sdk_the_error_names_the_command() -> None:
    """The package can be imported only where OpenTelemetry's SDK is installed."""
    code = (
        "import sys; sys.modules['opentelemetry.sdk.trace'] = None\n"
        "try: import recorder.integrations.otel as otel; otel.OpenTelemetryExporter\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = run_python(code)
    assert done.stdout.startswith("ConfigError ")
    assert INSTALL_OPENTELEMETRY in done.stdout
