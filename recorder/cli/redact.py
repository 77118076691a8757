"""`recorder redact`: redacts a database that is recorded already, with a progress bar."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

from sqlalchemy.exc import DBAPIError

from recorder.cli import console
from recorder.cli.progress_bar import progress
from recorder.cli.transfer import INTERRUPTED
from recorder.config import Redactor
from recorder.errors import ConfigError
from recorder.redaction.ready_made import READY_MADE
from recorder.storage.dialects import masked
from recorder.storage.row_checks import readable
from recorder.upkeep.redact import Redacted, redact


def run(url: str, patterns: Sequence[str], *, dry_run: bool) -> int:
    """Redact a database; the exit code. 1: something is left to do, and a later call does it."""
    redactors = [_redactor(pattern) for pattern in patterns]
    try:
        with readable((DBAPIError,)), progress("Redacting", "rows") as on_progress:
            done = redact(url, redactors, dry_run=dry_run, progress=on_progress)
    except KeyboardInterrupt:
        console.echo("Stopped. What was redacted is stored; call it again for the rest.", stderr=True)
        return INTERRUPTED
    for line in _report(url, done, dry_run=dry_run):
        console.echo(line)
    return 1 if done.left_out or not done.is_overwritten else 0


def _redactor(pattern: str) -> Redactor:
    """A name, or a regular expression."""
    if pattern in READY_MADE:
        return pattern
    for name in get_close_matches(pattern, READY_MADE, n=1, cutoff=0.75):
        console.echo(
            f"--pattern {pattern!r:.60} is used as a regular expression; the name is '{name}'.", stderr=True
        )
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"--pattern {pattern!r:.60} is no regular expression: {error}") from error


def _report(url: str, done: Redacted, *, dry_run: bool) -> list[str]:
    found = ", ".join(f"{name} {number:,}" for name, number in done.counts.items()) or "nothing"
    changed = [
        console.plural(number, noun)
        for number, noun in (
            (done.runs, "run"), (done.messages, "message"), (done.annotations, "annotation"),
        )
        if number
    ]  # fmt: skip
    lines = [f"{masked(url)}: {'would replace' if dry_run else 'replaced'}: {found}."]
    if changed:
        lines.append(f"{'Would change' if dry_run else 'Changed'}: {', '.join(changed)}.")
    if done.frames:
        frames = console.plural(done.frames, "frame")
        lines.append(
            f"{'Would remove' if dry_run else 'Removed'}: {frames}, which hold the bytes of providers."
        )
    if done.left_out:
        lines.append(f"Left out: {done.left_out:,} that still stream; call it again when they have ended.")
    if not done.is_overwritten:
        lines.append(
            "Another process uses the file's log, which still holds the old texts; call it again later."
        )
    return lines
