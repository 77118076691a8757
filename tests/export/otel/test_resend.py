"""Stored runs and evaluations are sent to a collector again, with the ids, times and attributes of the live export."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner

from recorder import ChatHistoryCallback
from recorder.cli.app import app
from recorder.errors import ConfigError, NotFound
from recorder.export import row_reader
from recorder.export.otel.resend import resend
from recorder.integrations.otel import OpenTelemetryExporter
from recorder.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from recorder.models import ChatOpenAI
from recorder.storage.operations import CHAIN, TOOL
from recorder.testing import LoopbackProvider
from tests.collector import Collector, telemetry
from tests.oracle import begin, finish, new_url, record, say, sql


@pytest.fixture
def silent() -> Iterator[None]:
    """Keep the errors of OpenTelemetry's own exporters out of the log of the tests."""
    logger = logging.getLogger("opentelemetry")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(level)


def told(collector: Collector) -> list[dict[str, Any]]:
    """Return the spans and events that were received, in the order of their ids."""
    found = collector.received("span") + collector.received("event")
    return sorted(found, key=lambda each: (each["signal"], each["trace"], each.get("id") or each["span"]))


def record_everything(history: ChatHistoryCallback, tracer: Any) -> None:
    """Record a song, a call in a span of the application, steps, an error, a cancel, a tool call and evaluations."""
    with LoopbackProvider() as provider:
        chat = ChatOpenAI(
            model="gpt-x", base_url=provider.base_url, api_key="k", callbacks=[history], temperature=0
        )
        [*chat.stream([SystemMessage("Sing well."), HumanMessage("Sing!")])]
        stream: Any = chat.stream("Again!")
        next(stream)
        stream.close()
    chain, tool = uuid.uuid4(), uuid.uuid4()
    with tracer.start_as_current_span("request"), history.conversation("c1"):
        history._start(
            CHAIN, [], chain, None, None, {}, {"invocation_params": {"name": "agent", "inputs": "x"}}
        )
        history._start(
            TOOL, [], tool, chain, None, {}, {"invocation_params": {"name": "add", "inputs": {"a": 1}}}
        )
        call = AIMessage("", tool_calls=[{"name": "add", "args": {"a": 1}, "id": "t1"}])
        run_id = record(
            history, HumanMessage("Add!"), call, ToolMessage("2", "t1"), reply="2", parent_run_id=chain
        )
        failed = begin(history, parent_run_id=chain)
    say(history, failed, ["par", "tial"])
    history.on_llm_error(ValueError("bad"), run_id=failed)
    finish(history, tool, "2")
    finish(history, chain, "2")
    history.add_feedback(run_id, score=1.0, comment="good")


@pytest.mark.parametrize("content", [False, True], ids=["plain", "content"])
def test_what_is_sent_again_equals_what_was_sent_live(
    collector: Collector, database: str, content: bool
) -> None:
    """The ids, parents, times, statuses and attributes are the same, on both databases."""
    with telemetry(collector.url) as telling, ChatHistoryCallback(database) as history:
        with OpenTelemetryExporter(history, **telling.providers(), content=content):
            record_everything(history, telling.tracer_provider.get_tracer("app"))
        live = [each for each in told(collector) if each["name"] != "request"]
    collector.behave("new")
    done = resend(database, endpoint=collector.url, content=content)
    assert (done.spans, done.evaluations, done.failed, done.left_out) == (6, 1, 0, [])
    assert told(collector) == live
    assert len(live) == 7


def test_a_history_is_told_anew_with_other_names(collector: Collector, database: str) -> None:
    """The same runs have the names of the version that was chosen."""
    with ChatHistoryCallback(database) as history:
        record(history, metadata={"ls_provider": "azure"})
    for version in ("1.36", "genai-0.1"):
        resend(database, endpoint=collector.url, conventions=version)
    old, new = collector.received("span")
    assert (
        old["attributes"]["gen_ai.system"] == new["attributes"]["gen_ai.provider.name"] == "azure.ai.openai"
    )
    assert "gen_ai.provider.name" not in old["attributes"]
    assert [old["schema"], new["schema"]] == [
        "https://opentelemetry.io/schemas/1.36.0",
        "https://opentelemetry.io/schemas/gen-ai/0.1.0",
    ]
    assert (old["id"], old["trace"]) == (new["id"], new["trace"])


def test_annotations_of_messages_are_sent_page_by_page(
    collector: Collector, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each annotation of a message that no run produced is sent once."""
    monkeypatch.setattr(row_reader, "MESSAGES", 2)
    with ChatHistoryCallback(database, conversation_id="c", analyze=[len], analyze_in="thread") as history:
        for number in range(5):
            history.add_messages("x" * (number + 1))
    done = resend(database, endpoint=collector.url)
    assert (done.evaluations, done.failed) == (5, 0)
    scores = [each["attributes"]["gen_ai.evaluation.score.value"] for each in collector.received("event")]
    assert sorted(scores) == [1, 2, 3, 4, 5]


def test_ids_choose_what_is_sent(collector: Collector, database: str) -> None:
    """A run by the beginning of its id, or a conversation with its runs; an unknown id is an error."""
    with ChatHistoryCallback(database) as history:
        one, two = [record(history, metadata={"thread_id": name}) for name in ("c1", "c2")]
    resend(database, [str(one)[:18]], endpoint=collector.url)
    resend(database, ["c2"], endpoint=collector.url)
    assert [span["attributes"]["recorder.run.id"] for span in collector.received("span")] == [
        str(one),
        str(two),
    ]
    with pytest.raises(NotFound):
        resend(database, ["nothing"], endpoint=collector.url)


def test_a_run_that_streams_is_left_out(collector: Collector, database: str) -> None:
    """It is sent when it has ended."""
    with ChatHistoryCallback(database) as history:
        run_id = begin(history)
        history.flush().wait(10)
        assert resend(database, endpoint=collector.url).left_out == [str(run_id)]
    assert resend(database, endpoint=collector.url).spans == 1


def test_many_runs_are_sent_page_by_page(collector: Collector, database: str) -> None:
    """Each run is sent once, and the progress ends with their number."""
    with ChatHistoryCallback(database, conversation_id="c") as history:
        for _ in range(120):
            record(history)
    seen: list[tuple[int, int | None]] = []
    done = resend(database, endpoint=collector.url, progress=lambda count, total: seen.append((count, total)))
    assert done.spans == 120
    assert seen == [(50, 120), (100, 120), (120, 120)]
    assert len({span["id"] for span in collector.received("span")}) == 120


def test_runs_that_are_each_others_parents_end_the_search(collector: Collector, database: str) -> None:
    """A damaged database cannot hold up the export."""
    with ChatHistoryCallback(database) as history:
        one = record(history)
        record(history, parent_run_id=one)
    query = "UPDATE runs SET parent_run_id = (SELECT other.id FROM runs AS other WHERE other.id <> runs.id)"
    sql_write(database, query)
    assert resend(database, endpoint=collector.url).spans == 2


def sql_write(url: str, statement: str) -> None:
    """Execute a statement that writes, on a connection of its own."""
    if not url.startswith("sqlite"):
        sql(url, statement)
        return
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute(statement)


def test_the_command_sends_and_says_what_it_sent(collector: Collector, database: str) -> None:
    """The collector's URL comes before the ids."""
    with ChatHistoryCallback(database) as history:
        run_id = record(history, HumanMessage("question"))
        record(history)
    options = [
        "export",
        "--url",
        database,
        "--otlp",
        collector.url,
        str(run_id),
        "--conventions",
        "1.37",
        "--content",
    ]
    done = CliRunner().invoke(app, options)
    assert (done.exit_code, done.output) == (
        0,
        "Sent 1 span and 0 evaluations, with the names of version 1.37.\n",
    )
    [span] = collector.received("span")
    assert "question" in span["attributes"]["gen_ai.input.messages"]


def test_a_collector_that_refuses_gives_an_exit_code(collector: Collector, database: str) -> None:
    """The number of what was refused is printed; later the same command sends it."""
    with ChatHistoryCallback(database) as history:
        record(history)
    collector.behave("refuse")
    options = ["export", "--url", database, "--otlp", collector.url]
    done = CliRunner().invoke(app, options)
    assert done.exit_code == 1
    assert "has not accepted 1 of them. The reason: " in done.output
    assert "Then send again: the ids stay the same." in done.output
    collector.behave("accept")
    assert CliRunner().invoke(app, options).exit_code == 0


@pytest.mark.usefixtures("silent")
def test_a_collector_that_is_away_ends_the_export(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After three pages in a row that were not accepted the rest is not tried."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.05")
    monkeypatch.setattr("recorder.export.otel.resend.RUNS", 1)
    with ChatHistoryCallback(database) as history:
        for _ in range(5):
            record(history)
    done = resend(database, endpoint="http://127.0.0.1:9")
    assert (done.spans, done.failed, done.stopped) == (0, 3, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--content"], "--conventions and --content belong to --otlp; add it"),
        (["--otlp", "-o", "file"], "--output writes a file and --otlp sends to a collector"),
        (["--otlp", "--conventions", "9"], "conventions is '9'; choose one of 1.36, 1.37"),
        (["--otlp", "--conventions", "1.36", "--content"], "no attributes for messages"),
    ],
    ids=["without otlp", "output", "version", "content"],
)
def test_options_that_do_not_fit_are_refused(tmp_path: Any, options: list[str], message: str) -> None:
    """The error says which belong together."""
    done = CliRunner().invoke(app, ["export", "--url", new_url(tmp_path), *options])
    assert done.exit_code == 1
    assert message in done.output.replace("\n", " ")


def test_an_endpoint_must_be_a_url(tmp_path: Any) -> None:
    """Anything else is refused with an example."""
    with pytest.raises(ConfigError, match="write for example http://localhost:4318"):
        resend(new_url(tmp_path), endpoint="localhost")
