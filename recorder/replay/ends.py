"""How a recorded run ended, as an exception again: the same class, message and status."""

from __future__ import annotations

import asyncio
import builtins
import sys
from contextlib import suppress
from importlib import import_module
from typing import Any, cast

from recorder.errors import RecorderError
from recorder.library import RecordedRun
from recorder.records import CANCELLED, COMPLETE, ERROR, INCOMPLETE, INTERRUPTED, STREAMING
from recorder.replay.failures import STATUS, literal

#: Packages whose errors models raise. No other module is imported because a recording, perhaps somebody else's, says
#: so: a class of another one is found where the application has it loaded.
_IMPORTED = frozenset(
    ("aiohttp", "anthropic", "asyncio", "httpcore", "httpx", "httpx2", "json", "openai", "recorder")
)
_ENDED_WELL = (COMPLETE, INCOMPLETE, STREAMING)


class Replayed(RecorderError):
    """An error of a recorded run whose class is not to be had here; the message names it."""


class Interrupted(RecorderError):
    """The recording ends here: the process that made it died, or its stream had no end."""


def error_of(run: RecordedRun) -> BaseException | None:
    """What the run ended with, for handlers; None where it ended well."""
    if run.status in _ENDED_WELL:
        return None
    if run.status == INTERRUPTED:
        return Interrupted(f"Run {run.id} was interrupted after {run.token_count} tokens")
    if run.status == CANCELLED:
        return asyncio.CancelledError()
    return _revived(run.error_type or "Exception", run.error_message or "")


def raised(run: RecordedRun) -> BaseException | None:
    """What a stream of the run raises at its end: its error. One that was left or cut off just ends."""
    return error_of(run) if run.status == ERROR else None


def _revived(name: str, message: str) -> BaseException:
    found = _class_of(name)
    if found is None:
        return Replayed(f"{name}: {message}")
    try:
        sdk = import_module(name.partition(".")[0]) if name.startswith(("openai.", "anthropic.")) else None
        error = None if sdk is None else _of_sdk(sdk, found, message)
    except (TypeError, ValueError, AttributeError):  # a constructor of another shape
        error = None
    if error is None:  # without the constructor: that of another library may want anything
        error = found.__new__(found)
        error.args = (message,) if message else ()
    return error


def _class_of(name: str) -> type[BaseException] | None:
    module, _, short = name.rpartition(".")
    if module.partition(".")[0] in _IMPORTED:
        with suppress(ImportError, ValueError):
            import_module(module)
    found = getattr(sys.modules.get(module) if module else builtins, short, None)
    return found if isinstance(found, type) and issubclass(found, BaseException) else None


def _of_sdk(sdk: Any, found: Any, message: str) -> BaseException | None:
    """An error of an SDK as its client makes it: with a request, and for a status with the response and its body."""
    import httpx2

    request = httpx2.Request("POST", "https://replayed.invalid/")
    if issubclass(found, sdk.APIStatusError) and (status := STATUS.match(message)):
        whole = literal(status[2])
        if whole is None and status[2] not in (None, "None"):
            whole = {"message": status[2]}  # words
        response = httpx2.Response(int(status[1]), request=request, json=whole)
        inner = whole.get("error", whole) if isinstance(whole, dict) and sdk.__name__ == "openai" else whole
        return cast(BaseException, found(message, response=response, body=inner))
    if issubclass(found, sdk.APITimeoutError):
        return cast(BaseException, found(request))
    if issubclass(found, sdk.APIConnectionError):
        return cast(BaseException, found(message=message, request=request))
    return (
        cast(BaseException, found(message, request, body=None)) if issubclass(found, sdk.APIError) else None
    )
