"""Messages of several lines that are pasted into `recorder chat`."""

from __future__ import annotations

import os
import pty
import sys
from pathlib import Path

import pytest

from recorder.cli.line_editing import typed_message
from recorder.testing import LoopbackProvider
from tests.cli.test_chat import PROMPT, echo, real, sent
from tests.terminal import CTRL_D, Terminal

PASTED = "\x1b[200~def f():\r    return 1\r\rf()\r\x1b[201~"


def test_a_pasted_text_is_one_message(tmp_path: Path) -> None:
    """It is sent when Enter is pressed, with its empty lines and without the last line end."""
    with (
        LoopbackProvider(echo) as provider,
        Terminal("chat", folder=tmp_path, environment=real(provider)) as terminal,
    ):
        terminal.wait_for(PROMPT)
        terminal.type(f"{PASTED}\r")
        terminal.wait_for("1: def f()")
        terminal.wait_for(PROMPT)
        terminal.type(CTRL_D)
        assert terminal.end() == 0
        assert sent(provider) == [("user", "def f():\n    return 1\n\nf()")]


def test_help_and_exit_are_not_sent(tmp_path: Path) -> None:
    """`/help` shows how a message is typed, and the chat continues."""
    with (
        LoopbackProvider(echo) as provider,
        Terminal("chat", folder=tmp_path, environment=real(provider)) as terminal,
    ):
        terminal.wait_for("/help shows more")
        terminal.wait_for(PROMPT)
        terminal.type("/help\r")
        terminal.wait_for("A pasted text of several lines is one message.")
        terminal.wait_for("/exit ends the chat.")
        terminal.wait_for(PROMPT)
        terminal.type("/exit\r")
        assert terminal.end() == 0
        assert provider.requests == []


def test_an_editor_that_does_not_mark_pastes_reads_what_has_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines that are there at once are one message; a line that comes later is the next one."""
    monkeypatch.delitem(sys.modules, "readline", raising=False)
    outer, inner = pty.openpty()
    with os.fdopen(inner) as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        os.write(outer, b"one\ntwo\n\nthree\n")
        assert typed_message("> ") == "one\ntwo\n\nthree"
        os.write(outer, b"four\n")
        assert typed_message("> ") == "four"
    os.close(outer)
