"""`recorder tail`: shows what is being recorded, as it is committed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from rich.text import Text

from recorder.cli import console
from recorder.cli.replay import INTERRUPTED, open_reader, quiet_log
from recorder.cli.stream_view import Lines, Speech, how_it_ended
from recorder.core.clock import now
from recorder.core.trampoline import Trampoline
from recorder.replay.pace import Options
from recorder.replay.playback import (
    BeginStep,
    EndStep,
    GapStep,
    QueryStep,
    Step,
    TokensStep,
    WaitStep,
    play,
    tokens,
)
from recorder.replay.reader_thread import Reader
from recorder.storage.dialects import masked
from recorder.storage.id_lookup import Found
from recorder.storage.reader import Library, RecordedRun

#: A run that begins and ends between two commits is found if it began within this time.
_WINDOW = timedelta(seconds=30)
_AT_ONCE = Options(speed=None, follow=True)


def run(url: str, id: str | None, json: bool) -> int:
    """Follow until Ctrl-C, or until the given run has ended; the exit code."""
    quiet_log()
    with open_reader(url) as reader:
        wanted = None if id is None else reader.ask(Library.find, id).result()
        if sys.stderr.isatty() and not json:
            what = "what is recorded" if wanted is None else str(wanted)
            console.notice(console.styled(f"Following {what} in {masked(url)}; Ctrl-C ends.", "dim"), Text())
        tail = Tail(reader, wanted, json)
        try:
            reader.follow(tail).result()
            tail.run()
        except KeyboardInterrupt:
            sys.stdout.flush()
            print(file=sys.stderr)
            return INTERRUPTED
        finally:
            reader.unfollow(tail)
    return 0


class Tail:
    """Follows runs: one playback for each, resumed after each commit."""

    def __init__(self, reader: Reader, wanted: Found | None, json: bool) -> None:
        self._reader = reader
        self._wanted = wanted
        self._plays: dict[str, Trampoline[Step, None]] = {}
        self._views = RunViews(lambda: len(self._plays))
        self._lines: dict[str, Lines] | None = {} if json else None
        #: Recent runs that were seen before, followed or not.
        self._known: set[str] = set()

    def run(self) -> None:
        """Show what is committed; returns only after the given run has ended."""
        version = 0
        if self._wanted is not None and self._wanted.kind == "run":
            self._follow(self._wanted.id)
        else:
            # Runs that have ended before are not shown.
            self._known = set(self._begun()) - set(self._ask(Library.open_runs))
        while True:
            version = self._reader.after(version).result()
            self._look()
            for id in list(self._plays):
                self._go_on(id)
            sys.stdout.flush()
            if self._wanted is not None and self._wanted.kind == "run" and not self._plays:
                return

    def _look(self) -> None:
        """Follow the runs that have begun."""
        if self._wanted is not None and self._wanted.kind == "run":
            return
        seen = [*self._ask(Library.open_runs), *self._begun()]
        for id in seen:
            if id not in self._known and self._is_wanted(id):
                self._follow(id)
        self._known = {*seen, *self._plays}

    def _begun(self) -> list[str]:
        found: list[str] = self._ask(Library.begun, now() - _WINDOW)
        return found

    def _is_wanted(self, id: str) -> bool:
        if self._wanted is None:
            return True
        run: RecordedRun = self._ask(Library.run, id)
        return run.conversation_id == self._wanted.id

    def _follow(self, id: str) -> None:
        self._known.add(id)
        self._plays[id] = Trampoline(play(id, _AT_ONCE, tokens))

    def _go_on(self, id: str) -> None:
        """Show what was committed of a run since the last call."""
        answer: Any = None
        while (step := self._plays[id].step(answer)) is not None:
            answer = None
            if isinstance(step, QueryStep):
                answer = self._ask(step.method, *step.arguments)
            elif isinstance(step, WaitStep):
                return
            elif self._lines is not None:
                _as_json(self._lines.setdefault(id, Lines()), step)
            else:
                self._views.show(id, step)
        del self._plays[id]

    def _ask(self, method: Any, *given: Any) -> Any:
        return self._reader.ask(method, *given).result()


def _as_json(lines: Lines, step: Any) -> None:
    if isinstance(step, BeginStep):
        lines.begin(step)
    elif isinstance(step, TokensStep):
        for seq, item in enumerate(step.items, step.seq):
            lines.item(seq, item)
    elif isinstance(step, GapStep):
        lines.gap(step)
    elif isinstance(step, EndStep):
        lines.end(step)


class RunViews:
    """Shows several runs on one screen, with a heading wherever the output changes to another run."""

    def __init__(self, count: Callable[[], int]) -> None:
        self._count = count
        self._speeches: dict[str, tuple[RecordedRun, Speech]] = {}
        self._current: str | None = None

    def show(self, id: str, step: Any) -> None:
        """Show a step of a run."""
        if isinstance(step, BeginStep):
            self._speeches[id] = step.run, Speech()
        elif isinstance(step, TokensStep) and step.items:
            speech = self._switch_to(id)
            for item in step.items:
                speech.token(*item[1:])
        elif isinstance(step, GapStep):
            self._switch_to(id).gap(step)
        elif isinstance(step, EndStep):
            self._end(id, step.run)

    def _end(self, id: str, run: RecordedRun) -> None:
        ended = how_it_ended(run, self._speeches[id][1].tokens)
        if ended is not None:
            self._switch_to(id).line()
            console.echo(ended)
        if self._current == id:
            self._speeches[id][1].line()
        del self._speeches[id]

    def _switch_to(self, id: str) -> Speech:
        run, speech = self._speeches[id]
        if self._current == id:
            return speech
        if self._current in self._speeches:
            self._speeches[self._current][1].line()
        if self._current is not None or self._count() > 1:
            if self._current is not None:
                print()
            console.console().print(_heading(run), soft_wrap=True)
        self._current = id
        return speech


def _heading(run: RecordedRun) -> Text:
    about = [f"run {run.id}", *([run.model] if run.model else [])]
    heading = console.styled(run.conversation_id, "bold")
    return heading + console.styled("  " + "  ".join(about), "not bold dim")
