"""Stored recordings are analyzed as they would have been live. Doing it again changes nothing."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from recorder import ChatHistoryCallback
from recorder.export import export, import_
from recorder.messages import HumanMessage
from recorder.replay import Replay
from recorder.upkeep import StoredAnalysis
from recorder.upkeep.analysis_follower import AnalysisFollower
from tests.oracle import begin, finish, new_url, record, run_python, say, sql

ANNOTATIONS = (
    "SELECT run_id, id, message_id, name, label, score, data, conversation_id FROM annotations ORDER BY 1, 2"
)
TOKENS = ["It works", ". Really", "! I am very happy", " with that."]


def converse(history: ChatHistoryCallback) -> Any:
    """Record a run that streams, and a message without a run."""
    run_id = begin(history, HumanMessage("This is bad. Can you fix it?"))
    say(history, run_id, TOKENS)
    finish(history, run_id, "".join(TOKENS))
    history.add_messages("Thank you, that is wonderful!")
    return run_id


def test_live_and_afterwards_are_the_same(database: str, tmp_path: Path) -> None:
    """The same annotations are made, and a second time none; an export has all of them, and imports merge."""
    with ChatHistoryCallback(database, conversation_id="c") as history:
        run_id = converse(history)
    copy = io.BytesIO()
    export(database, copy)
    with StoredAnalysis(database, ["sentiment"], executor="thread") as analysis:
        done = analysis.run()
        assert (done.messages, done.stored) == (3, 0)
        before = sql(database, ANNOTATIONS)
        assert len(before) >= 7
        assert analysis.run("c").stored == len(before)
        with Replay(database) as replay:
            replay.into(analysis, str(run_id))
    assert sql(database, ANNOTATIONS) == before
    assert_merged(database, copy, before, tmp_path)


def assert_merged(database: str, copy: io.BytesIO, before: list[Any], folder: Path) -> None:
    """A copy that was analyzed by itself has the same annotations, and each imports the other's."""
    other = new_url(folder, "other.db")
    copy.seek(0)
    import_(other, copy)
    with StoredAnalysis(other, ["sentiment"], executor="thread") as analysis:
        analysis.run()
    assert sql(other, ANNOTATIONS) == before
    again = io.BytesIO()
    assert export(other, again, ["c"]).written.annotations == len(before)
    again.seek(0)
    imported = import_(database, again)
    assert (imported.new.annotations, imported.there.annotations) == (0, len(before))


def test_an_export_of_one_run_has_the_annotations_of_its_messages(tmp_path: Path) -> None:
    """Those of its prompt as well, and not those of later messages."""
    url, file = new_url(tmp_path), io.BytesIO()
    with ChatHistoryCallback(url, conversation_id="c", analyze=["sentiment"], analyze_in="thread") as history:
        run_id = converse(history)
    export(url, file, [str(run_id)])
    other = new_url(tmp_path, "other.db")
    file.seek(0)
    import_(other, file)
    texts = (
        "SELECT DISTINCT m.content FROM annotations AS a JOIN messages AS m ON m.id = a.message_id ORDER BY 1"
    )
    assert sql(other, texts) == [("".join(TOKENS),), ("This is bad. Can you fix it?",)]


def test_a_follower_analyzes_what_another_recorder_streams(database: str) -> None:
    """Sentences come while the run streams; the end and the messages come later; nothing comes twice."""
    with (
        ChatHistoryCallback(database, conversation_id="c", flush_interval=0) as history,
        StoredAnalysis(database, ["sentiment"], executor="thread") as analysis,
    ):
        follower = AnalysisFollower(analysis)
        run_id = begin(history, HumanMessage("This is bad. Can you fix it?"))
        say(history, run_id, TOKENS[:3])
        history.flush().wait(10)
        follower.look()
        analysis.flush()
        first = sql(database, "SELECT count(*) FROM annotations WHERE message_id IS NULL")
        say(history, run_id, TOKENS[3:])
        finish(history, run_id, "".join(TOKENS))
        history.flush().wait(10)
        for _ in range(2):
            follower.look()
            analysis.flush()
        last = sql(database, "SELECT count(*) FROM annotations WHERE message_id IS NULL")
        analyzed = analysis.stats().analyzed
        follower.look()
        analysis.flush()
        assert analysis.stats().analyzed == analyzed
    assert first[0][0] < last[0][0]
    assert sql(database, "SELECT count(*) FROM annotations WHERE name = 'sentiment'") == [(2,)]


def test_the_text_of_a_run_without_a_message_is_analyzed(tmp_path: Path) -> None:
    """Its process died, and its tokens are all that there is."""
    url = new_url(tmp_path)
    code = """
import os, sys
from tests.oracle import begin, say
from recorder import ChatHistoryCallback
history = ChatHistoryCallback(sys.argv[1], conversation_id="c")
say(history, begin(history), ["This is bad. And I am ", "not happy with that"])
history.flush().wait()
os._exit(0)
"""
    assert run_python(code, url).returncode == 0
    with StoredAnalysis(url, ["sentiment"], executor="thread") as analysis:
        analysis.run()
    assert sql(url, "SELECT label FROM annotations WHERE message_id IS NULL") == [("negative",)] * 2


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what is new, takes functions of the folder, shows the results, and is idempotent."""
    from typer.testing import CliRunner

    from recorder.cli.app import app

    url = new_url(tmp_path)
    with ChatHistoryCallback(url, conversation_id="c") as history:
        record(history, HumanMessage("Why is this so slow?"), reply="I am sorry about that.")
    (tmp_path / "own_checks.py").write_text(
        "def question(text):\n    return 'question' if '?' in text else None\n"
    )
    monkeypatch.chdir(tmp_path)
    command = ["analyze", "--url", url, "--with", "own_checks:question", "--with", "sentiment"]
    first, second = CliRunner().invoke(app, command), CliRunner().invoke(app, command)
    assert first.output == "Read 2 messages. Evaluations: 5 new, 0 stored already.\n"
    assert second.output == "Read 2 messages. Evaluations: 0 new, 5 stored already.\n"
    shown = CliRunner().invoke(app, ["show", "c", "--url", url]).output.splitlines()
    assert "sentiment: user +0.00 (1 of 1 message), assistant -0.08 (1 of 1 message)  ▅▄" in shown
    assert {"question question, sentiment neutral +0.00", "sentiment negative -0.08"} <= set(shown)
    wrong = CliRunner().invoke(app, [*command, "--with", "own_checks:no"])
    assert wrong.exit_code == 1
    assert "write it as module:function" in wrong.output
