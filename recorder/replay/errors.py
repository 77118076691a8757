"""How a recorded run ended, as an exception again: the same class, message and status."""

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

#: Packages whose errors models raise. No other one is imported because a recording, perhaps somebody else's, says so,
#: and of these no module by its name: a class of another one is found where the application has it loaded.
_IMPORTED = frozenset(
    ("aiohttp", "anthropic", "asyncio", "httpcore", "httpx", "httpx2", "json", "openai", "recorder")
)
_SDKS = frozenset(("anthropic", "openai"))
#: What a generator cannot raise; Python makes something else of it.
_OF_GENERATORS = (StopIteration, StopAsyncIteration)
_ENDED_WELL = (COMPLETE, INCOMPLETE, STREAMING)


class ReplayedError(RecorderError):
    """An error of a recorded run that cannot be made again: its class is not here, or wants more than is recorded.

    `error_type` is the class as it was recorded, `message` its message, and `status` the HTTP status that refused the
    request, or None.
    """

    def __init__(self, error_type: str, message: str, status: int | None = None) -> None:
        super().__init__(f"{error_type}: {message}" if message else error_type)
        self.error_type = error_type
        self.message = message
        self.status = status


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
    return _revived(run)


def raised(run: RecordedRun) -> BaseException | None:
    """What a stream of the run raises at its end: its error. One that was left or cut off just ends."""
    return error_of(run) if run.status == ERROR else None


def _revived(run: RecordedRun) -> Exception:
    name, message = run.error_type or "Exception", run.error_message or ""
    kind = _class_of(name)
    if kind is not None:
        for make in _ways(kind, message, status_of(run)):
            with suppress(Exception):  # a constructor of another shape, or one that makes no exception at all
                error = make()
                if type(error) is kind and str(error) == message:
                    return error
    return ReplayedError(name, message, status_of(run))


def _class_of(name: str) -> type[Exception] | None:
    """The class of that name, if it can be raised here: none that ends a process, a task or a generator."""
    module, _, short = name.rpartition(".")
    if (package := module.partition(".")[0]) in _IMPORTED:
        with suppress(ImportError):
            import_module(package)
    # Not `getattr`: a module may import others when it is asked for a name.
    names: Mapping[str, Any] = getattr(sys.modules.get(module) if module else builtins, "__dict__", {})
    found = names.get(short)
    if not isinstance(found, type) or not issubclass(found, Exception) or issubclass(found, _OF_GENERATORS):
        return None
    return found


def _ways(kind: Any, message: str, status: int | None) -> Iterator[Callable[[], Any]]:
    """Ways to make the exception, the best first."""
    package = kind.__module__.partition(".")[0]
    if package in _SDKS:
        yield partial(_of_sdk, sys.modules[package], kind, message, status)
        return  # a part of one would have no status and no response
    arguments = [(message,) if message else (), (literal(message),)]  # a KeyError's message is a literal
    for given in arguments:
        if package in _IMPORTED or package == "builtins":
            yield partial(kind, *given)
        yield partial(_without_constructor, kind, given)


def _without_constructor(kind: Any, given: tuple[Any, ...]) -> Any:
    """That of another library may want anything."""
    error = kind.__new__(kind)
    error.args = given
    return error


def _of_sdk(sdk: Any, kind: Any, message: str, status: int | None) -> Any:
    """An error of an SDK as its client makes it: with a request, and for a status with the response and its body."""
    import httpx2

    request = httpx2.Request("POST", "https://replayed.invalid/")
    if issubclass(kind, sdk.APIStatusError):
        if status is None and sdk.__name__ == "anthropic" and kind is sdk.APIStatusError:
            status = 200  # the SDK raises this class for an error inside a stream, whose response was good
        if status is None:
            return None  # there was a response, and nothing is known of it
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
    """The body that refused a request, as far as the SDK's message has it."""
    written = found[2] if (found := STATUS.match(message)) else message
    body = literal(written)
    return {"message": written} if body is None and written not in (None, "None") else body
