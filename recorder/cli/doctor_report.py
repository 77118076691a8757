"""What `recorder doctor` prints: one screen for people, or JSON."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from recorder.cli.console import console, facts, plural, print_json, size, styled
from recorder.cli.doctor import Diagnosis, age
from recorder.core.version import VERSION
from recorder.storage.activity import MOST_ROWS, Activity
from recorder.storage.schema import HEAD

_KINDS = {
    "damaged": "a damaged database",
    "export": "a part of an export that was killed; delete it",
    "log": "a part of the database that its file gets with the next recording; copy both",
}
#: With nothing wrong in a database that nobody records into.
_IF_SILENT = "Nothing is wrong here. If an application should record, compare its URL with this one."


def print_diagnosis(found: Diagnosis, *, json: bool) -> None:
    """Print the diagnosis: first whether it records, then the facts, then what is wrong and what to do."""
    if json:
        print_json(as_json(found))
        return
    screen = console()
    state, sentence = summary(found)
    screen.print(styled(sentence, "bold"))
    screen.print()
    screen.print(facts(pairs(found)))
    screen.print()
    for problem, next_step in found.findings:
        screen.print(facts([("wrong", problem), ("next", next_step)]))
    if found.is_well:
        screen.print("Nothing is wrong." if state != "silent" else styled(_IF_SILENT))


def summary(found: Diagnosis) -> tuple[str, str]:
    """The state in one word, and a sentence that says whether it records."""
    activity = found.activity
    if found.is_empty:
        return "silent", "not recording: nothing was recorded here yet"
    if activity is None:
        return "unknown", "it is not known whether anything is recorded here"
    last = f"last commit {_ago(activity.last_commit_at)}"
    if activity.stalled:
        waiting = _runs(activity.stalled_runs, "waits", "wait")
        return "stalled", f"NOT recording: {waiting} for the database; {last}"
    if activity.streaming_runs:
        streaming = (
            "1 run streams" if activity.streaming_runs == 1 else f"{activity.streaming_runs:,} runs stream"
        )
        return "recording", f"recording: {last}, {streaming}"
    if activity.processes:
        return "ready", f"ready: {last}, no run streams"
    if (newest := _newest(activity)) is None:
        return "silent", "not recording: nothing was ever stored"
    return "silent", f"not recording: nothing was stored for {age(newest)}"


def _runs(count: int, one: str, many: str) -> str:
    return f"1 run {one}" if count == 1 else f"{count:,} runs {many}"


def _newest(activity: Activity) -> datetime | None:
    """When something was stored last."""
    times = (activity.last_commit_at, activity.newest_run_at, activity.newest_message_at)
    return max(filter(None, times), default=None)


def _ago(moment: datetime | None) -> str:
    return "never" if moment is None else f"{age(moment)} ago"


def as_json(found: Diagnosis) -> Mapping[str, Any]:
    """The diagnosis with its stable keys. What could not be found out is null."""
    state, sentence = summary(found)
    activity = found.activity
    return {
        "ok": found.is_well,
        "state": state,
        "summary": sentence,
        "url": found.url,
        "problems": [each._asdict() for each in found.findings],
        "schema": found.schema,
        "newest_schema": HEAD,
        "can_read": found.can_read,
        "can_write": found.can_write,
        **_figures(activity),
        "leftovers": [{**each._asdict(), "path": str(each.path)} for each in found.leftovers],
        "bytes": found.bytes,
        "free_bytes": found.free_bytes,
        "versions": {
            "recorder": VERSION,
            "python": platform.python_version(),
            found.program.lower(): found.program_version,
        },
    }


def _figures(activity: Activity | None) -> dict[str, Any]:
    names = ("last_commit_at", "newest_run_at", "newest_message_at", "processes", "streaming_runs")
    more = ("stalled_runs", "dead_runs")
    figures = {name: getattr(activity, name, None) for name in (*names, *more)}
    missing = activity and activity.missing
    return {
        **figures,
        "gaps": missing and missing.gaps,
        "missing_tokens": missing and missing.tokens,
        "quarantined_tokens": missing and missing.quarantined,
    }


def pairs(found: Diagnosis) -> Iterator[tuple[str, str | None]]:
    """The lines of the screen: names and values."""
    yield "database", found.url
    yield "file", str(found.file.absolute()) if found.file is not None else None
    yield "size", size(found.bytes) if found.bytes is not None else None
    yield "free space", size(found.free_bytes) if found.free_bytes is not None else None
    newest = ", the newest" if found.schema == HEAD else f"; this version needs {HEAD}"
    yield "schema", f"{found.schema}{newest}" if found.schema else None
    yield "rights", _rights_in_words(found) if found.can_read is not None else None
    yield from _activity_pairs(found.activity)
    if found.file is not None:
        for each in found.leftovers:
            yield "left over", f"{each.path.name}: {_KINDS[each.kind]}"
        if not found.leftovers:
            yield "left over", "nothing"
    program = f"{found.program} {found.program_version or '(version not known)'}"
    yield "versions", f"recorder {VERSION}, Python {platform.python_version()}, {program}"


def _rights_in_words(found: Diagnosis) -> str:
    read = "can read" if found.can_read else "cannot read"
    write = "can write" if found.can_write else "cannot write"
    return f"this user {read}, {write}"


def _activity_pairs(activity: Activity | None) -> Iterator[tuple[str, str | None]]:
    if activity is None:
        return
    dead = f", {activity.dead_runs:,} of dead processes" if activity.dead_runs else ""
    stalled = f", {activity.stalled_runs:,} wait for the database" if activity.stalled_runs else ""
    yield "open runs", f"{activity.streaming_runs:,} stream{stalled}{dead}"
    yield "processes", f"{activity.processes:,} committed in the last minute and still run"
    yield "last commit", _ago(activity.last_commit_at)
    yield "newest run", _ago(activity.newest_run_at)
    missing = activity.missing
    refused = f", {missing.quarantined:,} of them quarantined" if missing.quarantined else ""
    if not missing.gaps:
        yield "missing", "no token"
        return
    least = "at least " if missing.gaps == MOST_ROWS else ""
    yield "missing", f"{least}{plural(missing.tokens, 'token')} in {plural(missing.gaps, 'gap')}{refused}"
