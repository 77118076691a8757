"""`recorder tail`: shows what is being recorded, as it is committed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from rich.text import Text

from recorder.cli import console
from recorder.cli.replay import INTERRUPTED, open_reader, quiet_log
from recorder.cli.stream_view import JsonLines, RunText, how_it_ended
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
from recorder.replay.reader_thread import ReaderThread
from recorder.storage.dialects import masked
from recorder.storage.id_lookup import Found
from recorder.storage.reader import DatabaseReader, RecordedRun

#: A run that begins and ends between two commits is found if it began within this time.
_WINDOW = timedelta(seconds=30)
_AT_ONCE = Options(speed=None, follow=True)


def run(url: str, id: str | None, json: bool) -> int:
    """Follow until Ctrl-C, or until the given run has ended; the exit code."""
    quiet_log()
    with open_reader(url) as reader:
        target = None if id is None else reader.ask(DatabaseReader.find, id).result()
        if sys.stderr.isatty() and not json:
            name = "all runs" if target is None else str(target)
            console.notice(console.styled(f"Following {name} in {masked(url)}; Ctrl-C ends.", "dim"), Text())
        tail = Tail(reader, target, json)
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

    def __init__(self, reader: ReaderThread, target: Found | None, json: bool) -> None:
        self._reader = reader
        self._target = target
        self._plays: dict[str, Trampoline[Step, None]] = {}
        self._views = RunViews(lambda: len(self._plays))
        self._lines: dict[str, JsonLines] | None = {} if json else None
        #: Recent runs that were seen before, followed or not.
        self._known: set[str] = set()

    def run(self) -> None:
        """Show what is committed; returns only after the given run has ended."""
        version = 0
        if self._target is not None and self._target.kind == "run":
            self._follow(self._target.id)
        else:
            # Runs that have ended before are not shown.
            self._known = set(self._begun()) - set(self._ask(DatabaseReader.open_runs))
        while True:
            version = self._reader.after(version).result()
            self._find_new_runs()
            for id in list(self._plays):
                self._show_new(id)
            sys.stdout.flush()
            if self._target is not None and self._target.kind == "run" and not self._plays:
                return

    def _find_new_runs(self) -> None:
        """Follow the runs that have begun."""
        if self._target is not None and self._target.kind == "run":
            return
        seen = [*self._ask(DatabaseReader.open_runs), *self._begun()]
        for id in seen:
            if id not in self._known and self._is_of_target(id):
                self._follow(id)
        self._known = {*seen, *self._plays}

    def _begun(self) -> list[str]:
        found: list[str] = self._ask(DatabaseReader.begun, now() - _WINDOW)
        return found

    def _is_of_target(self, id: str) -> bool:
        if self._target is None:
            return True
        run: RecordedRun = self._ask(DatabaseReader.run, id)
        return run.conversation_id == self._target.id

    def _follow(self, id: str) -> None:
        self._known.add(id)
        self._plays[id] = Trampoline(play(id, _AT_ONCE, tokens))

    def _show_new(self, id: str) -> None:
        """Show what was committed of a run since the last call."""
        answer: Any = None
        while (step := self._plays[id].step(answer)) is not None:
            answer = None
            if isinstance(step, QueryStep):
                answer = self._ask(step.method, *step.arguments)
            elif isinstance(step, WaitStep):
                return
            elif self._lines is not None:
                _print_json(self._lines.setdefault(id, JsonLines()), step)
            else:
                self._views.show(id, step)
        del self._plays[id]

    def _ask(self, method: Any, *given: Any) -> Any:
        return self._reader.ask(method, *given).result()


def _print_json(lines: JsonLines, step: Any) -> None:
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
        self._texts: dict[str, tuple[RecordedRun, RunText]] = {}
        self._current: str | None = None

    def show(self, id: str, step: Any) -> None:
        """Show a step of a run."""
        if isinstance(step, BeginStep):
            self._texts[id] = step.run, RunText()
        elif isinstance(step, TokensStep) and step.items:
            text = self._switch_to(id)
            for item in step.items:
                text.token(*item[1:])
        elif isinstance(step, GapStep):
            self._switch_to(id).gap(step)
        elif isinstance(step, EndStep):
            self._end(id, step.run)

    def _end(self, id: str, run: RecordedRun) -> None:
        ended = how_it_ended(run, self._texts[id][1].tokens)
        if ended is not None:
            self._switch_to(id).line()
            console.echo(ended)
        if self._current == id:
            self._texts[id][1].line()
        del self._texts[id]

    def _switch_to(self, id: str) -> RunText:
        run, text = self._texts[id]
        if self._current == id:
            return text
        if self._current in self._texts:
            self._texts[self._current][1].line()
        if self._current is not None or self._count() > 1:
            if self._current is not None:
                print()
            console.console().print(_heading(run), soft_wrap=True)
        self._current = id
        return text


def _heading(run: RecordedRun) -> Text:
    about = [f"run {run.id}", *([run.model] if run.model else [])]
    heading = console.styled(run.conversation_id, "bold")
    return heading + console.styled("  " + "  ".join(about), "not bold dim")
