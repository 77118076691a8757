"""A group of commands whose errors are one line on stderr."""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from recorder.core.printable import printable
from recorder.errors import RecorderError

#: The environment variable that makes an unexpected error print its traceback.
TRACEBACK = "RECORDER_TRACEBACK"
_LONGEST_ERROR = 500


class CommandGroup(TyperGroup):
    """The commands. Errors are printed as messages without terminal controls, not as tracebacks."""

    def make_context(self, *given: Any, **options: Any) -> Any:
        with _usage_errors_are_printable():
            return super().make_context(*given, **options)

    def invoke(self, ctx: Any) -> Any:
        try:
            with _usage_errors_are_printable():
                return super().invoke(ctx)
        except RecorderError as error:
            _print_error(str(error))
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            if _is_usage_error(error) or getattr(error, "errno", None) == errno.EPIPE:
                raise
            _print_error(_unexpected(error))
        raise typer.Exit(1)


@contextmanager
def _usage_errors_are_printable() -> Iterator[None]:
    """Escape controls in usage errors: they repeat an argument, which may be an id copied from a recording."""
    try:
        yield
    except Exception as error:
        if _is_usage_error(error):
            error.message = printable(error.message)  # type: ignore[attr-defined]
        raise


def _is_usage_error(error: Exception) -> bool:
    """Whether typer prints this error itself; its class differs between versions of typer."""
    return hasattr(error, "format_message")


def _unexpected(error: Exception) -> str:
    """An error without a message of our own, on one line; its traceback if the environment asks for it."""
    if os.environ.get(TRACEBACK):
        return "".join(traceback.format_exception(error)).rstrip()
    text = " ".join(str(error).split())[:_LONGEST_ERROR]
    return f"{type(error).__name__}: {text}; this is unexpected, please report it; {TRACEBACK}=1 shows the traceback"


def _print_error(message: str) -> None:
    typer.echo(f"recorder: {printable(message)}", err=True)
