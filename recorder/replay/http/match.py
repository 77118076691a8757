"""Which recorded run answers a request: exactly by its hash, or by what the user says it must share.

Without any I/O: generators that ask the library (`asking.py`). Runs of the same request are played in the order in
which they were recorded, each once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from recorder.core.json import dumps
from recorder.errors import ConfigError
from recorder.replay.http.not_recorded import NotRecorded, counts, miss, nearest
from recorder.replay.http.request_form import Form, asked_form, recorded_form
from recorder.replay.playback import Ask
from recorder.replay.queries import Asking
from recorder.storage.reader import Library, RecordedRun
from recorder.wire.request_hash import input_hash

#: Given two requests in one form, what is asked and what was recorded: whether they are the same to the user.
Same = Callable[[Form, Form], bool]

#: Runs of one question to the library.
PAGE = 200
#: Words for what is said, whatever a format calls it.
_ALIASES = {"prompt": "messages", "input": "messages"}


@dataclass(frozen=True, slots=True)
class Rules:
    """What a recorded request must share with the one that is asked. Raises `ConfigError` for what cannot be."""

    #: Fields that must be the same, all others may differ: messages, system, model, temperature, tools, ...; or a
    #: function of both requests, asked and recorded. None for all fields.
    match_on: Sequence[str] | Same | None = None
    #: Fields that may differ.
    ignore: Sequence[str] | None = None
    #: Whether the last of the recorded answers is given again when the request is made more often than recorded.
    allow_playback_repeats: bool = False

    def __post_init__(self) -> None:
        if self.match_on is not None and self.ignore is not None:
            raise ConfigError(
                "match_on says what must be the same and ignore what need not; pass one of them"
            )
        for name, given in (("match_on", self.match_on), ("ignore", self.ignore)):
            if isinstance(given, str) or not (given is None or callable(given) or _is_names(given)):
                raise ConfigError(f"{name} is {given!r}; pass a tuple of names, ({str(given)!r},) for one")

    @property
    def is_exact(self) -> bool:
        """Whether the hash of the request decides."""
        return self.match_on is None and self.ignore is None

    def part(self, form: Form) -> Form:
        """What of a request counts."""
        if self.match_on is not None and not callable(self.match_on):
            names = {_ALIASES.get(name, name) for name in self.match_on}
            return {name: form[name] for name in form.keys() & names}
        left_out = {_ALIASES.get(name, name) for name in self.ignore or ()}
        return {name: form[name] for name in form.keys() - left_out}

    def mark(self, form: Form) -> Any:
        """What two requests must share, as a value to compare; all of it where the user compares."""
        return form if callable(self.match_on) else dumps(self.part(form), sort_keys=True)

    def same(self, asked: Any, recorded: Any) -> bool:
        """Whether two marks say that a recorded run answers what is asked."""
        return bool(self.match_on(asked, recorded)) if callable(self.match_on) else bool(asked == recorded)


def _is_names(given: object) -> bool:
    return isinstance(given, Sequence) and all(isinstance(name, str) for name in given)


class Matcher:
    """One replay of a recording: knows which runs it has given. Of any number of threads and event loops."""

    def __init__(self, rules: Rules, *, before: datetime | None = None, how_to_record: str = "") -> None:
        """Runs that began at or after `before` are not looked at: they are recorded meanwhile, for the next time."""
        self._rules = rules
        self._before = before
        self._how = how_to_record
        self._lock = threading.Lock()
        self._given: set[str] = set()
        #: Hash of a request -> the run that it was last given.
        self._last: dict[str, RecordedRun] = {}
        #: For loosened rules: each run with its mark, in order.
        self._marked: list[tuple[RecordedRun, Any]] | None = None

    def find(self, body: Mapping[str, Any], wire: str, *, again: bool = False) -> Asking[RecordedRun]:
        """The run that answers a request; `again` for the same one that it was given last, as for a retry.

        `body` is its JSON, or the arguments of the SDK's `create`. Raises `NotRecorded`.
        """
        key = input_hash(body)
        if again and (last := self._last.get(key)) is not None:
            return last
        if self._rules.is_exact:
            found = yield Ask(Library.runs_of_request, key)
        else:
            found = yield from self._loosely(asked_form(body), wire)
        found = [run for run in found if self._is_before(run)]
        run = self._next(key, [run for run in found if counts(run)])
        if run is None:
            raise (yield from self._miss(body, wire, found))
        return run

    def _next(self, key: str, found: Sequence[RecordedRun]) -> RecordedRun | None:
        with self._lock:
            run = next((run for run in found if run.id not in self._given), None)
            if run is None and found and self._rules.allow_playback_repeats:
                run = found[-1]
            if run is not None:
                self._given.add(run.id)
                self._last[key] = run
            return run

    def _is_before(self, run: RecordedRun) -> bool:
        return self._before is None or run.started_at < self._before

    # -- loosened -------------------------------------------------------------------------------------------------

    def _loosely(self, form: Form, wire: str) -> Asking[list[RecordedRun]]:
        mark = self._rules.mark(form)
        if self._marked is not None:
            found = self._same(mark)
            if any(counts(run) and run.id not in self._given for run in found):
                return found
        # Nothing of what is known: it may have come since.
        self._marked = yield from self._all_marked(wire)
        return self._same(mark)

    def _same(self, mark: Any) -> list[RecordedRun]:
        return [run for run, recorded in self._marked or () if self._rules.same(mark, recorded)]

    def _all_marked(self, wire: str) -> Asking[list[tuple[RecordedRun, Any]]]:
        marked: list[tuple[RecordedRun, Any]] = []
        page: list[RecordedRun] = yield Ask(Library.latest, PAGE)
        while page:
            for run in page:
                form = yield from form_of(run, wire)
                marked.append((run, self._rules.mark(form)))
            page = yield Ask(Library.latest, PAGE, page[-1])
        return marked[::-1]

    # -- a miss -----------------------------------------------------------------------------------------------------

    def _miss(self, body: Mapping[str, Any], wire: str, found: Sequence[RecordedRun]) -> Asking[NotRecorded]:
        """The error that says what there is instead."""
        part = self._rules.part
        asked = part(asked_form(body))
        if found:
            return miss(asked, found=found, how=self._how)
        page: list[RecordedRun] = yield Ask(Library.latest, PAGE)
        forms = []
        for run in page:
            if counts(run) and self._is_before(run):
                forms.append((run, part((yield from form_of(run, wire)))))
        return miss(asked, near=nearest(asked, forms), how=self._how)


def form_of(run: RecordedRun, wire: str) -> Generator[Ask, Any, Form]:
    """The request of a recorded run, as one in this wire format would have said it."""
    path = yield Ask(Library.path, run.conversation_id, run.prompt_message_id)
    return recorded_form(run, path, wire)
