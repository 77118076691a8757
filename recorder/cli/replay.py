"""`recorder replay`: a stored stream again in the terminal, at its own pace."""

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
from recorder.cli.keys import Clock, Keys, Quit
from recorder.cli.stream_view import Bytes, Lines, Page
from recorder.core.trampoline import Trampoline
from recorder.errors import ConfigError, NotFound
from recorder.replay.pace import FASTEST, SLOWEST, Options, Pace, Place
from recorder.replay.playback import Ask, Begin, End, Frames, Gap, Play, Tokens, Wait, frames, tokens, whole
from recorder.replay.reader_thread import Reader, shared
from recorder.storage.id_lookup import Found
from recorder.storage.reader import Library

#: What a shell reports for a program that Ctrl-C ended.
INTERRUPTED = 130
#: As fast as possible, the keys are heard after so many tokens.
_HEARD_EVERY = 256
_SECONDS = re.compile(r"(\d+(?:\.\d*)?|\.\d+)s")


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line asks for."""

    url: str
    #: None for the newest run.
    id: str | None
    options: Options
    frames: bool = False
    json: bool = False
    #: Nothing but what was said: neither the question nor the keys.
    quiet: bool = False


def options(
    speed: float | None, instant: bool, max_gap: float | None, start: str | None, until: str | None, follow: bool
) -> Options:  # fmt: skip
    """How to play. Raises `ConfigError` in the words of the command line."""
    if instant and speed is not None:
        raise ConfigError("--instant has no --speed; leave one of them out")
    if speed is not None and not SLOWEST <= speed <= FASTEST:
        raise ConfigError(f"--speed is {speed:g}; choose {SLOWEST} to {FASTEST:g}, or --instant")
    if max_gap is not None and not max_gap >= 0:
        raise ConfigError(f"--idle-time-limit is {max_gap:g}; it must be seconds, zero or more")
    pace = None if instant else speed or 1.0
    return Options(pace, max_gap, _place("--from", start), _place("--until", until), follow)


def _place(name: str, given: str | None) -> Place | None:
    if given is None:
        return None
    if given.isdecimal():
        return int(given)
    if (found := _SECONDS.fullmatch(given)) is not None:
        return float(found[1])
    raise ConfigError(f"{name} is {given!r}; write the number of a token, like 120, or seconds, like 2.5s")


def run(wish: Wish) -> int:
    """Play it; the exit code. Raises `RecorderError` for what cannot be."""
    if wish.frames and wish.json:
        raise ConfigError("--json and --frames are two ways to see it; leave one of them out")
    quiet_log()
    with open_reader(wish.url) as reader:
        found = _found(reader, wish.id)
        shown: Page | Lines | Bytes = (
            Bytes() if wish.frames else Lines() if wish.json else Page(asked=not wish.quiet)
        )
        part = frames if wish.frames else tokens
        play = whole(found.id, wish.options, part, messages=isinstance(shown, Page))
        with Keys() as keys:
            if keys.there and isinstance(shown, Page) and not wish.quiet:
                console.notice(console.styled("space pauses, . steps, q quits", "dim"), Text())
            try:
                Player(reader, Clock(keys), wish.options, shown).run(play)
            except (Quit, KeyboardInterrupt) as end:
                return 0 if isinstance(end, Quit) else INTERRUPTED
            finally:
                play.close()
                shown.close()
        if isinstance(shown, Bytes) and not shown.any:
            raise NotFound(f"The provider's events of {found} were not recorded; leave --frames out")
        return 0


def quiet_log() -> None:
    """What is logged of damaged rows is shown where it belongs, not in the middle of the text."""
    logging.getLogger("recorder").addHandler(logging.NullHandler())


@contextmanager
def open_reader(url: str) -> Iterator[Reader]:
    """What answers questions about a database."""
    reader = shared(url)
    try:
        yield reader
    finally:
        reader.close()


def _found(reader: Reader, id: str | None) -> Found:
    """What is played. Raises `NotFound`; says which path it is of a conversation with branches."""
    if id is None:
        return reader.ask(Library.newest).result()
    found = reader.ask(Library.find, id).result()
    if found.kind == "conversation":
        branch = reader.ask(Library.newest_branch, found.id).result()
        if not branch.runs:
            raise NotFound(
                f"Conversation {found.id} has no runs yet; `recorder show {found.id}` shows its messages"
            )
        if branch.has_others:
            console.notice(
                console.styled(f"Conversation {found.id} has other branches. This is the newest, up to run"),
                console.styled(f"{branch.runs[-1].id}; `recorder show` draws them all."),
                Text(),
            )
    return found


class Player:
    """Shows the pieces of a play when they are due."""

    def __init__(self, reader: Reader, clock: Clock, options: Options, shown: Page | Lines | Bytes) -> None:
        self._reader = reader
        self._clock = clock
        self._options = options
        self._shown = shown
        self._pace = Pace(options)
        self._began = 0.0
        self._version = 0

    def run(self, play: Play) -> None:
        """To the end."""
        if not self._options.follow:
            self._run(play)
            return
        try:
            self._reader.follow(self).result()
            self._run(play)
        finally:
            self._reader.unfollow(self)

    def _run(self, play: Play) -> None:
        steps, answer = Trampoline(play), None
        while (step := steps.step(answer)) is not None:
            answer = self._step(step)
        sys.stdout.flush()

    def _step(self, step: Any) -> Any:
        """Show a piece, or answer a question."""
        if isinstance(step, Ask):
            return self._reader.answer_to(step, follow=self._options.follow).result()
        if isinstance(step, Wait):
            self._version = self._clock.result(self._reader.after(self._version))
        elif isinstance(step, (Tokens, Frames)):
            self._items(step)
        elif isinstance(step, Begin):
            self._pace, self._began = Pace(self._options), self._clock.now()
            self._shown.begin(step)
        elif isinstance(step, Gap):
            self._await(step.at_us)
            self._shown.gap(step)
        elif isinstance(step, End):
            self._shown.end(step)
        return None

    def _items(self, piece: Tokens | Frames) -> None:
        items: list[Any] = piece.items
        for seq, item in enumerate(items, piece.seq):
            if self._options.speed is not None:
                self._await(item[0])
            elif seq % _HEARD_EVERY == 0:
                self._clock.listen()
            self._shown.item(seq, item)

    def _await(self, at_us: int) -> None:
        if self._options.speed is not None:
            self._clock.until(self._began + self._pace.due(at_us))
