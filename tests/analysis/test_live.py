"""Texts are analyzed while they stream. Whatever an analyzer does, recording goes on and is counted."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from recorder import ChatHistoryCallback
from recorder.analysis import AnalyzedText, FunctionAnalyzer
from recorder.messages import HumanMessage
from tests.analysis.misbehaving import Misbehaving, Unprepared, fine
from tests.oracle import begin, finish, new_url, record, run_python, say, sql, start_python

QUESTION = "I love this library. But the install failed twice."
REPLY = ["I am sorry", " that it failed", ". Das ist gut. 你好", "。 The new one", " is great and I like it!"]


@pytest.mark.parametrize("where", ["process", "thread"])
def test_sentiment_of_a_conversation(database: str, where: str) -> None:
    """Users' and models' messages and their sentences are evaluated, each with its place; close waits for the last."""
    with ChatHistoryCallback(
        database, conversation_id="c", analyze=["sentiment"], analyze_in=where
    ) as history:
        run_id = begin(history, HumanMessage(QUESTION))
        say(history, run_id, REPLY)
        finish(history, run_id, "".join(REPLY))
        history.add_messages("This is terrible, and you know it.")
    rows = sql(
        database, "SELECT name, role, label, conversation_id FROM evaluations ORDER BY name, role, label"
    )
    assert rows == [
        ("sentiment", "assistant", "positive", "c"),
        ("sentiment", "user", "negative", "c"),
        ("sentiment", "user", "negative", "c"),
        ("sentiment.sentence", "assistant", "negative", "c"),
        ("sentiment.sentence", "assistant", "positive", "c"),
        ("sentiment.sentence", "user", "negative", "c"),
        ("sentiment.sentence", "user", "negative", "c"),
        ("sentiment.sentence", "user", "positive", "c"),
    ]
    [(data,)] = sql(
        database,
        "SELECT data FROM annotations WHERE run_id = ? AND label = 'negative'",
        str(run_id) if database.startswith("sqlite") else run_id,
    )
    assert '"start":0,"end":26' in data
    assert history.analysis is not None
    stats = history.analysis.stats()
    assert (stats.analyzed, stats.waiting, stats.skipped, stats.failed) == (10, 0, 0, 0)


@pytest.mark.parametrize("where", ["process", "thread"])
def test_misbehaving_analyzers(where: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each failure is counted, the first one is logged, and the next text is analyzed."""
    url = new_url(tmp_path)
    deeds = ["raises", "exits", "rubbish", "floods", "prints", "later", "hangs", "fine"]
    deeds += ["dies", "holds_the_lock", "fine"] if where == "process" else []
    with caplog.at_level(logging.ERROR, logger="recorder"):
        history = ChatHistoryCallback(
            url, conversation_id="c", analyze=[Misbehaving()], analyze_in=where, analyze_timeout=0.5
        )
        with history:
            for deed in deeds:
                history.add_messages(deed)
    labels = sql(url, "SELECT label, score FROM annotations ORDER BY created_at")
    assert labels == [("printed", None), (None, 0.5)] + [("fine", None)] * deeds.count("fine")
    assert sql(url, "SELECT content FROM messages ORDER BY position") == [(deed,) for deed in deeds]
    assert history.analysis is not None
    [stats] = history.analysis.stats().by_analyzer.values()
    expected = len(deeds) - 2 - deeds.count("fine")
    assert (stats.analyzed, stats.failed, stats.skipped) == (2 + deeds.count("fine"), expected, 0)
    assert stats.restarts == (3 if where == "process" else 1)
    [line] = caplog.records
    assert "'misbehaving' failed: ZeroDivisionError: no such number" in line.getMessage()


def test_functions_of_a_program_run_in_its_worker(tmp_path: Path) -> None:
    """A script needs no `if __name__ == "__main__"`: its worker does not run it. What is captured goes along."""
    url = new_url(tmp_path)
    code = """
import os, sys
from recorder import ChatHistoryCallback
from recorder.analysis import FunctionAnalyzer
limit, own = 5, os.getpid()
def is_long(text): return "long" if len(text) > limit else None
elsewhere = FunctionAnalyzer(lambda text: "own" if os.getpid() == own else "another", name="process")
with ChatHistoryCallback(sys.argv[1], conversation_id="c", analyze=[is_long, elsewhere]) as history:
    history.add_messages(["abc", "abcdef"])
print("once")
"""
    done = run_python(code, url)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "once", "")
    rows = sql(url, "SELECT name, label FROM annotations ORDER BY name, label")
    assert rows == [("is_long", "long"), ("process", "another"), ("process", "another")]


def test_a_program_that_only_ends_loses_no_annotation(tmp_path: Path) -> None:
    """At exit the last messages are analyzed, within the time of an exit."""
    url = new_url(tmp_path)
    code = """
import sys
from recorder import ChatHistoryCallback
history = ChatHistoryCallback(sys.argv[1], conversation_id="c", analyze=["sentiment"])
history.add_messages("This is terrible, and you know it.")
history.flush().wait()
"""
    done = run_python(code, url)
    assert (done.returncode, done.stderr) == (0, "")
    assert sql(url, "SELECT label FROM annotations WHERE name = 'sentiment'") == [("negative",)]


def test_the_time_to_close_is_the_limit(tmp_path: Path) -> None:
    """An analyzer that hangs is ended, what waits is skipped, and all messages are stored."""
    url = new_url(tmp_path)
    history = ChatHistoryCallback(
        url, conversation_id="c", analyze=[Misbehaving()], analyze_timeout=60, close_timeout=2
    )
    history.add_messages(["hangs", "fine", "fine"])
    first = history.close()
    stats = first.wait()
    assert history.close() is first
    assert stats.queued == stats.dropped == 0
    assert sql(url, "SELECT count(*) FROM messages") == [(3,)]
    assert history.analysis is not None
    history.analysis.lanes[0].ended.wait(20)
    [counts] = history.analysis.stats().by_analyzer.values()
    assert (counts.waiting, counts.skipped) == (0, 3)


def test_a_forked_child_analyzes_its_own_messages_only(tmp_path: Path) -> None:
    """Parent and child each have a worker of their own, and end."""
    url = new_url(tmp_path)
    code = """
import os, sys, warnings
warnings.filterwarnings("ignore", "This process", DeprecationWarning)
from recorder import ChatHistoryCallback
from tests.analysis.misbehaving import fine
history = ChatHistoryCallback(sys.argv[1], conversation_id="c", analyze=[fine])
history.add_messages("before")
history.flush().wait(); history.analysis.flush().wait()
child = os.fork()
history.add_messages("child" if child == 0 else "parent")
history.close().wait()
if child == 0:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    done = run_python(code, url)
    assert (done.returncode, done.stderr) == (0, "")
    rows = sql(
        url, "SELECT content FROM messages AS m JOIN annotations AS a ON a.message_id = m.id ORDER BY content"
    )
    assert rows == [("before",), ("child",), ("parent",)]


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="it waits for the end of another's process")
def test_a_worker_dies_with_its_application(tmp_path: Path) -> None:
    """A killed application leaves no worker, also while its analyzer holds Python's lock."""
    code = """
import sys
from recorder import ChatHistoryCallback
from tests.analysis.misbehaving import Misbehaving
history = ChatHistoryCallback(sys.argv[1], conversation_id="c", analyze=[Misbehaving()], analyze_timeout=0.5)
history.add_messages("fine")
history.flush().wait(); history.analysis.flush().wait()
lane = history.analysis.lanes[0]
print(lane.executor._channel._process.pid, flush=True)
history.add_messages("holds_the_lock")
history.flush().wait()
sys.stdin.read()
"""
    with start_python(code, new_url(tmp_path)) as program:
        assert program.stdout is not None
        worker = int(program.stdout.readline())
        os.kill(program.pid, signal.SIGKILL)
        program.wait(10)
    assert has_ended(worker)


def has_ended(pid: int) -> bool:
    """Wait at most 20 seconds for the end of a process that need not be a child."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 20)[0])
    finally:
        os.close(descriptor)


def test_runs_without_tokens_and_with_two_choices(tmp_path: Path) -> None:
    """A reply that did not stream is cut as well; each choice has its own sentences."""
    url, seen = new_url(tmp_path), []

    class Collecting:
        name, version = "collecting", "1"

        def on_sentence(self, sentence: AnalyzedText) -> Any:
            seen.append((sentence.choice, sentence.text, sentence.start))

    with ChatHistoryCallback(
        url, conversation_id="c", analyze=[Collecting()], analyze_in="thread"
    ) as history:
        run_id = begin(history, HumanMessage("Hi there"))
        finish(history, run_id, "All at once. In one piece.")
    assert seen == [(0, "Hi there", 0), (0, "All at once.", 0), (0, "In one piece.", 13)]


def test_what_does_not_fit_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full queue of an analyzer costs annotations, and nothing else."""
    monkeypatch.setattr("recorder.analysis.lane.MAX_WAITING", 2)
    url = new_url(tmp_path)
    with ChatHistoryCallback(url, conversation_id="c", analyze=[fine], analyze_in="thread") as history:
        history.add_messages([f"message {number}" for number in range(50)])
    assert history.analysis is not None
    stats = history.analysis.stats()
    assert stats.analyzed + stats.skipped == 50
    assert stats.skipped > 0
    assert sql(url, "SELECT count(*) FROM messages") == [(50,)]


def test_a_long_message_is_skipped_and_a_text_of_a_megabyte_is_cut(tmp_path: Path) -> None:
    """Of a text without a sentence's end there are many parts, none longer than allowed."""
    url, lengths = new_url(tmp_path), []
    analyzer = FunctionAnalyzer(lambda text: lengths.append(len(text)), name="length", sentences=True)
    with ChatHistoryCallback(url, conversation_id="c", analyze=[analyzer], analyze_in="thread") as history:
        history.add_messages("a" * 1_000_001)
    assert lengths == [2_000] * 500 + [1]
    assert history.analysis is not None
    assert history.analysis.stats().skipped == 1


def test_without_analyzers_there_is_no_analysis(tmp_path: Path) -> None:
    """Nothing listens."""
    with ChatHistoryCallback(new_url(tmp_path)) as history:
        record(history, HumanMessage("Hi"))
        assert history.analysis is None
        assert not history.recorder.listeners


def test_without_threads_nothing_is_analyzed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The limit of threads is reached: everything is stored, and close does not wait for what never began."""
    start = threading.Thread.start

    def limited(thread: threading.Thread) -> None:
        if thread.name.startswith("recorder-analysis-"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    url = new_url(tmp_path)
    with (
        caplog.at_level(logging.ERROR, logger="recorder"),
        ChatHistoryCallback(url, conversation_id="c", analyze=[fine]) as history,
    ):
        history.add_messages(["one", "two"])
        history.flush().wait(10)
        history.add_messages("three")
    assert sql(url, "SELECT count(*) FROM messages") == [(3,)]
    assert history.analysis is not None
    assert history.analysis.stats().parts_skipped == 2
    [line] = caplog.records
    assert "no thread can be started" in line.getMessage()


def test_calls_that_hang_on_threads_are_left_alone(tmp_path: Path) -> None:
    """After three of them the analyzer gets no text, and the stream goes on."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(
        url, conversation_id="c", analyze=[Misbehaving()], analyze_in="thread", analyze_timeout=0.05
    ) as history:
        history.add_messages(["hangs"] * 5 + ["fine"])
    assert history.analysis is not None
    stats = history.analysis.stats()
    assert (stats.failed, stats.skipped, stats.waiting) == (3, 3, 0)
    assert sql(url, "SELECT count(*) FROM messages") == [(6,)]


def test_a_worker_that_never_starts_is_not_started_for_each_text(tmp_path: Path) -> None:
    """After three failures in a row the analyzer pauses, and what comes meanwhile is skipped."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url, conversation_id="c", analyze=[Unprepared()]) as history:
        history.add_messages(["text"] * 20)
    assert history.analysis is not None
    [stats] = history.analysis.stats().by_analyzer.values()
    assert (stats.failed, stats.skipped, stats.restarts) == (3, 17, 3)
    assert stats.last_error == "ZeroDivisionError: nothing to load"


def test_asynchronous_applications(database: str) -> None:
    """On an event loop nothing waits but what is awaited."""

    async def main() -> None:
        async with ChatHistoryCallback(database, conversation_id="c", analyze=[fine]) as history:
            history.add_messages("Hello")
            await history.flush()
            assert history.analysis is not None
            await history.analysis.flush()
            await history.flush()
            assert history.analysis.stats().analyzed == 1
            history.add_messages("Bye")

    asyncio.run(main())
    assert sql(database, "SELECT label FROM annotations") == [("fine",), ("fine",)]
