"""`recorder export --otlp`: recordings as spans and events, to a collector of OpenTelemetry."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from recorder.cli import console
from recorder.cli.progress_bar import progress
from recorder.cli.transfer import INTERRUPTED, print_left_out
from recorder.core.printable import printable_line
from recorder.errors import ConfigError

#: How much of the reason of a failure is shown (characters).
_LONGEST_REASON = 300


def send(url: str, given: Sequence[str], output: str | None, version: str | None, *, content: bool) -> int:
    """Send spans and events; the exit code, which is 1 if the collector has not accepted all of them.

    `given` are ids, and before them the collector's URL, if there is one.
    """
    if output is not None:
        raise ConfigError("--output writes a file and --otlp sends to a collector; leave one of them out")
    from recorder.export.otel import conventions
    from recorder.export.otel.resend import resend

    has_endpoint = bool(given) and given[0].startswith(("http://", "https://"))
    endpoint, ids = (given[0], given[1:]) if has_endpoint else (None, given)
    names = version or conventions.DEFAULT
    try:
        with progress("Sending", "runs") as on_progress, _last_reason() as reason:
            done = resend(
                url, ids or None, endpoint=endpoint, conventions=names, content=content, progress=on_progress
            )
    except KeyboardInterrupt:
        console.echo("Stopped; what was sent stays sent. Sending it again changes nothing.", stderr=True)
        return INTERRUPTED
    sent = f"{console.plural(done.spans, 'span')} and {console.plural(done.evaluations, 'evaluation')}"
    console.echo(f"Sent {sent}, with the names of version {names}.", stderr=True)
    print_left_out(done.left_out)
    if done.failed:
        rest = " The rest was not sent." if done.stopped else ""
        console.echo(
            f"The collector has not accepted {done.failed:,} of them.{rest} {reason.text}".rstrip(),
            "Check that it runs, and its URL: recorder export --otlp URL. Then send again: the ids stay the same.",
            stderr=True,
        )
    return 1 if done.failed else 0


class _LastReason(logging.Handler):
    """Has the last reason that OpenTelemetry's exporter gave, in place of a line for each of its attempts."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Store the reason; the exporter's last line, that it gave up, has none."""
        message = record.getMessage()
        if "max retries or shutdown" not in message:
            reason = message.removeprefix("Transient error ").partition(" encountered while")[0]
            self.text = f"The reason: {printable_line(reason[:_LONGEST_REASON])}."


@contextmanager
def _last_reason() -> Iterator[_LastReason]:
    """The reason of the last failure inside of the block."""
    reason = _LastReason()
    loggers = [logging.getLogger(name) for name in ("opentelemetry", "recorder")]
    for logger in loggers:
        logger.addHandler(reason)
    try:
        yield reason
    finally:
        for logger in loggers:
            logger.removeHandler(reason)


def refuse_without_otlp(version: str | None, *, content: bool) -> None:
    """Raise `ConfigError` for options that belong to `--otlp`."""
    if version is not None or content:
        raise ConfigError("--conventions and --content belong to --otlp; add it")
