"""What recorder logs: lines that a terminal shows and does not obey, whatever recorded text they carry."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from recorder.core.printable import printable, printable_line


class PrintableFilter(logging.Filter):
    """Writes out the controls and line ends in the arguments of a line, and the controls in its traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Changes the record where it must; every record passes."""
        if isinstance(record.args, tuple):
            record.args = tuple(map(_printable, record.args))
        elif isinstance(record.args, Mapping):
            record.args = {name: _printable(value) for name, value in record.args.items()}
        if record.exc_info and not record.exc_text:
            text = _FORMATTER.formatException(record.exc_info)
            # Where nothing has to be written out, the traceback is left to whatever formats the line.
            record.exc_text = shown if (shown := printable(text)) != text else None
        return True


def _printable(value: Any) -> Any:
    """The value, or its text where that has to be changed; numbers are as they are."""
    if not isinstance(value, (str, BaseException)):
        return value
    try:
        text = str(value)
    except Exception:  # a stranger's exception: who logs it is the recorder, which raises nothing
        return f"{type(value).__name__} without a text"
    return value if (shown := printable_line(text)) == text else shown


_FORMATTER = logging.Formatter()


def install() -> None:
    """Put the filter on the logger that every module here logs to, once."""
    log = logging.getLogger("recorder")
    if not any(isinstance(each, PrintableFilter) for each in log.filters):
        log.addFilter(PrintableFilter())
