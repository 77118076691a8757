"""A collector that is away, that hangs or that refuses costs the recording nothing; forks and exits lose no span."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from recorder import ChatHistoryCallback
from recorder.integrations.otel import OpenTelemetryExporter
from tests.collector import Collector, telemetry
from tests.oracle import begin, finish, new_url, record, run_python, say, sql

#: The beginning of each script: a recorder and an exporter to the collector in `sys.argv[2]`.
SCRIPT = """
import os, sys, uuid, warnings
warnings.filterwarnings("ignore", "This process", DeprecationWarning)  # of Python 3.12: it forks beside threads
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from recorder import ChatHistoryCallback
from recorder.integrations.otel import OpenTelemetryExporter
from recorder.messages import AIMessage, ChatGeneration, LLMResult

def record(history, name="m"):
    run_id = uuid.uuid4()
    history.on_chat_model_start({}, [[("user", "Hi")]], run_id=run_id, metadata={"ls_model_name": name})
    history.on_llm_end(LLMResult(generations=[[ChatGeneration(AIMessage("Hello"))]]), run_id=run_id)

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(sys.argv[2] + "/v1/traces"), schedule_delay_millis=1e6))
trace.set_tracer_provider(provider)
history = ChatHistoryCallback(sys.argv[1])
exporter = OpenTelemetryExporter(history)
"""


@pytest.fixture
def history(tmp_path: Path) -> Iterator[ChatHistoryCallback]:
    """Yield a recorder on a new database."""
    with ChatHistoryCallback(new_url(tmp_path), flush_interval=0) as found:
        yield found


@pytest.fixture
def silent() -> Iterator[None]:
    """Keep the errors of OpenTelemetry's own exporters out of the log of the tests."""
    logger = logging.getLogger("opentelemetry")
    before, logger.disabled = logger.level, False
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(before)


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("behaviour", ["away", "hang", "refuse"])
def test_a_collector_that_fails_harms_nothing(
    collector: Collector, history: ChatHistoryCallback, behaviour: str
) -> None:
    """All runs are stored, and `flush` and `close` end in time and say that not everything was sent or is sure."""
    if behaviour == "away":
        url = "http://127.0.0.1:9"
    else:
        url = collector.url
        collector.behave(behaviour)
    with telemetry(url, timeout=0.2) as app:
        exporter = OpenTelemetryExporter(history, **app.providers())
        for _ in range(20):
            record(history)
        history.flush().wait(10)
        assert exporter.flush(timeout=0.05 if behaviour == "hang" else 10) == (behaviour != "hang")
        assert sql(history.recorder.url, "SELECT count(*) FROM runs WHERE status = 'complete'") == [(20,)]
        exporter.close(timeout=0.05)
        collector.behave("new")
    assert exporter.stats().dropped == 0


def test_a_full_queue_drops_runs_and_counts_them(history: ChatHistoryCallback) -> None:
    """While the exporter's thread is held up, what finds no room is counted; recording goes on."""
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

    held = threading.Event()

    class Slow(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            held.wait(30)

    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(Slow())
    exporter = OpenTelemetryExporter(history, tracer_provider=tracers, max_queue_bytes=1)
    for _ in range(5):
        record(history)
        history.flush().wait(10)
    held.set()
    exporter.close()
    stats = exporter.stats()
    assert (stats.spans + stats.dropped, stats.waiting) == (5, 0)
    assert stats.dropped > 0
    assert sql(history.recorder.url, "SELECT count(*) FROM runs WHERE status = 'complete'") == [(5,)]


def test_a_span_processor_that_raises_is_logged_once(
    history: ChatHistoryCallback, caplog: pytest.LogCaptureFixture
) -> None:
    """The errors are counted, and the recording goes on."""
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

    class Broken(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            raise ZeroDivisionError

    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(Broken())
    with OpenTelemetryExporter(history, tracer_provider=tracers) as exporter:
        for _ in range(3):
            record(history)
            history.flush().wait(10)
    assert exporter.stats().errors == 3
    messages = [each.message for each in caplog.records if each.name == "recorder"]
    assert messages == ["An export to OpenTelemetry failed; recording and the export go on"]


def test_without_a_tracer_provider_a_warning_says_what_to_do(
    history: ChatHistoryCallback, caplog: pytest.LogCaptureFixture
) -> None:
    """The process's provider is looked for when the first run is stored."""
    with OpenTelemetryExporter(history) as exporter:
        record(history)
    [message] = [each.message for each in caplog.records if each.name == "recorder"]
    assert message.startswith("No tracer provider is set, so spans are not exported; pass tracer_provider=")
    assert (exporter.stats().spans, exporter.stats().not_sampled) == (0, 1)


def test_runs_that_never_end_are_bounded(
    history: ChatHistoryCallback, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest ones are forgotten, and counted."""
    from opentelemetry.sdk.trace import TracerProvider

    monkeypatch.setattr("recorder.integrations.otel.open_spans.MAX_OPEN", 3)
    with OpenTelemetryExporter(history, tracer_provider=TracerProvider(shutdown_on_exit=False)) as exporter:
        runs = [begin(history) for _ in range(5)]
        history.flush().wait(10)
        exporter.flush()
        assert exporter.stats().open_runs == 3
        for run_id in runs:
            finish(history, run_id, "done")
    assert (exporter.stats().spans, exporter.stats().open_runs) == (3, 0)


def test_an_exit_without_close_sends_the_last_spans(collector: Collector, tmp_path: Path) -> None:
    """Neither the recorder nor the exporter is closed."""
    done = run_python(SCRIPT + "record(history)", new_url(tmp_path), collector.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(collector.received("span")) == 1


def test_a_forked_child_exports_only_its_own_runs(collector: Collector, tmp_path: Path) -> None:
    """What the parent had not sent when it forked is sent once, by the parent."""
    code = """
record(history, "parent")
child = os.fork()
record(history, "parent" if child else "child")
if child:
    assert os.waitpid(child, 0)[1] == 0
"""
    done = run_python(SCRIPT + code, new_url(tmp_path), collector.url)
    assert (done.returncode, done.stderr) == (0, "")
    names = [span["name"] for span in collector.received("span")]
    assert sorted(names) == ["chat child", "chat parent", "chat parent"]


def test_a_forked_child_counts_only_its_own_runs(collector: Collector, tmp_path: Path) -> None:
    """What the parent had sent before is in the parent's counts."""
    code = """
record(history)
exporter.flush(20)
child = os.fork()
record(history)
exporter.flush(20)
assert exporter.stats().spans == (2 if child else 1), exporter.stats()
if child:
    assert os.waitpid(child, 0)[1] == 0
"""
    done = run_python(SCRIPT + code, new_url(tmp_path), collector.url)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_worker_of_multiprocessing_sends_its_spans(collector: Collector, tmp_path: Path) -> None:
    """Such a process ends without the functions of `atexit`."""
    code = """
import multiprocessing
worker = multiprocessing.get_context("fork").Process(target=record, args=(history,))
worker.start()
worker.join()
assert worker.exitcode == 0
"""
    done = run_python(SCRIPT + code, new_url(tmp_path), collector.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(collector.received("span")) == 1


def test_an_idle_child_of_a_fork_ends_at_once(collector: Collector, tmp_path: Path) -> None:
    """It has recorded nothing, so its exit waits for no writer."""
    code = """
record(history)
child = os.fork()
if child:
    assert os.waitpid(child, 0)[1] == 0
else:
    import time
    began = time.monotonic()
    exporter.flush(20)
    assert time.monotonic() - began < 10
"""
    done = run_python(SCRIPT + code, new_url(tmp_path), collector.url)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_recorder_that_was_closed_first_has_exported_all(collector: Collector, tmp_path: Path) -> None:
    """The exporter is flushed afterwards, and does not wait for the recorder."""
    with telemetry(collector.url) as app:
        with ChatHistoryCallback(new_url(tmp_path)) as history:
            exporter = OpenTelemetryExporter(history, **app.providers())
            record(history)
        assert exporter.flush()
        assert exporter.close()
    assert len(collector.received("span")) == 1


def test_a_run_that_goes_on_in_a_new_file_is_one_span(collector: Collector, tmp_path: Path) -> None:
    """Its row is stored twice, once in each file."""
    url = new_url(tmp_path)
    path = Path(url.removeprefix("sqlite:///"))
    with telemetry(collector.url) as app, ChatHistoryCallback(url, flush_interval=0) as history:
        exporter = OpenTelemetryExporter(history, **app.providers())
        run_id = begin(history, metadata={"ls_model_name": "m"})
        say(history, run_id, ["a"])
        history.flush().wait(10)
        for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
            (tmp_path / name).rename(tmp_path / f"old-{name}")
        say(history, run_id, ["b"])
        history.flush().wait(10)
        finish(history, run_id, "ab")
        exporter.close()
    [span] = collector.received("span")
    assert (span["name"], exporter.stats().open_runs) == ("chat m", 0)
