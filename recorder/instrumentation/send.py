"""Replaces the method `send` of an HTTP client, so that every model call through the client is recorded.

`send` is the public method that everything goes through: each way of calling the SDKs, and each of their attempts. It
also sees what fails before the response, which event hooks do not.
"""

from __future__ import annotations

import logging
from asyncio.events import _get_running_loop
from collections.abc import Awaitable, Callable, Sequence
from functools import partial, wraps
from typing import Any

from recorder.core.own_thread import on_own_thread
from recorder.instrumentation.attempt_factory import AnyAttempt, attempt_of, linked_attempt
from recorder.instrumentation.hosts import ALL_HOSTS, Hosts
from recorder.instrumentation.linked_run import linked_run, others_than_linked, recorders_of
from recorder.instrumentation.model_calls import Endpoint, endpoint_of, is_large, model_call_of
from recorder.instrumentation.recorded_above import recorded_above
from recorder.instrumentation.repetition import numbered_run, remember_attempt, remember_failure
from recorder.instrumentation.tee import tee
from recorder.runs.naming_headers import NAMING_HEADERS, split_headers
from recorder.runs.open_streams import ended_at_exit
from recorder.runs.own_calls import is_own_call

log = logging.getLogger("recorder")

#: The key of a request's extensions with the handlers that the request is recorded for, while it is sent.
MARK = "recorder"
#: The key of a request's extensions with what its naming headers said.
_NAMES = "recorder_names"


class Sender:
    """What is recorded: for which handlers, and of which hosts."""

    def __init__(self, hosts: Hosts = ALL_HOSTS, default: Callable[[], Any] | None = None) -> None:
        #: The handlers, each once, without the default one.
        self.handlers: list[Any] = []
        #: The handlers of each attachment.
        self._attached: list[Any] = []
        self.hosts = hosts
        #: Makes the handler of a model call, where none is given; None for calls that are not recorded.
        self.default = default
        self._logged: Exception | None = None

    def add(self, handlers: Sequence[Any]) -> None:
        """Add the handlers of an attachment. One that is there already is not called twice."""
        self._attached = [*self._attached, *handlers]
        self.handlers = _each_once(self._attached)

    def remove(self, handlers: Sequence[Any]) -> None:
        """Remove the handlers of an attachment. Calls that have begun are recorded to their end."""
        left = list(self._attached)
        for handler in handlers:
            place = next((place for place, each in enumerate(left) if each is handler), None)
            if place is not None:
                del left[place]
        self._attached, self.handlers = left, _each_once(left)

    def attempt(self, client: Any, request: Any) -> AnyAttempt | None:
        """The attempt that records this request; None if it is no model call, or is recorded already."""
        endpoint = endpoint_of(request)
        if endpoint is None:
            return None
        names = without_names(request)
        if is_own_call() or not self.hosts.include(request.url.host):
            return None
        try:
            return self._attempt(client, request, endpoint, names)
        except Exception as error:
            self._log(error)
            return None

    def _attempt(
        self, client: Any, request: Any, endpoint: Endpoint, names: dict[str, str]
    ) -> AnyAttempt | None:
        call = model_call_of(request, endpoint)
        is_recorded = bool(request.extensions.get(MARK))  # for other handlers, by another sender
        request.extensions = dict(request.extensions)  # some versions share the application's own dict
        if call is None or not (handlers := others_than_linked(self._unmarked(request.extensions))):
            return None
        linked = linked_run()
        if linked is not None and linked.recorder_handler in handlers:
            return linked_attempt(linked, call, request, handlers, names, client=type(client).__name__)
        run = numbered_run(call, request, is_recorded=is_recorded)
        return attempt_of(call, request, handlers, names, client=type(client).__name__, run=run)

    def _log(self, error: Exception) -> None:
        """Log an error, once if every call has the same one, such as a database that cannot be opened."""
        if error is not self._logged:
            self._logged = error
            log.warning("A model call is not recorded: %r", error, exc_info=error)

    def _unmarked(self, extensions: dict[str, Any]) -> list[Any]:
        """The handlers that no other sender calls for this request. They are marked as called."""
        marked = extensions.setdefault(MARK, [])
        default = self.default() if self.default is not None else None
        given = [*self.handlers, default] if default is not None else self.handlers
        found = [each for each in given if not any(each is other for other in marked)]
        marked += found
        return found


def _each_once(handlers: Sequence[Any]) -> list[Any]:
    return list({id(each): each for each in handlers}.values())


def _unmark(attempt: AnyAttempt, request: Any) -> None:
    """The request was sent. Mistral's SDK sends the same object again when it repeats a call."""
    handlers = recorders_of(attempt)
    marked = request.extensions.get(MARK, ())
    request.extensions[MARK] = [each for each in marked if not any(each is other for other in handlers)]


def recorded_send(sender: Sender, send: Callable[..., Any]) -> Callable[..., Any]:
    """The method `send` of a synchronous client, recorded. Its first argument is the client."""

    @wraps(send)
    def recorded(client: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        attempt = sender.attempt(client, request)
        if attempt is None:
            return send(client, request, *args, **kwargs)
        remember_attempt(attempt.run.request, request)
        try:
            with recorded_above(recorders_of(attempt)):
                return _drive(attempt, partial(send, client, request, *args, **kwargs))
        finally:
            _unmark(attempt, request)

    return recorded


def recorded_async_send(sender: Sender, send: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """The method `send` of an asynchronous client, recorded."""

    @wraps(send)
    async def recorded(client: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        # Without a loop of asyncio (trio's, for example) nothing can wait for a thread.
        if _get_running_loop() is not None and endpoint_of(request) is not None and is_large(request):
            attempt = await attempt_on_own_thread(sender, client, request)
        else:
            attempt = sender.attempt(client, request)
        if attempt is None:
            return await send(client, request, *args, **kwargs)
        remember_attempt(attempt.run.request, request)
        try:
            with recorded_above(recorders_of(attempt)):
                return await _drive_async(attempt, partial(send, client, request, *args, **kwargs))
        finally:
            _unmark(attempt, request)

    return recorded


async def attempt_on_own_thread(sender: Sender, client: Any, request: Any) -> AnyAttempt | None:
    """`Sender.attempt`. The loop's executor may be full of work that waits for the answer to this request."""
    found: list[AnyAttempt | None] = []
    await on_own_thread(lambda: found.append(sender.attempt(client, request)))
    return found[0]


def _drive(attempt: AnyAttempt, send: Callable[[], Any]) -> Any:
    try:
        attempt.start()
        ended_at_exit(attempt)
        attempt.settle()
        response = send()
    except BaseException as error:
        _fail(attempt, error)
        attempt.settle()
        raise
    try:
        if (content := _receive(attempt, response)) is not None:
            wait = attempt.feed_complete(content)
            while wait is not None:
                wait.wait()
                wait = attempt.feed_again()
            attempt.end()
        attempt.settle()
    except BaseException:  # Ctrl-C: the application does not get the response, so it cannot close it
        response.close()
        raise
    return response


async def _drive_async(attempt: AnyAttempt, send: Callable[[], Awaitable[Any]]) -> Any:
    try:
        attempt.start()
        ended_at_exit(attempt)
        await attempt.settle_async()
        response = await send()
    except BaseException as error:
        _fail(attempt, error)
        await attempt.settle_async()
        raise
    try:
        if (content := _receive(attempt, response)) is not None:
            wait = attempt.feed_complete(content)
            while wait is not None:
                await wait
                wait = attempt.feed_again()
            attempt.end()
        await attempt.settle_async()
    except BaseException:  # a cancellation: the application does not get the response, so it cannot close it
        await response.aclose()
        raise
    return response


def _fail(attempt: AnyAttempt, error: BaseException) -> None:
    if isinstance(error, Exception):  # a cancellation is no failure
        remember_failure()
    attempt.fail(error)


def _receive(attempt: AnyAttempt, response: Any) -> bytes | None:
    """The head arrived. Returns the body if the HTTP client has read it, as it does unless it is asked for a stream."""
    try:
        if response.status_code >= 400:
            remember_failure(response.status_code)
        attempt.receive(response)
        if response.is_closed or response.is_stream_consumed:
            content: bytes = response.content
            return content
        response.stream = tee(response.stream, attempt)
    except (
        Exception
    ) as error:  # an object of the application's own, or a body that somebody has read as a stream
        log.warning("The answer to a model call is not recorded: %r", error, exc_info=error)
        attempt.leave()
    return None


def without_names(request: Any) -> dict[str, str]:
    """Remove the headers that name a conversation and a user. Returns what they say.

    They are remembered for another sender of this request, and for the next time that it is sent.
    """
    headers = request.headers
    if not any(name in headers for name in NAMING_HEADERS):
        remembered: dict[str, str] = request.extensions.get(_NAMES, {})
        return remembered
    names = split_headers({name: headers[name] for name in NAMING_HEADERS if name in headers}).names
    for name in NAMING_HEADERS:
        if name in headers:
            del headers[name]  # each of them, if it was given more than once
    request.extensions[_NAMES] = names
    return names
