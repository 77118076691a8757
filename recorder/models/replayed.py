"""A drop-in model that answers from a recording, and records what is not there yet: `Replay(url).model(...)`.

It is the model that it stands for, over an HTTP client that plays; so all that models do, it does. A model of one's
own has no HTTP: its recorded chunks are played.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping
from contextlib import aclosing
from functools import cache, partial
from importlib import import_module
from typing import Any

from recorder.core.clock import now
from recorder.errors import ConfigError, NotFound
from recorder.history import ChatHistoryCallback
from recorder.messages import AIMessageChunk
from recorder.models.azure import AzureChatOpenAI
from recorder.models.clients import Clients
from recorder.models.language_model import BaseLanguageModel
from recorder.models.sdk_model import SdkModel
from recorder.models.sdk_stream import require_request
from recorder.models.simple_model import SimpleChatModel
from recorder.replay.http.match import PAGE, Matcher, Rules
from recorder.replay.http.not_recorded import NotRecorded
from recorder.replay.http.response import RUN_HEADER
from recorder.replay.pace import Options
from recorder.replay.playback import Ask
from recorder.replay.queries import Asking, answered, answered_async
from recorder.storage.dialects import masked
from recorder.storage.reader import Library, RecordedRun
from recorder.storage.store import Empty
from recorder.wire.recorded import ANTHROPIC, COMPLETIONS

NONE, ONCE, NEW_EPISODES, ALL = MODES = ("none", "once", "new_episodes", "all")

_HOW_TO_RECORD = {
    NONE: 'To record it: replay.model(like=your_model, mode="new_episodes"), or pytest --record-mode=new_episodes.',
    ONCE: 'Something is recorded already, and mode "once" adds nothing to it. To record this too: '
    'mode="new_episodes", or pytest --record-mode=new_episodes.',
}
#: What the SDKs' clients need to be made, where nobody is called.
_NOBODY = "https://replayed.invalid"


def replayed(
    replay: Any, like: Any, *, mode: str, options: Options, rules: Rules, settings: Mapping[str, Any]
) -> Any:
    """A model like this one. Raises `ConfigError` for what cannot be."""
    if mode not in MODES:
        raise ConfigError(f"mode is {mode!r}; choose one of {', '.join(map(repr, MODES))}")
    if like is None:
        if mode != NONE:
            raise ConfigError(f"mode {mode!r} records, and needs a model to ask; pass it as like=")
        like, rules = _recorded_one(replay), _loosened(rules)
    model = like(**settings) if isinstance(like, type) else like.bind(**settings) if settings else like
    if not isinstance(model, (SdkModel, SimpleChatModel)):
        raise ConfigError(
            f"like is {like!r:.80}; pass a model of recorder.models or its class, a SimpleChatModel, or nothing"
        )
    session = Session(replay, mode, rules, options)
    found = object.__new__(_class_of(type(model)))
    found.__dict__.update(model.__dict__)
    found._session, found._real = session, model
    if isinstance(model, SdkModel):
        found._clients = _playing(model, replay, options)
    return found


class Recording:
    """What records into a database, from the first call on that is to be recorded.

    It knows no `Replay`, which holds it: a circle would be taken apart on any thread, the recorder's own for one,
    which cannot wait for itself.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._history: ChatHistoryCallback | None = None
        self._lock = threading.Lock()

    def history(self) -> ChatHistoryCallback:
        """The handler, made when it is needed: a recorder writes into its database just by being there."""
        with self._lock:
            if self._history is None:
                self._history = ChatHistoryCallback(self._url)
            return self._history

    def close(self) -> None:
        """Have stored all that was recorded."""
        with self._lock:
            history, self._history = self._history, None
        if history is not None:
            history.close().wait()


class Session:
    """What a replayed model and its copies share: what it was given, and what is recorded."""

    def __init__(self, replay: Any, mode: str, rules: Rules, options: Options) -> None:
        self.replay = replay
        self.options = options
        self._mode = mode
        # What is recorded from now on is for the next session, in which it is replayed in the same order.
        self._began = now()
        before = self._began if mode != NONE else None
        self._matcher = Matcher(rules, before=before, how_to_record=_HOW_TO_RECORD.get(mode, ""))
        self._recorded_before: bool | None = None
        self._recording = Recording(replay.url)
        replay.closing.append(self._recording.close)

    def run_for(self, call: Any) -> RecordedRun | None:
        """The run that answers; None for a call that is to be recorded. Raises `NotRecorded`, and what there is no
        request for."""
        require_request(call)
        if self._records_all():
            return None
        try:
            return answered(self.replay.reader, self._find(call))
        except Empty:
            self._nothing_yet()
            return None

    async def arun_for(self, call: Any) -> RecordedRun | None:
        """`run_for` on an event loop."""
        require_request(call)
        if self._records_all():
            return None
        try:
            return await answered_async(self.replay.reader, self._find(call))
        except Empty:
            self._nothing_yet()
            return None

    def record(self, call: Any) -> None:
        """Have a call recorded."""
        call.add_handler(self._recording.history())

    def _records_all(self) -> bool:
        if self.replay.is_new_file:
            self._nothing_yet()
            return True
        return self._mode == ALL or (self._mode == ONCE and self._recorded_before is False)

    def _nothing_yet(self) -> None:
        """There is no file, or nothing in it. Raises `NotRecorded` where nothing is to be recorded."""
        if self._mode == NONE:
            where = masked(self.replay.url)
            raise NotRecorded(
                f"No recorded run answers this request: nothing is recorded in {where} yet.\n{_HOW_TO_RECORD[NONE]}"
            )
        if self._recorded_before is None:
            self._recorded_before = False

    def _find(self, call: Any) -> Asking[RecordedRun | None]:
        if self._mode == ONCE and self._recorded_before is None:
            self._recorded_before = yield from self._was_recorded()
        if self._mode == ONCE and not self._recorded_before:
            return None
        try:
            return (yield from self._matcher.find(call.request.body, call.wire or ""))
        except NotRecorded:
            if self._mode != NEW_EPISODES:
                raise
            return None

    def _was_recorded(self) -> Asking[bool]:
        """Whether there was anything when the session began."""
        page: list[RecordedRun] = yield Ask(Library.latest, PAGE)
        while page:
            if page[-1].started_at < self._began:
                return True
            page = yield Ask(Library.latest, PAGE, page[-1])
        return False


class _Replayed(BaseLanguageModel[Any, Any]):
    """Comes before the class of a model: a call is answered from the recording, or by the real model and recorded."""

    _session: Session
    _real: Any

    def _played(self, call: Any, run: RecordedRun) -> Generator[Any, None, None]:
        call.request.body["extra_headers"] = _naming(call, run)
        return super()._chunks(call)  # type: ignore[safe-super]

    def _aplayed(self, call: Any, run: RecordedRun) -> AsyncGenerator[Any, None]:
        call.request.body["extra_headers"] = _naming(call, run)
        return super()._achunks(call)  # type: ignore[safe-super]

    def _chunks(self, call: Any) -> Generator[Any, None, None]:
        if (run := self._session.run_for(call)) is not None:
            yield from self._played(call, run)
            return
        self._session.record(call)
        yield from self._real._chunks(call)

    async def _achunks(self, call: Any) -> AsyncGenerator[Any, None]:
        if (run := await self._session.arun_for(call)) is not None:
            chunks = self._aplayed(call, run)
        else:
            await asyncio.to_thread(self._session.record, call)
            chunks = self._real._achunks(call)
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk


class _ReplayedSdk(_Replayed):
    def _drive(self, call: Any) -> None:
        if call.request.stream:
            super()._drive(call)
        elif (run := self._session.run_for(call)) is not None:
            call.request.body["extra_headers"] = _naming(call, run)
            super()._drive(call)
        else:
            self._session.record(call)
            self._real._drive(call)

    async def _adrive(self, call: Any) -> None:
        if call.request.stream:
            await super()._adrive(call)
        elif (run := await self._session.arun_for(call)) is not None:
            call.request.body["extra_headers"] = _naming(call, run)
            await super()._adrive(call)
        else:
            await asyncio.to_thread(self._session.record, call)
            await self._real._adrive(call)


class _ReplayedOwn(_Replayed):
    def _played(self, call: Any, run: RecordedRun) -> Generator[AIMessageChunk, None, None]:
        return self._chunks_of(call, self._pieces(run))  # type: ignore[attr-defined, no-any-return]  # of SimpleChatModel

    def _aplayed(self, call: Any, run: RecordedRun) -> AsyncGenerator[AIMessageChunk, None]:
        return self._achunks_of(call, self._apieces(run))  # type: ignore[attr-defined, no-any-return]

    def _pieces(self, run: RecordedRun) -> Iterator[AIMessageChunk]:
        how = self._session.options
        stream = self._session.replay.stream(run.id, speed=how.speed, max_gap=how.max_gap)
        yield from filter(_is_own, stream)

    async def _apieces(self, run: RecordedRun) -> AsyncGenerator[AIMessageChunk, None]:
        how = self._session.options
        stream = self._session.replay.astream(run.id, speed=how.speed, max_gap=how.max_gap)
        async with aclosing(stream):
            async for piece in stream:
                if _is_own(piece):
                    yield piece


#: What the run's row tells of an answer, and the model itself did not.
_OF_THE_ROW = ("model_name", "model_provider", "id")


def _is_own(piece: AIMessageChunk) -> bool:
    """A piece as the model gave it; not what is only the recording's."""
    piece.id = None
    said = {key: value for key, value in piece.response_metadata.items() if key not in _OF_THE_ROW}
    only_told = bool(piece.response_metadata) and not said and not piece.usage_metadata
    piece.response_metadata = said
    return bool(piece.content) or not only_told


@cache
def _class_of(kind: Any) -> Any:
    """The class of a model that answers from a recording, by the same name."""
    ours = _ReplayedSdk if issubclass(kind, SdkModel) else _ReplayedOwn
    about = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind.__name__, (ours, kind), about)


def _naming(call: Any, run: RecordedRun) -> dict[str, str]:
    """The headers of a request that this run is to answer."""
    return {**(call.request.body.get("extra_headers") or {}), RUN_HEADER: run.id}


def _playing(model: Any, replay: Any, options: Options) -> Clients:
    """The same SDK over HTTP clients that play."""
    how = {"speed": options.speed, "max_gap": options.max_gap}
    changed = partial(_without_secrets, azure=isinstance(model, AzureChatOpenAI))
    found: Clients = model._clients.over(replay.http_client(**how), replay.http_async_client(**how), changed)
    return found


def _without_secrets(options: Mapping[str, Any], *, azure: bool) -> dict[str, Any]:
    """Options without keys and tokens, and with what the SDK needs to be made."""
    kept = {key: value for key, value in options.items() if not key.startswith("azure_ad_token")}
    kept |= {"api_key": "replayed", "max_retries": 0}
    if azure:
        kept.setdefault("api_version", "replayed")
        if "base_url" not in kept:
            kept["azure_endpoint"] = _NOBODY
    return kept


def _loosened(rules: Rules) -> Rules:
    """Without a model to be like, what is said decides, and no option that nobody chose."""
    if not rules.is_exact:
        return rules
    return Rules(match_on=("system", "messages"), allow_playback_repeats=rules.allow_playback_repeats)


def _recorded_one(replay: Any) -> Any:
    """A model as the newest run's."""
    runs = replay.reader.ask(Library.latest, 1).result()
    if not runs:
        raise NotFound("Nothing is recorded yet, so there is no model to be like; pass one as like=")
    (run,) = runs
    homes = {ANTHROPIC: ("anthropic", "ChatAnthropic"), COMPLETIONS: ("completions", "OpenAI")}
    module, name = homes.get(run.wire or "", ("openai", "ChatOpenAI"))
    if run.provider_name == AzureChatOpenAI.provider_name:
        module, name = "azure", "AzureChatOpenAI"
    kind = getattr(import_module(f"recorder.models.{module}"), name)
    return kind(model=run.request_model) if run.request_model else kind()
