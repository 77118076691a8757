"""`recorder replay`: plays a stored stream in the terminal, at its recorded pace."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from recorder.cli import console
from recorder.cli.key_presses import Clock, Keys, Quit
from recorder.cli.program import program
from recorder.cli.stream_view import FrameBytes, JsonLines, Page
from recorder.core.trampoline import Trampoline
from recorder.errors import ConfigError, NotFound
from recorder.replay.pace import FASTEST, SLOWEST, Options, Pace, Place
from recorder.replay.playback import (
    BeginStep,
    EndStep,
    FramesStep,
    GapStep,
    Playback,
    QueryStep,
    TokensStep,
    WaitStep,
    frames,
    play,
    tokens,
)
from recorder.replay.reader_thread import ReaderThread, shared
from recorder.storage.id_lookup import Found
from recorder.storage.reader import DatabaseReader

#: The exit code of a program that Ctrl-C ended, as shells report it.
INTERRUPTED = 130
#: With `--instant` the keys are polled once in this many tokens.
_KEYS_EVERY = 256
_SECONDS = re.compile(r"(\d+(?:\.\d*)?|\.\d+)s")


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """The arguments of the command."""

    url: str
    #: Id of a run or conversation, or its beginning; None is the newest run.
    id: str | None
    options: Options
    frames: bool = False
    json: bool = False
    #: Shows only the reply: no prompt and no help for the keys.
    quiet: bool = False


def options(
    speed: float | None, instant: bool, max_gap: float | None, start: str | None, until: str | None, follow: bool
) -> Options:  # fmt: skip
    """The options of the replay. Raises `ConfigError`, with the names of the command line."""
    if instant and speed is not None:
        raise ConfigError("--instant and --speed exclude each other; leave one of them out")
    if speed is not None and not SLOWEST <= speed <= FASTEST:
        raise ConfigError(f"--speed is {speed:g}; choose {SLOWEST} to {FASTEST:g}, or --instant")
    if max_gap is not None and not max_gap >= 0:
        raise ConfigError(f"--idle-time-limit is {max_gap:g}; give seconds, 0 or more")
    pace = None if instant else speed or 1.0
    return Options(pace, max_gap, _place("--from", start), _place("--until", until), follow)


def _place(name: str, given: str | None) -> Place | None:
    if given is None:
        return None
    if given.isdecimal():
        return int(given)
    if (found := _SECONDS.fullmatch(given)) is not None:
        return float(found[1])
    raise ConfigError(f"{name} is {given!r}; give the number of a token (120), or seconds (2.5s)")


def run(arguments: ReplayOptions) -> int:
    """Play the run or conversation; the exit code. Raises `RecorderError`."""
    if arguments.frames and arguments.json:
        raise ConfigError("--json and --frames exclude each other; leave one of them out")
    quiet_log()
    with open_reader(arguments.url) as reader:
        found = _found(reader, arguments.id)
        shown = _view(arguments)
        play_run = frames if arguments.frames else tokens
        playback = play(found.id, arguments.options, play_run, messages=isinstance(shown, Page))
        with Keys() as keys:
            if keys.has_terminal and isinstance(shown, Page) and not arguments.quiet:
                console.notice(console.styled("space pauses, . steps, q quits", "dim"), Text())
            try:
                Player(reader, Clock(keys), arguments.options, shown).run(playback)
            except (Quit, KeyboardInterrupt) as end:
                return 0 if isinstance(end, Quit) else INTERRUPTED
            finally:
                playback.close()
                shown.close()
        if isinstance(shown, FrameBytes) and not shown.any:
            raise NotFound(f"The provider's events of {found} were not recorded; leave --frames out")
        return 0


def _view(arguments: ReplayOptions) -> Page | JsonLines | FrameBytes:
    if arguments.frames:
        return FrameBytes()
    return JsonLines() if arguments.json else Page(show_prompt=not arguments.quiet)


def quiet_log() -> None:
    """Log no warnings to the terminal: a damaged row is shown in the text as a gap."""
    logging.getLogger("recorder").addHandler(logging.NullHandler())


@contextmanager
def open_reader(url: str) -> Iterator[ReaderThread]:
    """The reader of a database; closed at the end."""
    reader = shared(url)
    try:
        yield reader
    finally:
        reader.close()


def _found(reader: ReaderThread, id: str | None) -> Found:
    """The run or conversation to play; tells the user if it has other branches. Raises `NotFound`."""
    if id is None:
        return reader.ask(DatabaseReader.newest).result()
    found = reader.ask(DatabaseReader.find, id).result()
    if found.kind == "conversation":
        branch = reader.ask(DatabaseReader.newest_branch, found.id).result()
        if not branch.runs:
            raise NotFound(
                f"Conversation {found.id} has no runs yet; `{program()} show {found.id}` shows its messages"
            )
        if branch.has_others:
            console.notice(
                console.styled(f"Conversation {found.id} has other branches. This is the newest, up to run"),
                console.styled(f"{branch.runs[-1].id}; `{program()} show {found.id}` shows all branches."),
                Text(),
            )
    return found


class Player:
    """Shows the steps of a playback when they are due."""

    def __init__(
        self, reader: ReaderThread, clock: Clock, options: Options, shown: Page | JsonLines | FrameBytes
    ) -> None:
        self._reader = reader
        self._clock = clock
        self._options = options
        self._shown = shown
        self._pace = Pace(options)
        self._began = 0.0
        self._version = 0

    def run(self, playback: Playback) -> None:
        """Play to the end."""
        if not self._options.follow:
            self._run(playback)
            return
        try:
            self._reader.follow(self).result()
            self._run(playback)
        finally:
            self._reader.unfollow(self)

    def _run(self, playback: Playback) -> None:
        steps, answer = Trampoline(playback), None
        while (step := steps.step(answer)) is not None:
            answer = self._step(step)
        sys.stdout.flush()

    def _step(self, step: Any) -> Any:
        """Show a step, or return the answer to it."""
        if isinstance(step, QueryStep):
            return self._reader.answer_to(step, follow=self._options.follow).result()
        if isinstance(step, WaitStep):
            self._version = self._clock.result(self._reader.after(self._version))
        elif isinstance(step, (TokensStep, FramesStep)):
            self._items(step)
        elif isinstance(step, BeginStep):
            self._pace, self._began = Pace(self._options), self._clock.now()
            self._shown.begin(step)
        elif isinstance(step, GapStep):
            self._await(step.at_us)
            self._shown.gap(step)
        elif isinstance(step, EndStep):
            self._shown.end(step)
        return None

    def _items(self, piece: TokensStep | FramesStep) -> None:
        items: list[Any] = piece.items
        for seq, item in enumerate(items, piece.seq):
            if self._options.speed is not None:
                self._await(item[0])
            elif seq % _KEYS_EVERY == 0:
                self._clock.poll()
            self._shown.item(seq, item)

    def _await(self, at_us: int) -> None:
        if self._options.speed is not None:
            self._clock.until(self._began + self._pace.due(at_us))
