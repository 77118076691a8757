"""Replaces the method `send` of an HTTP client, so that every model call through the client is recorded.

`send` is the public method that everything goes through: each way of calling the SDKs, and each of their attempts. It
also sees what fails before the response, which event hooks do not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from functools import partial, wraps
from typing import Any, NamedTuple

from recorder.instrumentation.attempt_factory import AnyAttempt, Repeats, attempt_of
from recorder.instrumentation.hosts import ALL_HOSTS, Hosts
from recorder.instrumentation.model_calls import Endpoint, ModelCall, endpoint_of, is_large, model_call_of
from recorder.instrumentation.tee import tee
from recorder.runs.naming_headers import NAMING_HEADERS, split_headers
from recorder.runs.open_streams import ended_at_exit
from recorder.runs.own_calls import is_own_call

log = logging.getLogger("recorder")

#: The key of a request's extensions with the handlers that the request is recorded for.
MARK = "recorder"
#: The header in which the SDKs count the attempts of a call, from 0.
_RETRIES = "x-stainless-retry-count"


class _LastAttempt(NamedTuple):
    """The last attempt in this context, which the next one may repeat."""

    repeats: Repeats
    input_hash: str
    retries: int


_last_attempt: ContextVar[_LastAttempt | None] = ContextVar("last_attempt", default=None)


class Sender:
    """What is recorded: for which handlers, and of which hosts."""

    def __init__(self, hosts: Hosts = ALL_HOSTS, default: Callable[[], Any] | None = None) -> None:
        #: The handlers, without the default one.
        self.handlers: list[Any] = []
        self.hosts = hosts
        #: Makes the handler at the first model call, where none is given.
        self.default = default

    def add(self, handlers: Sequence[Any]) -> None:
        """Add handlers; those that are there already are not added again."""
        self.handlers = [
            *self.handlers,
            *(each for each in handlers if not any(each is other for other in self.handlers)),
        ]

    def remove(self, handlers: Sequence[Any]) -> None:
        """Remove handlers. Calls that have begun are recorded to their end."""
        self.handlers = [each for each in self.handlers if not any(each is other for other in handlers)]

    def attempt(self, client: Any, request: Any) -> AnyAttempt | None:
        """The attempt that records this request; None if it is no model call, or is recorded already."""
        endpoint = endpoint_of(request)
        if endpoint is None:
            return None
        names = _without_names(request)
        if is_own_call() or not self.hosts.include(request.url.host):
            return None
        try:
            return self._attempt(client, request, endpoint, names)
        except Exception as error:
            log.warning("A model call is not recorded: %r", error, exc_info=error)
            return None

    def _attempt(
        self, client: Any, request: Any, endpoint: Endpoint, names: dict[str, str]
    ) -> AnyAttempt | None:
        call = model_call_of(request, endpoint)
        if call is None or not (handlers := self._unmarked(request.extensions)):
            return None
        repeats = _repeated_by(call, _retries_of(request))
        return attempt_of(call, request, handlers, names, client=type(client).__name__, repeats=repeats)

    def _unmarked(self, extensions: dict[str, Any]) -> list[Any]:
        """The handlers that no other sender calls for this request. They are marked as called."""
        marked = extensions.setdefault(MARK, [])
        default = [self.default()] if self.default is not None else []
        found = [each for each in (*self.handlers, *default) if not any(each is other for other in marked)]
        marked += found
        return found


def _retries_of(request: Any) -> int:
    text = request.headers.get(_RETRIES, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 4 else 0


def _repeated_by(call: ModelCall, retries: int) -> Repeats | None:
    """The attempts that a request repeats, as the SDK's header says; None for a first attempt."""
    last = _last_attempt.get()
    if retries and last is not None and (last.input_hash, last.retries) == (call.input_hash, retries - 1):
        return last.repeats
    return None


def _remember(attempt: AnyAttempt, request: Any) -> None:
    made = attempt.run.request
    repeats = Repeats(made.first_run_id or made.run_id, made.attempt)
    _last_attempt.set(_LastAttempt(repeats, made.input_hash, _retries_of(request)))


def recorded_send(sender: Sender, send: Callable[..., Any]) -> Callable[..., Any]:
    """The method `send` of a synchronous client, recorded. Its first argument is the client."""

    @wraps(send)
    def recorded(client: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        attempt = sender.attempt(client, request)
        if attempt is None:
            return send(client, request, *args, **kwargs)
        _remember(attempt, request)
        return _drive(attempt, partial(send, client, request, *args, **kwargs))

    return recorded


def recorded_async_send(sender: Sender, send: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """The method `send` of an asynchronous client, recorded."""

    @wraps(send)
    async def recorded(client: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        if endpoint_of(request) is not None and is_large(request):
            attempt = await asyncio.to_thread(sender.attempt, client, request)
        else:
            attempt = sender.attempt(client, request)
        if attempt is None:
            return await send(client, request, *args, **kwargs)
        _remember(attempt, request)
        return await _drive_async(attempt, partial(send, client, request, *args, **kwargs))

    return recorded


def _drive(attempt: AnyAttempt, send: Callable[[], Any]) -> Any:
    attempt.start()
    ended_at_exit(attempt)
    attempt.settle()
    try:
        response = send()
    except BaseException as error:
        attempt.fail(error)
        attempt.settle()
        raise
    _receive(attempt, response)
    attempt.settle()
    return response


async def _drive_async(attempt: AnyAttempt, send: Callable[[], Awaitable[Any]]) -> Any:
    try:
        attempt.start()
        ended_at_exit(attempt)
        await attempt.settle_async()
        response = await send()
    except BaseException as error:
        attempt.fail(error)
        await attempt.settle_async()
        raise
    _receive(attempt, response)
    await attempt.settle_async()
    return response


def _receive(attempt: AnyAttempt, response: Any) -> None:
    attempt.receive(response)
    if response.is_closed or response.is_stream_consumed:  # the caller did not ask for a stream
        attempt.read_complete(response.content)
    else:
        response.stream = tee(response.stream, attempt)


def _without_names(request: Any) -> dict[str, str]:
    """Remove the headers that name a conversation and a user. Returns what they say."""
    headers = request.headers
    if not any(name in headers for name in NAMING_HEADERS):
        return {}
    names = split_headers({name: headers[name] for name in NAMING_HEADERS if name in headers}).names
    for name in NAMING_HEADERS:
        headers.pop(name, None)
    return names
