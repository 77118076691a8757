"""Records the model calls of aiohttp's `ClientSession`, for sessions that were made before and later ones.

`ClientSession._request` is replaced, through which every request goes. A model call is sent with one more middleware, a
public interface of aiohttp. It is the innermost one, so it sees each attempt: also those that the application's own
middlewares make.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import wraps
from types import ModuleType
from typing import Any

from recorder.instrumentation.aiohttp_reader import record_reads, recorded_class
from recorder.instrumentation.aiohttp_request import AiohttpRequest, AskedRequest, head_of
from recorder.instrumentation.aiohttp_version import OLDEST
from recorder.instrumentation.attempt_factory import AnyAttempt
from recorder.instrumentation.model_calls import endpoint_of, is_large
from recorder.instrumentation.process_recordings import recordings
from recorder.instrumentation.process_send import sender_of
from recorder.instrumentation.recorded_above import handlers_above
from recorder.instrumentation.repetition import remember_attempt, remember_failure
from recorder.instrumentation.send import MARK, Sender, attempt_on_own_thread, without_names
from recorder.runs.open_streams import ended_at_exit
from recorder.runs.own_calls import is_own_call

log = logging.getLogger("recorder")

#: The attribute of a session with its own senders.
_SENDERS = "recorder_senders"
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_lock = threading.Lock()
_is_replaced = False


def replace(library: ModuleType) -> None:
    """Replace `_request` of the class, once in the process."""
    global _is_replaced
    with _lock:
        if _is_replaced:
            return
        _is_replaced = True
        session: Any = library.ClientSession
        make = _recorded if _is_recordable(library) else _warning
        session._request = make(session._request)


def add_sender(session: Any, sender: Sender) -> None:
    """Record this session with a sender of its own."""
    vars(session)[_SENDERS] = (*_own_senders(session), sender)


def remove_sender(session: Any, sender: Sender) -> None:
    """End what `add_sender` began."""
    vars(session)[_SENDERS] = tuple(each for each in _own_senders(session) if each is not sender)


def _own_senders(session: Any) -> tuple[Sender, ...]:
    found: tuple[Sender, ...] = vars(session).get(_SENDERS, ())
    return found


def _is_recordable(library: Any) -> bool:
    """Whether this version of aiohttp has what recording needs. The versions that recorder requires have it."""
    try:
        recorded_class(library.StreamReader)
        return "middlewares" in inspect.signature(library.ClientSession._request).parameters
    except (AttributeError, TypeError, ValueError):
        return False


def _warning(request: Callable[..., Any]) -> Callable[..., Any]:
    """`_request` of a version of aiohttp that cannot be recorded. The first model call is logged."""
    is_logged = False

    @wraps(request)
    def warned(session: Any, method: str, str_or_url: Any, **options: Any) -> Any:
        nonlocal is_logged
        if not is_logged and _is_to_record(session, method, str_or_url, options) and not handlers_above():
            is_logged = True
            log.warning(
                "The model calls of this version of aiohttp are not recorded; install aiohttp %s or newer",
                OLDEST,
            )
        return request(session, method, str_or_url, **options)

    return _marked(warned)


def _recorded(request: Callable[..., Any]) -> Callable[..., Any]:
    """`_request`, which records model calls."""

    @wraps(request)
    def recorded(session: Any, method: str, str_or_url: Any, **options: Any) -> Any:
        if not _is_to_record(session, method, str_or_url, options):
            return request(session, method, str_or_url, **options)
        return _send(request, session, method, str_or_url, options)

    return _marked(recorded)


def _marked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a function that returns a coroutine as what it replaces: an `async def`, which `unittest.mock` looks for."""
    mark: Callable[[Any], Any] | None = getattr(inspect, "markcoroutinefunction", None)
    if mark is not None:  # from Python 3.12 on
        mark(function)
    else:
        vars(function)["_is_coroutine"] = getattr(asyncio.coroutines, "_is_coroutine", None)
    return function


def _is_to_record(session: Any, method: str, url: Any, options: Mapping[str, Any]) -> bool:
    if not recordings() and _SENDERS not in vars(session):
        return False
    try:
        return endpoint_of(AskedRequest(session, method, url, options)) is not None and not is_own_call()
    except Exception:  # of a URL that is none: aiohttp raises its own error for it
        return False


async def _send(
    request: Callable[..., Awaitable[Any]], session: Any, method: str, url: Any, options: dict[str, Any]
) -> Any:
    senders = [*map(sender_of, recordings()), *_own_senders(session)]
    call = _Call(session, senders, options)
    given = options.get("middlewares")
    earlier = session._middlewares if given is None else given
    try:
        return await request(session, method, url, **{**options, "middlewares": (*earlier, call.send)})
    except BaseException as error:
        # What aiohttp raises in the end: a timeout, for example, is a cancellation until then.
        call.fail(error)
        await call.settle()
        raise


class _Call:
    """One call of `_request`: all attempts that it makes, one after the other."""

    def __init__(self, session: Any, senders: Sequence[Sender], options: Mapping[str, Any]) -> None:
        self._session = session
        self._senders = senders
        decodes = options.get("auto_decompress")
        self._is_decoded: bool = session.auto_decompress if decodes is None else decodes
        self._follows: bool = options.get("allow_redirects", True)
        #: The attempt that is being made, once for each recorder that no other one notes.
        self._attempts: list[AnyAttempt] = []
        #: Those that ended last, or whose response the application reads: what their handlers returned is waited for.
        self._earlier: list[AnyAttempt] = []
        self._extensions: dict[str, Any] = {}
        self._is_redirected = False
        #: Why the attempt failed, if aiohttp makes another exception of it.
        self._error: BaseException | None = None

    async def send(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        """The middleware: send a request, which is an attempt or follows a redirect of one."""
        sent = AiohttpRequest(request.method, request.url, request.headers, request.body, self._extensions)
        await (self._redirect(sent) if self._is_redirected else self._begin(sent))
        try:
            response = await handler(request)
        except Exception as error:
            await self._note(error)
            raise
        try:
            self._receive(response, sent)
            await self.settle()
        except BaseException:  # a cancellation: the application gets no response that it could close
            response.close()
            raise
        return response

    def fail(self, error: BaseException) -> None:
        """The attempt failed, if it has not ended."""
        attempts, self._attempts, self._error = self._attempts, [], None
        if attempts and isinstance(error, Exception):  # a cancellation is no failure
            remember_failure()
        for attempt in attempts:
            attempt.fail(error)
        self._earlier = attempts

    async def settle(self) -> None:
        """Wait for what handlers returned."""
        for attempt in (*self._attempts, *self._earlier):
            await attempt.settle_async()

    # -- inside -------------------------------------------------------------------------------------------------

    async def _begin(self, sent: AiohttpRequest) -> None:
        """A new attempt. The one before has failed if it has not ended: a middleware of the application goes on."""
        self.fail(self._error or asyncio.CancelledError())
        await self.settle()
        sent.extensions[MARK] = list(handlers_above())
        for sender in self._senders:
            await self._begin_for(sender, sent)
        self._extensions = sent.extensions
        await self.settle()

    async def _begin_for(self, sender: Sender, sent: AiohttpRequest) -> None:
        if is_large(sent):
            attempt = await attempt_on_own_thread(sender, self._session, sent)
        else:
            attempt = sender.attempt(self._session, sent)
        if attempt is not None:
            self._attempts.append(attempt)
            remember_attempt(attempt.run.request, sent)
            attempt.start()
            ended_at_exit(attempt)

    async def _redirect(self, sent: AiohttpRequest) -> None:
        """The attempt goes on at another URL. aiohttp has made the headers anew."""
        self._is_redirected = False
        without_names(sent)

    async def _note(self, error: Exception) -> None:
        """Sending failed. The application gets exceptions of aiohttp and timeouts as they are."""
        if isinstance(error, TimeoutError) or type(error).__module__.startswith("aiohttp."):
            self.fail(error)
            await self.settle()
        else:
            self._error = error

    def _receive(self, response: Any, sent: AiohttpRequest) -> None:
        if not self._attempts:
            return
        if self._follows and response.status in _REDIRECTS and _location_of(response):
            self._is_redirected = True
            return
        self._earlier, self._attempts = self._attempts, []
        if response.status >= 400:
            remember_failure(response.status)
        try:
            head = head_of(response, sent, is_decoded=self._is_decoded)
            for attempt in self._earlier:
                attempt.receive(head)
            _watch(response, self._earlier)
        except Exception as error:  # a response of the application's own
            log.warning("The answer to a model call is not recorded: %r", error, exc_info=error)
            for attempt in self._earlier:
                attempt.leave()


def _location_of(response: Any) -> str | None:
    found: str | None = response.headers.get("location") or response.headers.get("uri")
    return found


def _watch(response: Any, attempts: Sequence[AnyAttempt]) -> None:
    """Report how the application reads the response. Raises for one of the application's own."""
    content = response.content
    if type(content).__name__ == "EmptyStreamReader":  # one object for all responses without a body
        for attempt in attempts:
            attempt.end()
        return
    record_reads(content, attempts, is_error=response.status >= 400)
    if (connection := response.connection) is not None:
        connection.add_callback(content.recorder_released)


def _renew_lock() -> None:
    """In a forked child: another thread of the parent may have held the lock."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
