"""Prints the tokens of a stream: as text, as lines of JSON, or as the provider's bytes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from rich.text import Text

from recorder.cli import console
from recorder.core.json import loads
from recorder.core.printable import printable
from recorder.messages import BaseMessage
from recorder.replay.playback import BeginStep, EndStep, GapStep
from recorder.storage.reader import RecordedRun
from recorder.storage.rows import CANCELLED, ERROR, INCOMPLETE, INTERRUPTED, STREAMING
from recorder.storage.transcript import prompt_of
from recorder.wire.deltas import REASONING, REFUSAL, TEXT, TOOL_ARGS, TOOL_CALL

#: How many lines of a prompt, and how many characters of an error, are shown.
_PROMPT_LINES = 4
_LONGEST_ERROR = 500


class RunText:
    """Prints the tokens of one run: reasoning is dimmed, and each tool call is on a line of its own."""

    def __init__(self) -> None:
        shown = console.console()
        self._dims = shown.is_terminal and not shown.no_color
        #: What was printed last: "", "text", "thought", or "call" and its index.
        self._last = ""
        #: Whether the last line is not ended yet.
        self._open = False
        #: The name of the tool call at each index.
        self._calls: dict[str, str] = {}
        #: The indexes of choices that are not shown.
        self.others: set[str] = set()
        self.tokens = 0

    def token(self, text: str, kind: str = TEXT, idx: str = "0") -> None:
        """Print one token. Of several choices only the first is shown."""
        self.tokens += 1
        if not idx.startswith("0."):
            choice = idx.partition(".")[0]
            if choice != "0":
                self.others.add(choice)
                return
        if kind in (TEXT, REFUSAL):
            self._show("text", text)
        elif kind == REASONING:
            self._show("thought", text, dim=True)
        elif kind == TOOL_CALL:
            self._call(idx, text)
        elif kind == TOOL_ARGS:
            self._turn_to(f"call {idx}", f"calls {self._calls.get(idx, '')}(")
            self._write(text)

    def gap(self, gap: GapStep, noun: str = "token") -> None:
        """Print that tokens are missing here."""
        self._write(f"[{console.plural(gap.count, noun)} missing: {gap.reason}]", "\x1b[33m", "\x1b[39m")

    def line(self) -> None:
        """End a tool call and the line."""
        if self._last.startswith("call"):
            self._write(")")
        if self._open:
            print()
        self._last, self._open = "", False

    def _call(self, idx: str, text: str) -> None:
        try:
            call = loads(text)
        except ValueError:
            call = {}
        name = call.get("name") if isinstance(call, dict) else None
        self._calls[idx] = str(name or "")
        self._turn_to(f"call {idx}", f"calls {self._calls[idx]}(")

    def _show(self, what: str, text: str, *, dim: bool = False) -> None:
        if self._last not in ("", what) and text:
            thought = "thought" in (self._last, what)
            self.line()
            if thought:
                print()
        if text:
            self._last = what
            self._write(text, *(("\x1b[2m", "\x1b[22m") if dim else ()))

    def _turn_to(self, what: str, opening: str) -> None:
        if self._last != what:
            self.line()
            self._last = what
            self._write(opening)

    def _write(self, text: str, before: str = "", after: str = "") -> None:
        shown = printable(text)
        sys.stdout.write(f"{before}{shown}{after}" if before and self._dims else shown)
        self._open = not shown.endswith("\n") if shown else self._open


class Page:
    """Prints runs one after the other: the prompt, the tokens, and the end if it is not a normal one."""

    def __init__(self, *, show_prompt: bool = True) -> None:
        self._show_prompt = show_prompt
        self._text = RunText()
        self._damaged: list[GapStep] = []
        self._first = True

    def begin(self, begin: BeginStep) -> None:
        self._text, self._damaged = RunText(), []
        if not self._first:
            console.notice(Text())
        self._first = False
        if self._show_prompt and (lines := list(_prompt_lines(begin.messages))):
            console.notice(*lines, Text())

    def item(self, _seq: int, item: Any) -> None:
        self._text.token(*item[1:])

    def gap(self, gap: GapStep) -> None:
        self._text.gap(gap)
        if gap.reason.startswith("the stored row is damaged"):
            self._damaged.append(gap)

    def close(self) -> None:
        """End the last line."""
        self._text.line()
        sys.stdout.flush()

    def end(self, end: EndStep) -> None:
        text = self._text
        text.line()
        for gap in self._damaged:
            last = gap.seq + gap.count - 1
            console.notice(
                console.styled(f"[run {end.run.id}: tokens {gap.seq} to {last} cannot be read]", "yellow")
            )
        if text.others:
            others = console.plural(len(text.others), "more choice")
            console.notice(console.styled(f"[{others}: --json shows all]", "dim"))
        if (ended := how_it_ended(end.run, text.tokens)) is not None:
            console.notice(console.styled(ended, "red" if end.run.status == ERROR else "dim"))


class JsonLines:
    """Prints one line of JSON for each token, each gap, and the end of each run."""

    def __init__(self) -> None:
        self._run = ""

    def begin(self, begin: BeginStep) -> None:
        self._run = begin.run.id

    def item(self, seq: int, item: Any) -> None:
        at_us, text, *rest = item
        kind, idx = rest or (TEXT, "0")
        self._print(seq=seq, at_us=at_us, kind=kind, idx=idx, text=text)

    def gap(self, gap: GapStep) -> None:
        self._print(seq=gap.seq, at_us=gap.at_us, count=gap.count, missing=gap.reason)

    def end(self, end: EndStep) -> None:
        run = end.run
        about = {"finish_reason": run.finish_reason, "error_type": run.error_type, "error": run.error_message}
        known = {name: value for name, value in about.items() if value is not None}
        self._print(at_us=end.at_us, status=run.status, **known)

    def close(self) -> None:
        sys.stdout.flush()

    def _print(self, **fields: Any) -> None:
        print(console.json_text({"run_id": self._run, **fields}))


class FrameBytes:
    """Prints the provider's events byte for byte; to a terminal, with controls escaped."""

    def __init__(self) -> None:
        #: Whether any frame or gap was printed.
        self.any = False
        self.runs: list[str] = []

    def begin(self, begin: BeginStep) -> None:
        self.runs.append(begin.run.id)

    def item(self, _seq: int, item: Any) -> None:
        self.any = True
        console.write_bytes(item[1])

    def gap(self, gap: GapStep) -> None:
        self.any = True
        frames = console.plural(gap.count, "frame")
        line = f"[run {self.runs[-1]}: {frames} missing, from number {gap.seq} on: {gap.reason}]"
        console.notice(console.styled(line, "yellow"))

    def end(self, end: EndStep) -> None:
        pass  # the provider's own events show the end

    def close(self) -> None:
        sys.stdout.flush()


def _prompt_lines(messages: Any) -> Iterator[Text]:
    """The first lines of each message of the prompt, dimmed."""
    for message in prompt_of(messages):
        if message.role != "system":
            yield from _quoted(message)


def _quoted(message: BaseMessage) -> Iterator[Text]:
    mark = ">" if message.role == "user" else f"{message.role}:"
    lines = printable(message.text).strip().splitlines() or ["(no text)"]
    for line in lines[:_PROMPT_LINES]:
        yield console.styled(f"{mark} {line}", "dim", overflow="ellipsis")
    if (left := len(lines) - _PROMPT_LINES) > 0:
        yield console.styled(f"{mark} ... {console.plural(left, 'line')} more", "dim")


def how_it_ended(run: RecordedRun, tokens: int) -> str | None:
    """The end of a run in one line; None if it is complete and has tokens."""
    if run.status == ERROR:
        parts = [part for part in (run.error_type, run.error_message) if part]
        line = " ".join(": ".join(parts).split()) or "no details are recorded"
        return f"[error: {line if len(line) <= _LONGEST_ERROR else line[:_LONGEST_ERROR] + '...'}]"
    ends = {
        CANCELLED: "[cancelled: the application stopped reading here]",
        INTERRUPTED: "[interrupted: the recording process died, or the stream had no end]",
        INCOMPLETE: f"[incomplete: {run.finish_reason or 'the answer was cut off'}]",
        STREAMING: "[still streaming: --follow continues until it ends]",
    }
    return ends.get(run.status) or (None if tokens else f"[run {run.id} has no tokens]")
