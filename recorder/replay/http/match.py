"""Finds the recorded run that answers a request: by the hash of the request, or by the fields that the user chooses.

Runs of the same request are used in the order of their recording, each once. Does no I/O: the functions are generators
of queries.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from recorder.core.escaping import escape
from recorder.core.json import dumps
from recorder.errors import ConfigError
from recorder.redaction.redaction import MatchCounts, Redaction
from recorder.replay.http.not_recorded import NotRecorded, is_playable, nearest, not_recorded
from recorder.replay.http.request_form import Form, form_of_body, form_of_run
from recorder.replay.playback import QueryStep
from recorder.replay.queries import Queries
from recorder.storage.reader import DatabaseReader, RecordedRun
from recorder.wire.request_hash import input_hash

#: Takes the form of a request and the form of a recorded one; returns whether the run may answer the request.
Same = Callable[[Form, Form], bool]

#: Added to the error if runs were redacted and requests are not.
REDACTED = (
    "Recorded runs were redacted, and a request with such a text is found only if it is redacted in the same way: "
    "pass the recorder's redact= to Replay(url, redact=...)."
)
#: Runs that one query fetches.
PAGE = 200
#: Names that some wire formats have for the messages.
_ALIASES = {"prompt": "messages", "input": "messages"}


@dataclass(frozen=True, slots=True)
class Rules:
    """Which fields of a recorded request must equal those of a new one. Raises `ConfigError` for invalid values."""

    #: Fields that must be equal while all others may differ (messages, system, model, temperature, tools, ...), or a
    #: function of the new and the recorded request. None for all fields.
    match_on: Sequence[str] | Same | None = None
    #: Fields that may differ.
    ignore: Sequence[str] | None = None
    #: Whether the last run is used again for a request that is made more often than it was recorded.
    allow_playback_repeats: bool = False

    def __post_init__(self) -> None:
        if self.match_on is not None and self.ignore is not None:
            raise ConfigError(
                "match_on says what must be the same and ignore what need not; pass one of them"
            )
        for name, value in (("match_on", self.match_on), ("ignore", self.ignore)):
            if isinstance(value, str) or not (value is None or callable(value) or _is_names(value)):
                raise ConfigError(f"{name} is {value!r}; pass a tuple of names, ({str(value)!r},) for one")

    @property
    def is_exact(self) -> bool:
        """Whether all fields must be equal, so that the hash of the request decides."""
        return self.match_on is None and self.ignore is None

    def compared_fields(self, form: Form) -> Form:
        """The fields of a form that are compared."""
        if self.match_on is not None and not callable(self.match_on):
            names = {_ALIASES.get(name, name) for name in self.match_on}
            return {name: form[name] for name in form.keys() & names}
        left_out = {_ALIASES.get(name, name) for name in self.ignore or ()}
        return {name: form[name] for name in form.keys() - left_out}

    def key_of(self, form: Form) -> Any:
        """The value of a form that `same` compares; the form itself for a function of the user."""
        return form if callable(self.match_on) else dumps(self.compared_fields(form), sort_keys=True)

    def same(self, requested: Any, recorded: Any) -> bool:
        """Whether a recorded run answers a request, given their `key_of`."""
        found = self.match_on(requested, recorded) if callable(self.match_on) else requested == recorded
        return bool(found)


def _is_names(value: object) -> bool:
    return isinstance(value, Sequence) and all(isinstance(name, str) for name in value)


class Matcher:
    """Matches requests to runs and remembers which runs were used. Any number of threads and event loops may use it."""

    def __init__(
        self, rules: Rules, *, before: datetime | None = None, how_to_record: str = "",
        redaction: Redaction | None = None, user_id: str | None = None,
    ) -> None:  # fmt: skip
        """Runs that began at or after `before` are ignored: this session records them, for the next one. `redaction` is
        that of the recording: a request is redacted in the same way before it is compared. With a `user_id` only runs
        in the conversations of this user are found."""
        self._redaction = redaction
        self._rules = rules
        self._before = before
        self._how = how_to_record
        self._user_id = user_id
        self._lock = threading.Lock()
        self._used: set[str] = set()
        #: Hash of a request -> the run that answered it last.
        self._last: dict[str, RecordedRun] = {}
        #: For rules that are not exact: each run with its `key_of`, in the order of recording.
        self._keyed: list[tuple[RecordedRun, Any]] | None = None

    def find(self, body: Mapping[str, Any], wire: str, *, is_retry: bool = False) -> Queries[RecordedRun]:
        """The run that answers a request; with `is_retry` the run that answered the same request last.

        `body` is the JSON of the request, or the arguments of the SDK's `create`. Raises `NotRecorded`.
        """
        if self._redaction is not None:
            body = self._redaction.value(dict(body), MatchCounts(self._redaction))
        key = input_hash(body)
        if is_retry and (last := self._last.get(key)) is not None:
            return last
        if self._rules.is_exact:
            found = yield QueryStep(DatabaseReader.runs_of_request, key)
        else:
            found = yield from self._loosely(form_of_body(body), wire)
        found = yield from self._offered(found)
        run = self._next(key, [run for run in found if is_playable(run)])
        if run is None:
            raise (yield from self._not_recorded(body, wire, found))
        return run

    def _next(self, key: str, found: Sequence[RecordedRun]) -> RecordedRun | None:
        with self._lock:
            run = next((run for run in found if run.id not in self._used), None)
            if run is None and found and self._rules.allow_playback_repeats:
                run = found[-1]
            if run is not None:
                self._used.add(run.id)
                self._last[key] = run
            return run

    def _offered(self, found: Sequence[RecordedRun]) -> Queries[list[RecordedRun]]:
        """Those of these runs that may be used."""
        offered = [run for run in found if self._before is None or run.started_at < self._before]
        if self._user_id is None:
            return offered
        owners: dict[str, Any] = {}
        for conversation in {run.conversation_id for run in offered}:
            owners[conversation] = yield QueryStep(DatabaseReader.owners, conversation)
        return [run for run in offered if escape(self._user_id) in owners[run.conversation_id]]

    # -- rules that are not exact -----------------------------------------------------------------------------------

    def _loosely(self, form: Form, wire: str) -> Queries[list[RecordedRun]]:
        key = self._rules.key_of(form)
        if self._keyed is not None:
            found = self._same(key)
            if any(is_playable(run) and run.id not in self._used for run in found):
                return found
        # None of the known runs: read again, since one may have been recorded meanwhile.
        self._keyed = yield from self._all_keyed(wire)
        return self._same(key)

    def _same(self, key: Any) -> list[RecordedRun]:
        return [run for run, recorded in self._keyed or () if self._rules.same(key, recorded)]

    def _all_keyed(self, wire: str) -> Queries[list[tuple[RecordedRun, Any]]]:
        keyed: list[tuple[RecordedRun, Any]] = []
        page: list[RecordedRun] = yield QueryStep(DatabaseReader.latest, PAGE)
        while page:
            for run in page:
                form = yield from _form_of(run, wire)
                keyed.append((run, self._rules.key_of(form)))
            page = yield QueryStep(DatabaseReader.latest, PAGE, page[-1])
        return keyed[::-1]

    # -- no run -----------------------------------------------------------------------------------------------------

    def _not_recorded(
        self, body: Mapping[str, Any], wire: str, found: Sequence[RecordedRun]
    ) -> Queries[NotRecorded]:
        """The error for a request without a run; it shows the nearest recorded request."""
        compared = self._rules.compared_fields
        requested = compared(form_of_body(body))
        if found:
            return not_recorded(requested, found=found, how=self._how)
        page: list[RecordedRun] = yield QueryStep(DatabaseReader.latest, PAGE)
        forms = []
        for run in (yield from self._offered(page)):
            if is_playable(run):
                forms.append((run, compared((yield from _form_of(run, wire)))))
        is_redacted = self._redaction is None and any(run.redaction is not None for run, _ in forms)
        how = f"{REDACTED} {self._how}" if is_redacted else self._how
        return not_recorded(requested, near=nearest(requested, forms), how=how)


def _form_of(run: RecordedRun, wire: str) -> Generator[QueryStep, Any, Form]:
    """The form of a recorded run's request, its messages as this wire format writes them."""
    sent = yield QueryStep(DatabaseReader.request, run)
    return form_of_run(run, sent, wire)
