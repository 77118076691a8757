"""Records one call that passes through the proxy, as the attached client of an SDK would record it.

Nothing here raises: a call that cannot be recorded is served all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from multidict import CIMultiDict
from yarl import URL

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.core.own_thread import on_own_thread
from recorder.instrumentation.aiohttp_request import AiohttpUrl, ResponseHead
from recorder.instrumentation.attempt_factory import AnyAttempt, NumberedRun, attempt_of
from recorder.instrumentation.deferred_attempt import DeferredAttempt
from recorder.instrumentation.model_calls import LARGE_BODY, Endpoint, ModelCall, endpoint_of, model_call_of
from recorder.server.proxy.repeated_calls import CallKey, RepeatedCalls, call_key, is_passing
from recorder.server.proxy.upstreams import Upstream

log = logging.getLogger("recorder")

#: What a run has as the name of its client.
CLIENT = "proxy"


@dataclass(slots=True)
class ProxiedRequest:
    """A request to an upstream, with those attributes of httpx's that recorder reads."""

    method: str
    url: AiohttpUrl
    #: The headers that are sent.
    headers: CIMultiDict[str]
    content: bytes = b""

    @classmethod
    def to(cls, method: str, url: URL, headers: CIMultiDict[str]) -> ProxiedRequest:
        """The request before its body is read."""
        return cls(method, AiohttpUrl(url), headers)

    def endpoint(self, upstream: Upstream) -> Endpoint | None:
        """The endpoint of a model to which it goes; None for any other request."""
        return endpoint_of(self) or (upstream.endpoint if self.method == "POST" else None)


class CallRecording:
    """The run of one call."""

    def __init__(
        self, attempt: AnyAttempt, key: CallKey, request: ProxiedRequest, repeated: RepeatedCalls
    ) -> None:
        self._attempt = attempt
        self._key = key
        self._request = request
        self._repeated = repeated
        self._is_deferred = isinstance(attempt, DeferredAttempt)

    @property
    def run_id(self) -> str:
        """The id of the run."""
        return str(self._attempt.run.request.run_id)

    async def start(self) -> None:
        """The request is about to be sent."""
        self._attempt.start()
        await self._attempt.settle_async()

    def receive(self, status: int, headers: Mapping[str, str]) -> None:
        """The head of the response arrived."""
        if is_passing(status):
            self._note_failure()
        self._attempt.receive(ResponseHead(status, headers, self._request))

    async def feed(self, data: bytes, moment_us: int) -> None:
        """Bytes of the body came at this time (monotonic microseconds), and were sent to the client."""
        wait = self._attempt.feed(data, moment_us)
        while wait is not None:
            await wait
            wait = self._attempt.feed_again()
        if not self._is_deferred:
            await self._attempt.settle_async()

    async def end(self) -> None:
        """The body has ended."""
        self._attempt.end()
        await self._attempt.settle_async()

    async def leave(self) -> None:
        """The client left, so the upstream was left, too."""
        self._note_failure(was_left=True)  # a client that waits no longer may try again
        self._attempt.leave()
        await self._attempt.settle_async()

    async def interrupt(self) -> None:
        """The server shuts down, and the rest of the response is not read."""
        self._attempt.end_cut()
        await self._attempt.settle_async()

    async def fail(self, error: BaseException, *, is_reading: bool) -> None:
        """There was no response, or its body was cut."""
        self._note_failure()
        (self._attempt.fail_reading if is_reading else self._attempt.fail)(error)
        await self._attempt.settle_async()

    def _note_failure(self, *, was_left: bool = False) -> None:
        made = self._attempt.run.request
        run = NumberedRun(made.run_id, made.attempt, made.first_run_id)
        self._repeated.failed(self._key, self._request.headers, run, was_left=was_left)


async def recording_of(
    history: ChatHistoryCallback, request: ProxiedRequest, endpoint: Endpoint, names: Mapping[str, str],
    repeated: RepeatedCalls,
) -> CallRecording | None:  # fmt: skip
    """The recording of a call that has begun; None for what is no model call, and for a history that is closed.

    `names` are the conversation and the user, as metadata of a run.
    """
    try:
        if history.recorder.closed or (call := await _call_of(request, endpoint)) is None:
            return None
        key = call_key(str(request.url), call.input_hash, request.headers, names)
        run = repeated.numbered(key, request.headers)
        attempt = attempt_of(call, request, [history], names, client=CLIENT, run=run)
        if attempt is None:
            return None
        found = CallRecording(attempt, key, request, repeated)
        await found.start()
        return found
    except Exception as error:
        log.warning("A call through the proxy is not recorded: %s", type(error).__name__, exc_info=error)
        return None


async def _call_of(request: ProxiedRequest, endpoint: Endpoint) -> ModelCall | None:
    """The model call; a large body is read on another thread."""
    if len(request.content) <= LARGE_BODY:
        return model_call_of(request, endpoint)
    found: list[ModelCall | None] = []
    read = partial(model_call_of, request, endpoint)
    await on_own_thread(lambda: found.append(read()))
    return found[0]


def names_of(own_headers: Mapping[str, str], user_id: str | None) -> dict[str, str]:
    """The metadata of a run: the conversation and the user that the headers name, and the user of a token."""
    conversation, user = (
        own_headers.get("x-recorder-conversation"),
        user_id or own_headers.get("x-recorder-user"),
    )
    given: dict[str, Any] = {"conversation_id": conversation, "user_id": user}
    return {name: value for name, value in given.items() if value}
