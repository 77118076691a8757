"""The log of `recorder serve` on stderr: lines for people or JSON, written by a thread of its own.

A terminal that is stopped, or a pipe that nobody reads, must not stop the event loop. So lines that find no room are
dropped and counted.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from logging.handlers import QueueHandler
from queue import Full, Queue
from typing import Literal

from pythonjsonlogger.json import JsonFormatter

from recorder.server.request_log import log as requests

Format = Literal["text", "json"]

#: Lines that wait to be written.
_MOST_WAITING = 10_000
#: How long the last lines may take (seconds).
_ENDS_WITHIN = 1.0


class _Lines(QueueHandler):
    """Puts lines into a queue, if it has room."""

    def __init__(self, lines: Queue[logging.LogRecord | None]) -> None:
        super().__init__(lines)
        self._dropped = 0

    def enqueue(self, record: logging.LogRecord) -> None:
        """Drop the line if the queue is full; the next one says how many were dropped."""
        if self._dropped:
            record.msg = f"{record.msg} ({self._dropped} lines before this one were dropped)"
        try:
            self.queue.put_nowait(record)
            self._dropped = 0
        except Full:
            self._dropped += 1


@contextmanager
def logging_to(write: Callable[[bytes], object], format: Format) -> Iterator[None]:
    """In the block, write a line for each request, and all warnings, in this format.

    `write` gets each line. It holds no lock of Python's: the exit of the process would wait for one.
    """
    lines: Queue[logging.LogRecord | None] = Queue(_MOST_WAITING)
    arguments = lines, write, _formatter(format)
    writer = threading.Thread(target=_write, args=arguments, name="recorder-log", daemon=True)
    writer.start()
    handler, level, root = _Lines(lines), requests.level, logging.getLogger()
    root.addHandler(handler)
    requests.setLevel(logging.INFO)
    try:
        yield
    finally:
        requests.setLevel(level)
        root.removeHandler(handler)
        try:
            lines.put(None, timeout=_ENDS_WITHIN)
            writer.join(_ENDS_WITHIN)
        except Full:
            pass  # nobody reads the stream


def _formatter(format: Format) -> logging.Formatter:
    if format == "text":
        return logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    names = {"levelname": "level", "name": "logger"}
    return JsonFormatter("%(levelname)s %(name)s %(message)s", rename_fields=names, timestamp=True)


def _write(
    lines: Queue[logging.LogRecord | None], write: Callable[[bytes], object], formatter: logging.Formatter
) -> None:
    while (record := lines.get()) is not None:
        with suppress(OSError):  # the stream is closed
            write(f"{formatter.format(record)}\n".encode(errors="backslashreplace"))
