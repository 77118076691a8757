"""A model over a provider's SDK. The SDK does authentication, retries, timeouts and status errors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from functools import partial
from typing import Any, NoReturn

from recorder.core.ids import CONVERSATION_KEYS
from recorder.core.owned_generator import Owned
from recorder.models.clients import Clients, secrets_sent
from recorder.models.language_model import AnswerT, BaseLanguageModel
from recorder.redaction.masking import Mask
from recorder.runs.open_response import AsyncOpenResponse, OpenResponse
from recorder.runs.own_calls import own_call
from recorder.runs.run import ChunkT, WireRun
from recorder.runs.sdk_stream import (
    ReportingAsync,
    read,
    read_async,
    read_complete,
    reporting,
    settle_run,
    settle_run_async,
)
from recorder.wire.reply import Translator


class SdkModel(BaseLanguageModel[AnswerT, ChunkT]):
    """A model whose requests an SDK sends. A translator reads the responses."""

    def __init__(self, clients: Clients, **settings: Any) -> None:
        super().__init__(**settings)
        self._clients = clients

    # -- for each provider ------------------------------------------------------------------------------------

    @abstractmethod
    def _translator(self) -> Translator:
        """A new translator of the provider's wire format."""

    @abstractmethod
    def _resource(self, client: Any) -> Any:
        """The part of an SDK client whose `create` sends the request."""

    @abstractmethod
    def _stream_error(self, error: Any, http_response: Any) -> Exception:
        """The SDK's exception for an error event of a stream."""

    def _resource_of(self, run: WireRun[ChunkT], client: Any) -> Any:
        """`_resource` for a run of a model with several APIs."""
        return self._resource(client)

    def _host(self) -> str | None:
        return self._clients.host

    def _names_in(self, body: Mapping[str, Any]) -> dict[str, str]:
        """The conversation that a body names, as metadata of the run."""
        return {}

    def _own_metadata(self, given: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
        # A conversation has several keys in metadata, so a given one does not override the client's by its key.
        named = {**self.metadata, **given}.keys() & CONVERSATION_KEYS
        names = {
            key: name
            for key, name in {**self._names_in(body), **self._clients.names}.items()
            if not (named and key in CONVERSATION_KEYS)
        }
        return {**names, **self.metadata}

    def _mask_of(self, options: Mapping[str, Any]) -> Mask:
        extra = {name: options.get(name) for name in ("extra_headers", "extra_query")}
        return Mask((*self._clients.secrets, *secrets_sent(extra)), self._clients.sent)

    # -- drivers: synchronous, and on an event loop -----------------------------------------------------------

    def _create(self, run: WireRun[ChunkT], client: Callable[[], Any], way: str) -> Callable[..., Any]:
        """The function that sends the request.

        If the client cannot be made, for example without a key, the function raises why. So the run records the error.
        """
        try:
            create: Callable[..., Any] = getattr(self._resource_of(run, client()), way).create
        except Exception as error:
            return partial(_raise, error)
        return create

    def _chunks(self, run: WireRun[ChunkT]) -> Generator[ChunkT, None, None]:
        create = self._create(run, self._clients.sync_client, "with_streaming_response")
        with reporting(run), OpenResponse(create(**run.request.body)) as response:
            run.http_response = response.http
            for data in read(response, run.reply, self._clients.sdk):
                for chunk in run.feed(data):
                    if run.pending:
                        settle_run(run)
                    yield chunk
                settle_run(run)
            for chunk in run.rest():
                settle_run(run)
                yield chunk

    async def _achunks(self, run: WireRun[ChunkT]) -> AsyncGenerator[ChunkT, None]:
        create = self._create(run, self._clients.loop_client, "with_streaming_response")
        async with ReportingAsync(run), AsyncOpenResponse(create(**run.request.body)) as response:
            run.http_response = response.http
            async with Owned(read_async(response, run.reply, self._clients.sdk)) as body:
                async for data in body:
                    for chunk in run.feed(data):
                        if run.pending:
                            await settle_run_async(run)
                        yield chunk
                    if run.pending:
                        await settle_run_async(run)
            for chunk in run.rest():
                await settle_run_async(run)
                yield chunk

    def _drive(self, run: WireRun[ChunkT]) -> None:
        if run.request.stream:
            super()._drive(run)
            return
        create = self._create(run, self._clients.sync_client, "with_raw_response")
        with reporting(run):
            with own_call():
                response = create(**run.request.body)
            read_complete(response, run, self._clients.sdk)

    async def _adrive(self, run: WireRun[ChunkT]) -> None:
        if run.request.stream:
            await super()._adrive(run)
            return
        create = self._create(run, self._clients.loop_client, "with_raw_response")
        async with ReportingAsync(run):
            with own_call():
                response = await create(**run.request.body)
            read_complete(response, run, self._clients.sdk)


def _raise(error: Exception, **_body: Any) -> NoReturn:
    raise error
