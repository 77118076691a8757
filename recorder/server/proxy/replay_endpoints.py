"""Answers calls to providers' paths from the recording, so that it is a provider for clients in any language."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from recorder.errors import ConfigError, RecorderError
from recorder.redaction.redaction import Redaction
from recorder.replay.driver import adrive
from recorder.replay.http.client import ResponseSource
from recorder.replay.http.match import Matcher, Rules
from recorder.replay.http.not_recorded import NotRecorded
from recorder.replay.http.response import RUN_HEADER, ReplayedResponse
from recorder.replay.pace import Options
from recorder.replay.queries import run_queries_async
from recorder.replay.reader_thread import ReaderThread
from recorder.server.caller import Caller
from recorder.server.conversations import run_for
from recorder.server.database import ServedDatabase
from recorder.server.problem import NO_SNIFFING
from recorder.server.proxy.early_end import EarlyEnd, http_client_left
from recorder.server.proxy.provider_error import provider_error
from recorder.server.proxy.request_body import HeldBytes, RequestBody
from recorder.server.proxy.target import Target

log = logging.getLogger("recorder")

_HOW = "To record it, send it once through `recorder serve --proxy` with this database."
#: No SDK tries again: the recording will not change.
_FINAL = {"x-should-retry": "false"}


class ReplayEndpoints:
    """Answers from one database. `options` is the pace of requests that name none."""

    #: The key of a client goes nowhere.
    takes_keys_as_tokens = True

    def __init__(
        self, database: ServedDatabase, options: Options | None = None, *, rules: Rules | None = None,
        redaction: Redaction | None = None,
    ) -> None:  # fmt: skip
        self._database = database
        self._options = options or Options()
        self._rules = rules or Rules(allow_playback_repeats=True)
        self._redaction = redaction
        #: One for each user, who sees only runs in conversations of its own.
        self._matchers: dict[str | None, Matcher] = {}
        self._held = HeldBytes()
        self._open: set[EarlyEnd] = set()

    @property
    def reader(self) -> ReaderThread:
        """The reader of the database. Raises `Closed`."""
        return self._database.hub().pages

    async def answer(
        self, target: Target, caller: Caller, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer one request. Raises `ProblemError` and `RecorderError` before a response has begun."""
        body = RequestBody(receive, scope["headers"], self._held)
        try:
            sent = await body.read_all()
            response = await self._response(target, caller, Request(scope), sent)
        finally:
            body.let_go()
        await response(scope, receive, send)

    def drain(self, within: float) -> None:
        """Cut the responses that are still open after so many seconds."""
        asyncio.get_running_loop().call_later(within, self._cut_all)

    async def aclose(self) -> None:
        """There is nothing to close: the reader belongs to the server."""

    # -- inside -------------------------------------------------------------------------------------------------

    def _cut_all(self) -> None:
        for each in list(self._open):
            each.shut_down()

    async def _response(self, target: Target, caller: Caller, request: Request, sent: bytes) -> Response:
        path = target.path
        try:
            source = ResponseSource(self, self._matcher(caller), self._pace(target.query))
            headers = {
                name: request.headers.get(name, "") for name in (RUN_HEADER, "x-stainless-retry-count")
            }
            if run_id := headers[RUN_HEADER]:
                await self._database.ask(run_for, run_id, caller)
            queries = source.response_to(request.method, path, headers, sent)
            found = await run_queries_async(self.reader, queries)
        except (NotRecorded, ConfigError) as error:
            status = 404 if isinstance(error, NotRecorded) else 400
            return provider_error(path, status, str(error), _FINAL)
        if found.playback is None and (found.broken or found.error):
            text = found.broken.message if found.broken is not None else str(found.error)
            return provider_error(path, 502, f"The recorded call had no response: {text}", _FINAL)
        return ReplayedStream(source, found, self._open)

    def _matcher(self, caller: Caller) -> Matcher:
        user = caller.user_id
        if user not in self._matchers:
            self._matchers[user] = Matcher(
                self._rules, how_to_record=_HOW, redaction=self._redaction, user_id=user
            )
        return self._matchers[user]

    def _pace(self, query: str) -> Options:
        """The pace of a request: `speed` and `max_gap` in its query, where "speed=none" is as fast as possible."""
        given = {name: values[-1] for name, values in parse_qs(query).items() if name in ("speed", "max_gap")}
        changes: dict[str, Any] = {name: _number(name, text) for name, text in given.items()}
        return replace(self._options, **changes)


def _number(name: str, text: str) -> float | None:
    if text == "none":
        return None
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{name} is {text!r:.80}; give a number, or none") from None


class ReplayedStream(Response):
    """A recorded response at its pace."""

    def __init__(self, source: ResponseSource, found: ReplayedResponse, open_streams: set[EarlyEnd]) -> None:
        super().__init__(found.body or None, found.status, {**found.headers, **NO_SNIFFING})
        self._source = source
        self._found = found
        self._open_streams = open_streams
        if found.playback is not None:
            del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._found.playback is None:
            await super().__call__(scope, receive, send)
            return
        early_end = EarlyEnd()
        self._open_streams.add(early_end)
        try:
            async with early_end.when(http_client_left(receive)):
                await self._send_all(send)
        except RecorderError as error:
            log.warning("A replayed response is cut off: %s", error)
        finally:
            self._open_streams.discard(early_end)

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        assert self._found.playback is not None
        pieces: Any = adrive(self._source.driver(self._found), self._found.playback)
        async with aclosing(pieces):
            async for data in pieces:
                await send({"type": "http.response.body", "body": data, "more_body": True})
        if self._found.broken is None and self._found.error is None:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
