"""`Replay`: plays any stored stream again."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from recorder.callbacks import settle, settle_now
from recorder.config import Redactor, default_url
from recorder.core.collection import collection
from recorder.core.own_thread import on_own_thread
from recorder.errors import Closed, NotFound
from recorder.messages import AIMessageChunk, BaseMessage
from recorder.redaction.redaction import redaction_from
from recorder.replay.chunks import BytesListener, ChunkListener
from recorder.replay.driver import Driver, Listener, adrive, drive
from recorder.replay.http.client import ResponseSource, http_async_client, http_client
from recorder.replay.http.match import Matcher, Rules, Same
from recorder.replay.into_handlers import HandlerListener
from recorder.replay.pace import Options, Place
from recorder.replay.playback import PlayRun, frames, play, tokens
from recorder.replay.reader_thread import ReaderThread, shared
from recorder.storage.dialects import is_new_file, masked
from recorder.storage.reader import Branch, DatabaseReader, RecordedRun
from recorder.storage.search.search import SearchPage, search, searched

#: The last line of the error for a request that was not recorded.
HOW_TO_RECORD = (
    'To record it, make it through replay.model(like=your_model, mode="new_episodes"), or with a '
    "ChatHistoryCallback on this database."
)


class Replay:
    """Plays what is recorded in a database, and changes nothing in it.

    `id` is the id of a run or a conversation, or a beginning that only one id has; None is the newest run. Of a
    conversation the runs on its newest branch are played one after the other. Each call takes these options:

    - `speed`: 1.0 is the recorded speed, with the wait for the first token; 0.1 to 1000; None is as fast as possible.
    - `max_gap`: the longest pause, in seconds of the recording; longer ones are cut.
    - `start`, `until`: the number of a token (int), or seconds since the request (float).
    - `follow`: play on while the run still streams, until it ends.

    The end is replayed too. The recorded error is raised. A stream that was cancelled or interrupted ends with a chunk
    that has this status in `response_metadata["status"]`. Raises `NotFound` for an unknown or ambiguous id,
    `ConfigError` for invalid options, `StoreError` for a database that cannot be read.

    `redact` is that of the recorder. Requests to `model` and to HTTP clients are redacted in the same way before they
    are compared with the recorded ones, and what they record is redacted.
    """

    def __init__(self, url: str | None = None, *, redact: Sequence[Redactor] = ()) -> None:
        self.url = url or default_url()
        self.redaction = redaction_from(redact)
        #: What error messages call the recording.
        self.name = masked(self.url)
        #: Functions that `close` calls before it closes the connection.
        self.closing: list[Callable[[], None]] = []
        # A file that does not exist yet is opened at the first read: a recorder may create it before that.
        self._reader = None if self.is_new_file else shared(self.url)
        self._closed = False  # set last: if the lines above raised, there is nothing to close

    def stream(
        self, id: str | None = None, *, speed: float | None = 1.0, max_gap: float | None = None,
        start: Place | None = None, until: Place | None = None, follow: bool = False,
    ) -> Iterator[AIMessageChunk]:  # fmt: skip
        """Yield the chunks of the model, one for each token, when they are due.

        Missing tokens are one chunk with `additional_kwargs["gap"]`.
        """
        return self._played(id, Options(speed, max_gap, start, until, follow), tokens, ChunkListener())

    def astream(
        self, id: str | None = None, *, speed: float | None = 1.0, max_gap: float | None = None,
        start: Place | None = None, until: Place | None = None, follow: bool = False,
    ) -> AsyncIterator[AIMessageChunk]:  # fmt: skip
        """`stream` on an event loop."""
        return self._aplayed(id, Options(speed, max_gap, start, until, follow), tokens, ChunkListener())

    def frames(
        self, id: str | None = None, *, speed: float | None = 1.0, max_gap: float | None = None,
        start: Place | None = None, until: Place | None = None, follow: bool = False,
    ) -> Iterator[bytes]:  # fmt: skip
        """Yield the provider's events byte for byte; joined they are the response body.

        Yields nothing for a run whose frames were not recorded.
        """
        return self._played(
            id, Options(speed, max_gap, start, until, follow), frames, BytesListener(), raises=False
        )

    def aframes(
        self, id: str | None = None, *, speed: float | None = 1.0, max_gap: float | None = None,
        start: Place | None = None, until: Place | None = None, follow: bool = False,
    ) -> AsyncIterator[bytes]:  # fmt: skip
        """`frames` on an event loop."""
        return self._aplayed(
            id, Options(speed, max_gap, start, until, follow), frames, BytesListener(), raises=False
        )

    def into(
        self, callbacks: Any, id: str | None = None, *, speed: float | None = None, max_gap: float | None = None,
        start: Place | None = None, until: Place | None = None, follow: bool = False,
    ) -> None:  # fmt: skip
        """Call callback handlers as the model of the run did: start, messages, frames, tokens, then end or error.

        So a new analyzer, moderator or evaluator runs over old streams. It plays as fast as possible unless `speed` is
        given. An error of the run is passed to the handlers and not raised.
        """
        listener = HandlerListener(callbacks)
        options = Options(speed, max_gap, start, until, follow)
        for call in self._played(id, options, listener.play_run, listener, raises=False):
            if (pending := call()) is not None:
                settle_now(pending)

    async def ainto(
        self, callbacks: Any, id: str | None = None, *, speed: float | None = None, max_gap: float | None = None,
        start: Place | None = None, until: Place | None = None, follow: bool = False,
    ) -> None:  # fmt: skip
        """`into` on an event loop."""
        listener = HandlerListener(callbacks)
        options = Options(speed, max_gap, start, until, follow)
        async for call in self._aplayed(id, options, listener.play_run, listener, raises=False):
            if (pending := call()) is not None:
                await settle(pending)

    def http_client(
        self, *, speed: float | None = None, max_gap: float | None = None, match_on: Sequence[str] | Same | None = None,
        ignore: Sequence[str] | None = None, allow_playback_repeats: bool = False, library: str = "httpx2",
    ) -> Any:  # fmt: skip
        """An HTTP client that answers from the recording: `openai.OpenAI(http_client=replay.http_client())`.

        A request is answered by a run of the same request. Several such runs are used in the order of their recording,
        each once; with `allow_playback_repeats` the last one is used again. `match_on` names the fields that must be
        the same, `ignore` those that may differ (docs/testing.md). A request without a run raises `NotRecorded`.
        `library` is "httpx2" or "httpx".
        """
        rules = Rules(match_on, ignore, allow_playback_repeats)
        return http_client(self._responses(rules, Options(speed, max_gap)), library)

    def http_async_client(
        self, *, speed: float | None = None, max_gap: float | None = None, match_on: Sequence[str] | Same | None = None,
        ignore: Sequence[str] | None = None, allow_playback_repeats: bool = False, library: str = "httpx2",
    ) -> Any:  # fmt: skip
        """`http_client` for the asynchronous SDKs: `openai.AsyncOpenAI(http_client=replay.http_async_client())`."""
        rules = Rules(match_on, ignore, allow_playback_repeats)
        return http_async_client(self._responses(rules, Options(speed, max_gap)), library)

    def model(
        self, like: Any = None, *, mode: str = "none", speed: float | None = None, max_gap: float | None = None,
        match_on: Sequence[str] | Same | None = None, ignore: Sequence[str] | None = None,
        allow_playback_repeats: bool = False, **settings: Any,
    ) -> Any:  # fmt: skip
        """A model that behaves as `like`, a model of `recorder.models` or its class, and answers from the recording.

        `mode` is vcrpy's: "none" only replays; "once" records if the database was empty before, else only replays;
        "new_episodes" replays recorded requests and records new ones; "all" records every request. To record, it calls
        `like`. Without `like` it takes the class of the newest run's model, and only the messages must be the same.
        `settings` are options of the model; the other arguments are those of `http_client`. `close` waits until all
        that was recorded is stored.
        """
        from recorder.models.replayed_model import replayed

        rules = Rules(match_on, ignore, allow_playback_repeats)
        options = Options(speed, max_gap)
        return replayed(self, like, mode=mode, options=options, rules=rules, settings=settings)

    def messages(self, conversation_id: str) -> list[BaseMessage]:
        """The messages of a conversation along its newest branch, to be sent with the next question.

        `conversation_id` is the complete id; the list is empty for an unknown one. A reply is in it after its run has
        ended; a run whose process died has only tokens and no message. Raises `ConfigError` for a string that cannot
        be the id of a conversation.
        """
        found: list[BaseMessage] = self._ask(DatabaseReader.messages, conversation_id)
        return found

    async def amessages(self, conversation_id: str) -> list[BaseMessage]:
        """`messages` on an event loop."""
        return await asyncio.wrap_future(self.reader.ask(DatabaseReader.messages, conversation_id))

    def request(self, run_id: str) -> list[BaseMessage]:
        """The messages that a run was sent, its instructions first; also a window of the history, or a summary.

        `run_id` is the complete id. Raises `NotFound`.
        """
        run = self._ask(DatabaseReader.run, run_id)
        found: list[BaseMessage] = self._ask(DatabaseReader.request, run)
        return found

    async def arequest(self, run_id: str) -> list[BaseMessage]:
        """`request` on an event loop."""
        run = await asyncio.wrap_future(self.reader.ask(DatabaseReader.run, run_id))
        return await asyncio.wrap_future(self.reader.ask(DatabaseReader.request, run))

    def search(
        self, query: str, *, user: str | None = None, model: str | None = None, status: str | None = None,
        tag: str | None = None, since: str | datetime | None = None, until: str | datetime | None = None,
        limit: int = 20, after: str | None = None,
    ) -> SearchPage:  # fmt: skip
        """The messages that have all words of the query, and all "phrases in quotes"; the newest first.

        `since` and `until` are times of messages: a `datetime`, or a text as `recorder ls` takes. The other options are
        those of conversations. `limit` is at most 500. `next` of a page is `after` of the following one. Raises
        `ConfigError` for invalid options, `StoreError`.
        """
        wanted = searched(user, model, status, tag, since, until)
        found: SearchPage = self._ask(search, query, wanted, limit, after)
        return found

    async def asearch(
        self, query: str, *, user: str | None = None, model: str | None = None, status: str | None = None,
        tag: str | None = None, since: str | datetime | None = None, until: str | datetime | None = None,
        limit: int = 20, after: str | None = None,
    ) -> SearchPage:  # fmt: skip
        """`search` on an event loop."""
        wanted = searched(user, model, status, tag, since, until)
        return await asyncio.wrap_future(self.reader.ask(search, query, wanted, limit, after))

    @property
    def is_new_file(self) -> bool:
        """Whether the URL names a file that does not exist yet."""
        return is_new_file(self.url)

    @property
    def reader(self) -> ReaderThread:
        """The shared reader of the database. Raises `Closed`."""
        if self._closed:
            raise Closed("This replay is closed; make another one with Replay(url)")
        if self._reader is None:
            self._reader = shared(self.url)
        return self._reader

    def runs(self, id: str | None = None) -> list[RecordedRun]:
        """The runs that `id` names: one run, or those on the newest branch of a conversation. Raises `NotFound`."""
        found = self._ask(DatabaseReader.newest) if id is None else self._ask(DatabaseReader.find, id)
        if found.kind == "run":
            return [self._ask(DatabaseReader.run, found.id)]
        branch: Branch = self._ask(DatabaseReader.newest_branch, found.id)
        if not branch.runs:
            raise NotFound(f"Conversation {found.id} has no runs yet; its messages are in `transcripts`.")
        return list(branch.runs)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def close(self) -> None:
        """Close the database; a second call does nothing."""
        if not self._closed:
            self._closed = True
            for close in self.closing:
                close()
            if self._reader is not None:
                self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if collection.runs_here:  # a task was collected; nothing can be awaited here
            self.close()
        else:
            await on_own_thread(self.close)  # it waits for the database

    def __del__(self) -> None:
        # A finalizer may run on the reader's own thread, or inside one of its methods, so it must not wait.
        if not getattr(self, "_closed", True) and self._reader is not None and not sys.is_finalizing():
            self._reader.leave()

    def _responses(self, rules: Rules, options: Options) -> ResponseSource:
        return ResponseSource(
            self, Matcher(rules, how_to_record=HOW_TO_RECORD, redaction=self.redaction), options
        )

    def _ask(self, method: Any, *arguments: Any) -> Any:
        return self.reader.ask(method, *arguments).result()

    def _played(
        self, id: str | None, options: Options, play_run: PlayRun, listener: Listener, *, raises: bool = True
    ) -> Iterator[Any]:
        playback = play(id, options, play_run, messages=isinstance(listener, HandlerListener))
        return drive(Driver(self.reader, playback, listener, options, owner=self, raises=raises), playback)

    def _aplayed(
        self, id: str | None, options: Options, play_run: PlayRun, listener: Listener, *, raises: bool = True
    ) -> AsyncIterator[Any]:
        playback = play(id, options, play_run, messages=isinstance(listener, HandlerListener))
        return adrive(Driver(self.reader, playback, listener, options, owner=self, raises=raises), playback)
