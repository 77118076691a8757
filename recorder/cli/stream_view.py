"""How what a model streams looks on a terminal, token by token."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from rich.text import Text

from recorder.cli import console
from recorder.core.json import loads
from recorder.core.printable import printable
from recorder.messages import BaseMessage, after_last_reply
from recorder.replay.playback import BeginStep, EndStep, GapStep
from recorder.storage.reader import RecordedRun
from recorder.storage.rows import CANCELLED, ERROR, INCOMPLETE, INTERRUPTED, STREAMING
from recorder.wire.deltas import REASONING, REFUSAL, TEXT, TOOL_ARGS, TOOL_CALL

#: Lines of a prompt that are shown, and letters of an error.
_PROMPT_LINES = 4
_LONGEST_ERROR = 500


class Speech:
    """What one run says: text as it is, thoughts dimmed, calls of tools on lines of their own."""

    def __init__(self) -> None:
        shown = console.console()
        self._dims = shown.is_terminal and not shown.no_color
        #: What the cursor stands behind: nothing, text, a thought, or the call at an index.
        self._last = ""
        #: Whether a line is begun.
        self._open = False
        #: Name of the call at each index.
        self._calls: dict[str, str] = {}
        #: Choices beside the first.
        self.others: set[str] = set()
        self.tokens = 0

    def token(self, text: str, kind: str = TEXT, idx: str = "0") -> None:
        """One token; of several choices the first is shown."""
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
        """What is missing, where it is missing."""
        self._write(f"[{console.plural(gap.count, noun)} missing: {gap.reason}]", "\x1b[33m", "\x1b[39m")

    def line(self) -> None:
        """Close what is open."""
        if self._last.startswith("call"):
            self._write(")")
        if self._open:
            print()
        self._last, self._open = "", False

    def _call(self, idx: str, text: str) -> None:
        try:
            said = loads(text)
        except ValueError:
            said = {}
        name = said.get("name") if isinstance(said, dict) else None
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
    """Runs on the screen, one after the other: the question, the answer as it comes, and how it ended."""

    def __init__(self, *, asked: bool = True) -> None:
        self._asked = asked
        self._speech = Speech()
        self._damaged: list[GapStep] = []
        self._first = True

    def begin(self, begin: BeginStep) -> None:
        self._speech, self._damaged = Speech(), []
        if not self._first:
            console.notice(Text())
        self._first = False
        if self._asked and (lines := list(_asked(begin.messages))):
            console.notice(*lines, Text())

    def item(self, _seq: int, item: Any) -> None:
        self._speech.token(*item[1:])

    def gap(self, gap: GapStep) -> None:
        self._speech.gap(gap)
        if gap.reason.startswith("the stored row is damaged"):
            self._damaged.append(gap)

    def close(self) -> None:
        """Nothing more is shown."""
        self._speech.line()
        sys.stdout.flush()

    def end(self, end: EndStep) -> None:
        speech = self._speech
        speech.line()
        for gap in self._damaged:
            last = gap.seq + gap.count - 1
            console.notice(
                console.styled(f"[run {end.run.id}: tokens {gap.seq} to {last} cannot be read]", "yellow")
            )
        if speech.others:
            others = console.plural(len(speech.others), "more choice")
            console.notice(console.styled(f"[{others}: --json shows all]", "dim"))
        if (ended := how_it_ended(end.run, speech.tokens)) is not None:
            console.notice(console.styled(ended, "red" if end.run.status == ERROR else "dim"))


class Lines:
    """One line of JSON a token, a gap, and the end of a run."""

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
        said = {name: value for name, value in about.items() if value is not None}
        self._print(at_us=end.at_us, status=run.status, **said)

    def close(self) -> None:
        sys.stdout.flush()

    def _print(self, **said: Any) -> None:
        print(console.json_text({"run_id": self._run, **said}))


class Bytes:
    """The provider's events as they were sent, their controls written out where somebody looks at them."""

    def __init__(self) -> None:
        #: Whether there were any.
        self.any = False
        self.runs: list[str] = []

    def begin(self, begin: BeginStep) -> None:
        self.runs.append(begin.run.id)

    def item(self, _seq: int, item: Any) -> None:
        self.any = True
        console.write_bytes(item[1])

    def gap(self, gap: GapStep) -> None:
        self.any = True
        what = f"[run {self.runs[-1]}: {console.plural(gap.count, 'frame')} from {gap.seq} on missing: {gap.reason}]"
        console.notice(console.styled(what, "yellow"))

    def end(self, end: EndStep) -> None:
        pass  # the provider has said it, or nobody has

    def close(self) -> None:
        sys.stdout.flush()


def _asked(messages: Any) -> Iterator[Text]:
    """What was new in a request, a few quiet lines each."""
    for message in after_last_reply(messages):
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
    """The end of a run in one line; None where it is plain."""
    if run.status == ERROR:
        parts = [part for part in (run.error_type, run.error_message) if part]
        line = " ".join(": ".join(parts).split()) or "no more is known"
        return f"[error: {line if len(line) <= _LONGEST_ERROR else line[:_LONGEST_ERROR] + '...'}]"
    ends = {
        CANCELLED: "[cancelled: whoever listened left here]",
        INTERRUPTED: "[interrupted: the recording process died, or the stream had no end]",
        INCOMPLETE: f"[incomplete: {run.finish_reason or 'it was cut short'}]",
        STREAMING: "[still streaming: --follow goes on with it]",
    }
    return ends.get(run.status) or (None if tokens else f"[run {run.id} said nothing]")
