"""A log filter that escapes control characters, because recorded text in a log line may contain any."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from recorder.core.printable import printable, printable_line


class PrintableFilter(logging.Filter):
    """Escapes control characters in the arguments and the traceback of a record, and line ends in its arguments."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Escape what needs it in the record. Always true: every record passes."""
        if isinstance(record.args, tuple):
            record.args = tuple(map(_printable, record.args))
        elif isinstance(record.args, Mapping):
            record.args = {name: _printable(value) for name, value in record.args.items()}
        if record.exc_info and not record.exc_text:
            text = _FORMATTER.formatException(record.exc_info)
            # A traceback without control characters is left to the handler's formatter.
            record.exc_text = shown if (shown := printable(text)) != text else None
        return True


def _printable(value: Any) -> Any:
    """The value, or its escaped text if the text has control characters. Numbers stay numbers."""
    if not isinstance(value, (str, BaseException)):
        return value
    try:
        text = str(value)
    except Exception:  # the __str__ of another library's exception; recording never raises
        return f"{type(value).__name__} without a text"
    return value if (shown := printable_line(text)) == text else shown


_FORMATTER = logging.Formatter()


def install() -> None:
    """Add the filter to the logger `recorder`, which every module uses. A second call changes nothing."""
    log = logging.getLogger("recorder")
    if not any(isinstance(each, PrintableFilter) for each in log.filters):
        log.addFilter(PrintableFilter())
