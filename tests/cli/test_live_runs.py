"""`recorder replay --follow` and `recorder tail` of a run of a real model, which streams while they show it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from recorder import ChatHistoryCallback
from recorder.messages import HumanMessage, SystemMessage
from recorder.models import ChatOpenAI
from recorder.testing import Answer, LoopbackProvider, openai_chat_frames
from tests.cli.test_replay import read_until, running
from tests.oracle import new_url, sql

PIECES = ["One", " and", " two", " and", " three."]
#: More than the provider keeps back in order to send it with what follows.
LONG = b": " + b"x" * 70_000 + b"\n\n"


class Answering:
    """An answer of which the rest comes when the test says so."""

    def __init__(self) -> None:
        self.may_go_on = threading.Event()
        #: Two pieces came.
        self.has_begun = threading.Event()
        self._frames = openai_chat_frames(PIECES, model="gpt-4o-mini")

    def frames(self) -> Iterator[bytes]:
        """The role and two pieces, and later the others."""
        yield from (*self._frames[:3], LONG, b": wait\n\n")
        self.may_go_on.wait(30)
        yield from self._frames[3:]

    def read(self, model: ChatOpenAI, heard: list[str]) -> None:
        """Be the application."""
        for chunk in model.stream([SystemMessage("Count."), HumanMessage("To three?")]):
            heard.append(chunk.text)
            if "".join(heard) == "One and":
                self.has_begun.set()


@contextmanager
def streaming(database: str) -> Iterator[tuple[str, threading.Event]]:
    """A run of which two pieces are stored: its id, and what lets the rest come."""
    answering, heard = Answering(), list[str]()
    with (
        LoopbackProvider(Answer(frames=answering.frames())) as provider,
        ChatHistoryCallback(database, conversation_id="c") as history,
    ):
        model = ChatOpenAI(
            "gpt-4o-mini", base_url=provider.base_url, api_key="any", temperature=0.5, callbacks=[history]
        )
        thread = threading.Thread(target=answering.read, args=(model, heard))
        thread.start()
        try:
            assert answering.has_begun.wait(30)
            history.flush().wait(30)
            [(run_id, request)] = sql(database, "SELECT id, request FROM runs")
            assert '"temperature"' in request
            yield run_id, answering.may_go_on
        finally:
            answering.may_go_on.set()
            thread.join(30)
    assert "".join(heard) == "".join(PIECES)


@pytest.mark.parametrize("command", [["replay", "--follow"], ["tail"]], ids=" ".join)
def test_a_model_that_streams_is_followed(database: str, command: list[str]) -> None:
    """What is stored is shown before the rest comes; then the rest, and the command ends with the run."""
    with streaming(database) as (run_id, go_on), running(database, *command, run_id) as process:
        assert read_until(process, "and") == "One and"
        go_on.set()
        rest, beside = process.communicate(timeout=30)
        assert (rest, process.returncode) == (" two and three.\n", 0)
        assert ("> To three?" in beside) == (command[0] == "replay")


def test_the_providers_bytes_are_followed(tmp_path: Path) -> None:
    """As they came, to the last one."""
    database = new_url(tmp_path)
    with (
        streaming(database) as (_, go_on),
        running(database, "replay", "--follow", "--frames") as process,
    ):
        go_on.set()
        out, beside = process.communicate(timeout=30)
        assert (process.returncode, beside) == (0, "")
        assert out.endswith("data: [DONE]\n\n")
        assert [out.count(f'"content":"{piece}"') for piece in PIECES] == [1, 2, 1, 2, 1]
