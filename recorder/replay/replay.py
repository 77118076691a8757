"""`Replay`: any stored stream again, as if it were live."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from recorder.callbacks import settle, settle_now
from recorder.config import default_url
from recorder.errors import Closed, NotFound
from recorder.messages import AIMessageChunk, BaseMessage
from recorder.replay.chunks import Bytes, Chunks
from recorder.replay.driver import Driver, Listener, adrive, drive
from recorder.replay.http.client import Tape, http_async_client, http_client
from recorder.replay.http.match import Matcher, Rules, Same
from recorder.replay.into_handlers import Into
from recorder.replay.pace import Options, Place
from recorder.replay.playback import Part, frames, tokens, whole
from recorder.replay.reader_thread import Reader, shared
from recorder.storage.dialects import is_new_file
from recorder.storage.reader import Branch, Library, RecordedRun

#: The last line of an error about a request that is not there.
HOW_TO_RECORD = (
    'To record it, make it through replay.model(like=your_model, mode="new_episodes"), or with a '
    "ChatHistoryCallback on this database."
)


class Replay:
    """Plays what is recorded in a database; changes nothing in it.

    An id is a run's or a conversation's, or the beginning of one that no other id has; without one it is the newest
    run. Of a conversation the runs on its newest branch are played one after the other. How to play, with each call:

    - `speed`: 1.0 is as it was, the wait for the first token included; 0.1 to 1000; None as fast as possible.
    - `max_gap`: the longest silence, seconds of the recording.
    - `start`, `until`: a token's number (int), or seconds since the request (float).
    - `follow`: go on into a run that still streams, until it ends.

    The recorded end is replayed too: an error is raised as it was, and what was left or cut off ends with a chunk
    whose `response_metadata["status"]` says so. Raises `NotFound` for an unknown or ambiguous id, `ConfigError` for
    options that cannot be, `StoreError` for a database that cannot be read.
    """

    def __init__(self, url: str | None = None) -> None:
        self.url = url or default_url()
        #: Called before the database is let go of.
        self.closing: list[Callable[[], None]] = []
        # A file that is not there yet may be recorded into before it is read.
        self._held = None if self.is_new_file else shared(self.url)
        self._closed = False  # last: one that raised above has nothing to let go of

    def stream(
        self, id: str | None = None, *, speed: float | None = 1.0, max_gap: float | None = None,
        start: Place | None = None, until: Place | None = None, follow: bool = False,
    ) -> Iterator[AIMessageChunk]:  # fmt: skip
        """The chunks that the model yielded, one a token, when they are due. What is missing is a chunk with
        `additional_kwargs["gap"]`."""
        return self._played(id, Options(speed, max_gap, start, until, follow), tokens, Chunks())

    def astream(
        self, id: str | None = None, *, speed: float | None = 1.0, max_gap: float | None = None,
        start: Place | None = None, until: Place | None = None, follow: bool = False,
    ) -> AsyncIterator[AIMessageChunk]:  # fmt: skip
        """`stream` on an event loop."""
        return self._aplayed(id, Options(speed, max_gap, start, until, follow), tokens, Chunks())

    def frames(
        self, id: str | None = None, *, speed: float | None = 1.0, max_gap: float | None = None,
        start: Place | None = None, until: Place | None = None, follow: bool = False,
    ) -> Iterator[bytes]:  # fmt: skip
        """The provider's events byte for byte; joined they are the body. None for a run recorded without."""
        return self._played(id, Options(speed, max_gap, start, until, follow), frames, Bytes(), raises=False)

    def aframes(
        self, id: str | None = None, *, speed: float | None = 1.0, max_gap: float | None = None,
        start: Place | None = None, until: Place | None = None, follow: bool = False,
    ) -> AsyncIterator[bytes]:  # fmt: skip
        """`frames` on an event loop."""
        return self._aplayed(id, Options(speed, max_gap, start, until, follow), frames, Bytes(), raises=False)

    def into(
        self, callbacks: Any, id: str | None = None, *, speed: float | None = None, max_gap: float | None = None,
        start: Place | None = None, until: Place | None = None, follow: bool = False,
    ) -> None:  # fmt: skip
        """Drive handlers through a run as its model did: start, messages, frames, tokens, end or error.

        So a new analyzer, moderator or evaluator runs over old streams. As fast as possible unless `speed` is given.
        An error of the run is told to the handlers and not raised.
        """
        listener = Into(callbacks)
        options = Options(speed, max_gap, start, until, follow)
        for call in self._played(id, options, listener.part, listener, raises=False):
            if (pending := call()) is not None:
                settle_now(pending)

    async def ainto(
        self, callbacks: Any, id: str | None = None, *, speed: float | None = None, max_gap: float | None = None,
        start: Place | None = None, until: Place | None = None, follow: bool = False,
    ) -> None:  # fmt: skip
        """`into` on an event loop."""
        listener = Into(callbacks)
        options = Options(speed, max_gap, start, until, follow)
        async for call in self._aplayed(id, options, listener.part, listener, raises=False):
            if (pending := call()) is not None:
                await settle(pending)

    def http_client(
        self, *, speed: float | None = None, max_gap: float | None = None, match_on: Sequence[str] | Same | None = None,
        ignore: Sequence[str] | None = None, allow_playback_repeats: bool = False, library: str = "httpx2",
    ) -> Any:  # fmt: skip
        """An HTTP client that answers from the recording: `openai.OpenAI(http_client=replay.http_client())`.

        A request gets the run that was recorded of the same one, in the order in which they were recorded, each once,
        and then the last one again if `allow_playback_repeats`. `match_on` says which fields must be the same,
        `ignore` which need not (docs/testing.md). A miss raises `NotRecorded`. `library` is "httpx2" or "httpx".
        """
        rules = Rules(match_on, ignore, allow_playback_repeats)
        return http_client(self._tape(rules, Options(speed, max_gap)), library)

    def http_async_client(
        self, *, speed: float | None = None, max_gap: float | None = None, match_on: Sequence[str] | Same | None = None,
        ignore: Sequence[str] | None = None, allow_playback_repeats: bool = False, library: str = "httpx2",
    ) -> Any:  # fmt: skip
        """`http_client` for the asynchronous SDKs: `openai.AsyncOpenAI(http_client=replay.http_async_client())`."""
        rules = Rules(match_on, ignore, allow_playback_repeats)
        return http_async_client(self._tape(rules, Options(speed, max_gap)), library)

    def model(
        self, like: Any = None, *, mode: str = "none", speed: float | None = None, max_gap: float | None = None,
        match_on: Sequence[str] | Same | None = None, ignore: Sequence[str] | None = None,
        allow_playback_repeats: bool = False, **settings: Any,
    ) -> Any:  # fmt: skip
        """A model that behaves as `like`, a model of `recorder.models` or its class, and answers from the recording.

        `mode` is vcrpy's: "none" only replays; "once" records what is asked if nothing was recorded before, else only
        replays; "new_episodes" replays what is there and records what is not; "all" records all. To record, it asks
        `like`. Without `like` it is like the newest run's model, and only what is said must be the same. `settings`
        are for the model; the others as with `http_client`. What was recorded is stored when this replay is closed.
        """
        from recorder.models.replayed import replayed

        rules = Rules(match_on, ignore, allow_playback_repeats)
        how = Options(speed, max_gap)
        return replayed(self, like, mode=mode, options=how, rules=rules, settings=settings)

    def messages(self, conversation_id: str) -> list[BaseMessage]:
        """What was said in a conversation, along its newest branch: to be sent on with the next question.

        The id is the whole one, for its beginning may be another's; of an unknown conversation nothing was said. A
        reply is there once its run is over; of a run whose process died there are only tokens. Raises `ConfigError`
        for what can be no conversation's id.
        """
        found: list[BaseMessage] = self._ask(Library.messages, conversation_id)
        return found

    async def amessages(self, conversation_id: str) -> list[BaseMessage]:
        """`messages` on an event loop."""
        return await asyncio.wrap_future(self.reader.ask(Library.messages, conversation_id))

    @property
    def is_new_file(self) -> bool:
        """Whether it names a file that is not there yet."""
        return is_new_file(self.url)

    @property
    def reader(self) -> Reader:
        """Who reads the database."""
        if self._closed:
            raise Closed("This replay is closed; make another one with Replay(url)")
        if self._held is None:
            self._held = shared(self.url)
        return self._held

    def runs(self, id: str | None = None) -> list[RecordedRun]:
        """The runs that would be played: the one, or those on a conversation's newest branch."""
        found = self._ask(Library.newest) if id is None else self._ask(Library.find, id)
        if found.kind == "run":
            return [self._ask(Library.run, found.id)]
        branch: Branch = self._ask(Library.newest_branch, found.id)
        if not branch.runs:
            raise NotFound(f"Conversation {found.id} has no runs yet; its messages are in `transcripts`.")
        return list(branch.runs)

    @property
    def closed(self) -> bool:
        """Whether it has let go of the database."""
        return self._closed

    def close(self) -> None:
        """Let go of the database; a second call does nothing."""
        if not self._closed:
            self._closed = True
            for close in self.closing:
                close()
            if self._held is not None:
                self._held.close()

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
        self.close()

    def __del__(self) -> None:
        # Perhaps on the reader's own thread, or in the middle of one of its methods: nothing is waited for.
        if not getattr(self, "_closed", True) and self._held is not None and not sys.is_finalizing():
            self._held.leave()

    def _tape(self, rules: Rules, options: Options) -> Tape:
        return Tape(self, Matcher(rules, how_to_record=HOW_TO_RECORD), options)

    def _ask(self, method: Any, *given: Any) -> Any:
        return self.reader.ask(method, *given).result()

    def _played(
        self, id: str | None, options: Options, part: Part, listener: Listener, *, raises: bool = True
    ) -> Iterator[Any]:
        play = whole(id, options, part, messages=isinstance(listener, Into))
        return drive(Driver(self.reader, play, listener, options, owner=self, raises=raises), play)

    def _aplayed(
        self, id: str | None, options: Options, part: Part, listener: Listener, *, raises: bool = True
    ) -> AsyncIterator[Any]:
        play = whole(id, options, part, messages=isinstance(listener, Into))
        return adrive(Driver(self.reader, play, listener, options, owner=self, raises=raises), play)
