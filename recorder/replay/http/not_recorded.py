"""A request that nothing recorded answers: what is nearest, how the two differ, and what to do about it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher, unified_diff
from typing import Any

from recorder.core.clock import iso
from recorder.core.json import dumps, loads
from recorder.errors import NotFound
from recorder.replay.http.request_form import Form
from recorder.storage.reader import RecordedRun
from recorder.storage.rows import INTERRUPTED

#: Characters of each that are compared in search of the nearest.
_COMPARED = 4_000
#: Lines of the difference that are shown, and characters of each.
_LINES, _WIDTH = 40, 400


class NotRecorded(NotFound):
    """No recorded run answers a request; the message shows the nearest one, the difference, and how to record it."""


def counts(run: RecordedRun) -> bool:
    """Whether a run can answer: it has ended, and its end was seen."""
    return not run.is_open and not has_no_end(run)


def has_no_end(run: RecordedRun) -> bool:
    """Whether whoever recorded it died, or was closed, before it ended; a provider that just stopped is an end."""
    return run.status == INTERRUPTED and run.response_model is None


def nearest(asked: Form, recorded: Iterable[tuple[RecordedRun, Form]]) -> tuple[RecordedRun, Form] | None:
    """The recorded request that looks most like it; None where there is none."""
    text, last = _compared(asked), _last(asked)

    def likeness(candidate: tuple[RecordedRun, Form]) -> float:
        whole = SequenceMatcher(None, text, _compared(candidate[1]), autojunk=False).quick_ratio()
        return whole + SequenceMatcher(None, last, _last(candidate[1]), autojunk=False).quick_ratio()

    return max(recorded, key=likeness, default=None)


def miss(
    asked: Form,
    *,
    found: Sequence[RecordedRun] = (),
    near: tuple[RecordedRun, Form] | None = None,
    how: str = "",
) -> NotRecorded:
    """The error for a request. `found` are runs of it that are given already, or have no end."""
    if found:
        said = _why_not(found)
    elif near is None:
        said = "No recorded run answers this request: none is recorded yet."
    else:
        said = _beside(asked, *near)
    return NotRecorded(f"{said}\n{how}" if how else said)


def _why_not(found: Sequence[RecordedRun]) -> str:
    open_ones = [run for run in found if run.is_open]
    torn = [run for run in found if has_no_end(run)]
    played = len(found) - len(open_ones) - len(torn)
    said = []
    if played:
        said.append(
            f"This request was recorded {_times(played)} and is made once more; pass allow_playback_repeats=True "
            "to be given the last answer again."
        )
    for runs, why in ((open_ones, "still streams"), (torn, "was cut off when its process ended")):
        if runs:
            said.append(f"Run {runs[-1].id} of this request {why}, and does not count.")
    return " ".join(said)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _beside(asked: Form, run: RecordedRun, recorded: Form) -> str:
    said = f"No recorded run answers this request; the nearest is run {run.id} of {iso(run.started_at)}"
    names = "recorded", "asked"
    lines = list(unified_diff(_pretty(recorded), _pretty(asked), *names, n=2, lineterm=""))
    if not lines:
        return (
            f"{said}. Both say the same in other words, spaces for example; match_on= or ignore= compare by what is "
            "said."
        )
    shown = [line if len(line) <= _WIDTH else f"{line[:_WIDTH]}..." for line in lines[:_LINES]]
    if len(lines) > _LINES:
        shown.append(f"... and {len(lines) - _LINES} lines more")
    return f"{said}:\n" + "\n".join(shown)


def _compared(form: Form) -> str:
    return dumps(form, sort_keys=True)[:_COMPARED]


def _last(form: Form) -> str:
    return dumps((form.get("messages") or [""])[-1])[-_COMPARED:]


def _pretty(form: Form) -> list[str]:
    # Through our JSON first, which takes whatever an application passes.
    plain = loads(dumps(_by_lines(form)))
    return json.dumps(plain, indent=2, sort_keys=True, ensure_ascii=False).splitlines()


def _by_lines(value: Any) -> Any:
    """Texts of several lines as lists of them, or a change of one word would show as one of everything."""
    if isinstance(value, dict):
        return {key: _by_lines(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_by_lines(each) for each in value]
    return value.splitlines() if isinstance(value, str) and "\n" in value else value
