"""Makes the exception of a recorded run again: the same class, message and status."""

from __future__ import annotations

import asyncio
import builtins
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any

from recorder.errors import RecorderError
from recorder.replay.http.failure import STATUS, literal, status_of
from recorder.storage.reader import RecordedRun
from recorder.storage.rows import CANCELLED, COMPLETE, ERROR, INCOMPLETE, INTERRUPTED, STREAMING

#: Packages whose errors models raise. Only these packages are imported, and none of their submodules: a recording may
#: come from somebody else, and must not choose what is imported. Other classes are found if their module is loaded.
_IMPORTED = frozenset(
    ("aiohttp", "anthropic", "asyncio", "httpcore", "httpx", "httpx2", "json", "openai", "recorder")
)
_SDKS = frozenset(("anthropic", "openai"))
#: A generator cannot raise these: Python turns them into RuntimeError.
_NOT_FROM_GENERATORS = (StopIteration, StopAsyncIteration)
_ENDED_WELL = (COMPLETE, INCOMPLETE, STREAMING)


class ReplayedError(RecorderError):
    """Stands for a recorded error that cannot be made again: its class is not loaded, or needs arguments that are not
    recorded.

    `error_type` is the name of the recorded class, `message` its message, and `status` the HTTP status of the
    provider's response, or None.
    """

    def __init__(self, error_type: str, message: str, status: int | None = None) -> None:
        super().__init__(f"{error_type}: {message}" if message else error_type)
        self.error_type = error_type
        self.message = message
        self.status = status


class Interrupted(RecorderError):
    """The recording stops before the end of the run: the recording process died, or the stream had no end."""


def error_of(run: RecordedRun) -> BaseException | None:
    """The error for the handlers' `on_llm_error`; None if the run ended without one."""
    if run.status in _ENDED_WELL:
        return None
    if run.status == INTERRUPTED:
        return Interrupted(f"Run {run.id} was interrupted after {run.token_count} tokens")
    if run.status == CANCELLED:
        return asyncio.CancelledError()
    return _recreated(run)


def raised(run: RecordedRun) -> BaseException | None:
    """The error that a replayed stream raises at its end; None unless the status is error: a cancelled or interrupted
    stream just ends."""
    return error_of(run) if run.status == ERROR else None


def _recreated(run: RecordedRun) -> Exception:
    name, message = run.error_type or "Exception", run.error_message or ""
    kind = _class_of(name)
    if kind is not None:
        for make in _constructors(kind, message, status_of(run)):
            with suppress(Exception):  # other arguments are needed, or the constructor itself fails
                error = make()
                if type(error) is kind and str(error) == message:
                    return error
    return ReplayedError(name, message, status_of(run))


def _class_of(name: str) -> type[Exception] | None:
    """The class of that name, if it is safe to raise: not one that ends a process, a task or a generator."""
    module, _, short = name.rpartition(".")
    if (package := module.partition(".")[0]) in _IMPORTED:
        with suppress(ImportError):
            import_module(package)
    # Not `getattr`: a module's `__getattr__` may import other modules.
    names: Mapping[str, Any] = getattr(sys.modules.get(module) if module else builtins, "__dict__", {})
    found = names.get(short)
    if (
        not isinstance(found, type)
        or not issubclass(found, Exception)
        or issubclass(found, _NOT_FROM_GENERATORS)
    ):
        return None
    return found


def _constructors(kind: Any, message: str, status: int | None) -> Iterator[Callable[[], Any]]:
    """Functions that make the exception, the best one first."""
    package = kind.__module__.partition(".")[0]
    if package in _SDKS:
        yield partial(_of_sdk, sys.modules[package], kind, message, status)
        return  # made in any other way it would lack its status and response
    candidates = [
        (message,) if message else (),
        (literal(message),),
    ]  # the message of a KeyError is the repr of its key
    for arguments in candidates:
        if package in _IMPORTED or package == "builtins":
            yield partial(kind, *arguments)
        yield partial(_without_constructor, kind, arguments)


def _without_constructor(kind: Any, arguments: tuple[Any, ...]) -> Any:
    """Make the exception without its constructor, which may need arguments that are not recorded."""
    error = kind.__new__(kind)
    error.args = arguments
    return error


def _of_sdk(sdk: Any, kind: Any, message: str, status: int | None) -> Any:
    """Make an error of an SDK as its client does: with a request, and for an HTTP status with the response and body."""
    import httpx2

    request = httpx2.Request("POST", "https://replayed.invalid/")
    if issubclass(kind, sdk.APIStatusError):
        if status is None and sdk.__name__ == "anthropic" and kind is sdk.APIStatusError:
            status = 200  # the SDK raises this class for an error event in a stream, after a response of 200
        if status is None:
            return None  # the class needs a response, and its status is not known
        body = _body_of(message)
        response = httpx2.Response(status, request=request, json=body)
        inner = body.get("error", body) if isinstance(body, dict) and sdk.__name__ == "openai" else body
        return kind(message, response=response, body=inner)
    if issubclass(kind, sdk.APITimeoutError):
        return kind(request)
    if issubclass(kind, sdk.APIConnectionError):
        return kind(message=message, request=request)
    return kind(message, request, body=None) if issubclass(kind, sdk.APIError) else kind(message)


def _body_of(message: str) -> Any:
    """The body of the error response, as far as the SDK's message holds it."""
    written = found[2] if (found := STATUS.match(message)) else message
    body = literal(written)
    return {"message": written} if body is None and written not in (None, "None") else body
