"""A model over a provider's SDK, which does what it is good at: authentication, retries, timeouts, status errors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any, NoReturn

from recorder.models.clients import Clients, secrets_sent
from recorder.models.language_model import AnswerT, BaseLanguageModel
from recorder.models.run import ChunkT, WireRun
from recorder.models.sdk_stream import read, read_async, settle_async, settle_call, told, told_async, whole
from recorder.redaction.masking import Mask
from recorder.wire.reply import Translator


class SdkModel(BaseLanguageModel[AnswerT, ChunkT]):
    """One whose requests an SDK sends, and whose answers a translator reads."""

    def __init__(self, clients: Clients, **settings: Any) -> None:
        super().__init__(**settings)
        self._clients = clients

    # -- what a provider says ---------------------------------------------------------------------------------

    @abstractmethod
    def _translator(self) -> Translator:
        """A new translator of the provider's wire format."""

    @abstractmethod
    def _resource(self, client: Any) -> Any:
        """The part of an SDK client whose `create` sends the request."""

    @abstractmethod
    def _stream_error(self, error: Any, http_response: Any) -> Exception:
        """What the SDK raises for an error that came in place of an event."""

    def _mask_of(self, options: Mapping[str, Any]) -> Mask:
        sent_beside = {name: options.get(name) for name in ("extra_headers", "extra_query")}
        return Mask((*self._clients.secrets, *secrets_sent(sent_beside)), self._clients.sent)

    # -- one body of rules, two drivers -----------------------------------------------------------------------

    def _create(self, client: Callable[[], Any], way: str) -> Callable[..., Any]:
        """What sends the request. Without a key there is no client: then it raises why, so that the run fails of it."""
        try:
            create: Callable[..., Any] = getattr(self._resource(client()), way).create
        except Exception as error:
            return partial(_raise, error)
        return create

    def _chunks(self, call: WireRun[ChunkT]) -> Generator[ChunkT, None, None]:
        create = self._create(self._clients.here, "with_streaming_response")
        with told(call), create(**call.request.body) as response:
            call.http_response = response.http_response
            for data in read(response, call.reply, self._clients.sdk):
                for chunk in call.feed(data):
                    if call.pending:
                        settle_call(call)
                    yield chunk
                settle_call(call)
            for chunk in call.rest():
                settle_call(call)
                yield chunk

    async def _achunks(self, call: WireRun[ChunkT]) -> AsyncGenerator[ChunkT, None]:
        create = self._create(self._clients.on_loop, "with_streaming_response")
        async with told_async(call), create(**call.request.body) as response:
            call.http_response = response.http_response
            async with aclosing(read_async(response, call.reply, self._clients.sdk)) as body:
                async for data in body:
                    for chunk in call.feed(data):
                        if call.pending:
                            await settle_async(call)
                        yield chunk
                    if call.pending:
                        await settle_async(call)
            for chunk in call.rest():
                await settle_async(call)
                yield chunk

    def _drive(self, call: WireRun[ChunkT]) -> None:
        if call.request.stream:
            super()._drive(call)
            return
        create = self._create(self._clients.here, "with_raw_response")
        with told(call):
            whole(create(**call.request.body), call, self._clients.sdk)

    async def _adrive(self, call: WireRun[ChunkT]) -> None:
        if call.request.stream:
            await super()._adrive(call)
            return
        create = self._create(self._clients.on_loop, "with_raw_response")
        async with told_async(call):
            whole(await create(**call.request.body), call, self._clients.sdk)


def _raise(error: Exception, **_body: Any) -> NoReturn:
    raise error
