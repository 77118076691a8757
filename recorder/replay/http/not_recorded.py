"""The error for a request without a recorded run: it shows the nearest one and the difference."""

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

#: How many characters of each request are compared to find the nearest one.
_COMPARED = 4_000
#: How many lines of the difference are shown, and how many characters of each line.
_LINES, _WIDTH = 40, 400


class NotRecorded(NotFound):
    """No recorded run answers a request; the message shows the nearest one, the difference, and how to record it."""


def is_playable(run: RecordedRun) -> bool:
    """Whether a run can answer a request: it has ended, and its end was recorded."""
    return not run.is_open and not has_no_end(run)


def has_no_end(run: RecordedRun) -> bool:
    """Whether the recording process died or was closed before the run ended. A stream that just stopped has an end."""
    return run.status == INTERRUPTED and run.response_model is None


def nearest(requested: Form, recorded: Iterable[tuple[RecordedRun, Form]]) -> tuple[RecordedRun, Form] | None:
    """The recorded request that is most similar; None if there are none."""
    text, last = _compared(requested), _last(requested)

    def likeness(candidate: tuple[RecordedRun, Form]) -> float:
        overall = SequenceMatcher(None, text, _compared(candidate[1]), autojunk=False).quick_ratio()
        return overall + SequenceMatcher(None, last, _last(candidate[1]), autojunk=False).quick_ratio()

    return max(recorded, key=likeness, default=None)


def not_recorded(
    requested: Form,
    *,
    found: Sequence[RecordedRun] = (),
    near: tuple[RecordedRun, Form] | None = None,
    how: str = "",
) -> NotRecorded:
    """The error for a request. `found` are runs of the same request that were used already, or have no end."""
    if found:
        text = _why_not(found)
    elif near is None:
        text = "No recorded run answers this request: none is recorded yet."
    else:
        text = _beside(requested, *near)
    return NotRecorded(f"{text}\n{how}" if how else text)


def _why_not(found: Sequence[RecordedRun]) -> str:
    open_ones = [run for run in found if run.is_open]
    cut_off = [run for run in found if has_no_end(run)]
    played = len(found) - len(open_ones) - len(cut_off)
    reasons = []
    if played:
        reasons.append(
            f"This request was recorded {_times(played)} and is made once more; pass allow_playback_repeats=True "
            "to get the last answer again."
        )
    for runs, why in ((open_ones, "still streams"), (cut_off, "was cut off when its process ended")):
        if runs:
            reasons.append(f"Run {runs[-1].id} of this request {why}, so it cannot answer.")
    return " ".join(reasons)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _beside(requested: Form, run: RecordedRun, recorded: Form) -> str:
    text = f"No recorded run answers this request; the nearest is run {run.id} of {iso(run.started_at)}"
    names = "recorded", "asked"
    lines = list(unified_diff(_pretty(recorded), _pretty(requested), *names, n=2, lineterm=""))
    if not lines and run.redaction is not None and run.input_hash is None:
        return (
            f"{text}. It was redacted after it was recorded and has no hash; match_on=('messages',) finds it."
        )
    if not lines:
        return f"{text}. The two differ only in form, for example in spaces; match_on= or ignore= compare by content."
    shown = [line if len(line) <= _WIDTH else f"{line[:_WIDTH]}..." for line in lines[:_LINES]]
    if len(lines) > _LINES:
        shown.append(f"... and {len(lines) - _LINES} lines more")
    return f"{text}:\n" + "\n".join(shown)


def _compared(form: Form) -> str:
    return dumps(form, sort_keys=True)[:_COMPARED]


def _last(form: Form) -> str:
    return dumps((form.get("messages") or [""])[-1])[-_COMPARED:]


def _pretty(form: Form) -> list[str]:
    # Our own JSON comes first, because it accepts any value that an application passes.
    plain = loads(dumps(_by_lines(form)))
    return json.dumps(plain, indent=2, sort_keys=True, ensure_ascii=False).splitlines()


def _by_lines(value: Any) -> Any:
    """Texts of several lines become lists of lines; else a changed word would show the whole text as changed."""
    if isinstance(value, dict):
        return {key: _by_lines(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_by_lines(each) for each in value]
    return value.splitlines() if isinstance(value, str) and "\n" in value else value
