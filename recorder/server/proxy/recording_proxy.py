"""The recording proxy: passes calls on to their upstreams, and records those of models."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from starlette.types import Receive, Scope, Send
from yarl import URL

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.replay.http.response import RUN_HEADER
from recorder.server.caller import Caller
from recorder.server.database import ServedDatabase
from recorder.server.problem import ProblemError
from recorder.server.proxy.call_recording import CallRecording, ProxiedRequest, names_of, recording_of
from recorder.server.proxy.exchange import ProxyExchange
from recorder.server.proxy.forwarded_headers import ClientHeaders, split_client_headers
from recorder.server.proxy.repeated_calls import RepeatedCalls
from recorder.server.proxy.request_body import HeldBytes, RequestBody
from recorder.server.proxy.run_response import run_response
from recorder.server.proxy.target import Target
from recorder.server.proxy.upstream_client import UpstreamClient

#: Makes a call go on when its client leaves, with the value "true".
RESUMABLE_HEADER = "x-recorder-resumable"


class RecordingProxy:
    """Answers calls to providers' paths. All calls are on one event loop."""

    takes_keys_as_tokens = False

    def __init__(
        self, history: ChatHistoryCallback, database: ServedDatabase, *, client: UpstreamClient | None = None
    ) -> None:
        self._history = history
        self._database = database
        self._client = client or UpstreamClient()
        self._repeated = RepeatedCalls()
        self._held = HeldBytes()
        self._open: set[ProxyExchange] = set()
        self._is_draining = False
        history.recorder.closing.append(self._client.close)

    @property
    def open_calls(self) -> int:
        """How many calls are under way."""
        return len(self._open)

    async def answer(
        self, target: Target, caller: Caller, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer one request. Raises `ProblemError` and `RecorderError` before a response has begun."""
        if self._is_draining:
            raise ProblemError(503, "The server shuts down; try again", {"retry-after": "1"})
        headers = split_client_headers(scope["headers"])
        _check_user(headers.own, caller)
        if run_id := headers.own.get(RUN_HEADER):
            response = await run_response(self._database, run_id, caller)
            await response(scope, receive, send)
            return
        body = RequestBody(receive, scope["headers"], self._held)
        try:
            await self._pass_on(target, caller, headers, body, scope, send)
        finally:
            body.let_go()

    def drain(self, within: float) -> None:
        """Accept no more calls, and cut those that are still open after so many seconds."""
        self._is_draining = True
        asyncio.get_running_loop().call_later(within, self._cut_all)

    async def aclose(self) -> None:
        """Close the connections to the upstreams."""
        await self._client.aclose()

    # -- inside -------------------------------------------------------------------------------------------------

    def _cut_all(self) -> None:
        for exchange in list(self._open):
            exchange.cut()

    async def _pass_on(
        self, target: Target, caller: Caller, headers: ClientHeaders, body: RequestBody, scope: Scope,
        send: Send,
    ) -> None:  # fmt: skip
        url = URL(target.url, encoded=True)
        request = ProxiedRequest.to(scope["method"], url, headers.sent)
        recording = await self._recording(target, caller, headers.own, request, body)
        if body.length is not None:
            headers.sent["content-length"] = str(body.length)
        elif not body.exists:
            body.has_ended.set()
        exchange = ProxyExchange(
            self._client, target.upstream.name, request, url, body, recording,
            is_resumable=headers.own.get(RESUMABLE_HEADER, "").lower() == "true",
        )  # fmt: skip
        self._open.add(exchange)
        try:
            await exchange.run(send)
        finally:
            self._open.discard(exchange)

    async def _recording(
        self,
        target: Target,
        caller: Caller,
        own: Mapping[str, str],
        request: ProxiedRequest,
        body: RequestBody,
    ) -> CallRecording | None:
        """The recording of a model call, whose body is read for it; None for any other request."""
        endpoint = request.endpoint(target.upstream)
        if endpoint is None:
            return None
        if body.exists:
            request.content = await body.read_all()
        names = names_of(own, caller.user_id)
        return await recording_of(self._history, request, endpoint, names, self._repeated)


def _check_user(own: Mapping[str, str], caller: Caller) -> None:
    user = own.get("x-recorder-user")
    if user is not None and not caller.may_read(user):
        raise ProblemError(403, "This token records for another user; leave x-recorder-user out")
