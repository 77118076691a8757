"""`Replay(url).model(...)`: a model that answers from a recording, and can record new requests.

Its class is a subclass of the original model's class, so it has the same methods. A model over an SDK gets HTTP
clients that replay recorded responses. A `SimpleChatModel` has no HTTP, so its recorded chunks are replayed.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping
from functools import cache, partial
from importlib import import_module
from typing import Any

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.core.clock import now
from recorder.core.collection import collection
from recorder.core.own_thread import on_own_thread
from recorder.core.owned_generator import Owned
from recorder.errors import ConfigError, NotFound
from recorder.messages import AIMessageChunk
from recorder.models.azure import AzureChatOpenAI
from recorder.models.clients import Clients
from recorder.models.language_model import BaseLanguageModel
from recorder.models.sdk_model import SdkModel
from recorder.models.simple_model import SimpleChatModel
from recorder.replay.http.match import PAGE, Matcher, Rules
from recorder.replay.http.not_recorded import NotRecorded
from recorder.replay.http.response import RUN_HEADER
from recorder.replay.pace import Options
from recorder.replay.playback import QueryStep
from recorder.replay.queries import Queries, run_queries, run_queries_async
from recorder.runs.sdk_stream import require_request
from recorder.storage.reader import DatabaseReader, RecordedRun
from recorder.storage.store_interface import Empty
from recorder.wire.recorded_run import ANTHROPIC, COMPLETIONS, RESPONSES

NONE, ONCE, NEW_EPISODES, ALL = MODES = ("none", "once", "new_episodes", "all")

_HOW_TO_RECORD = {
    NONE: 'To record it: replay.model(like=your_model, mode="new_episodes"), or pytest --record-mode=new_episodes.',
    ONCE: 'There are recorded runs already, so mode "once" records no new ones. To record this request too: '
    'mode="new_episodes", or pytest --record-mode=new_episodes.',
}
#: Azure's client needs an endpoint, although no request is sent.
_NO_HOST = "https://replayed.invalid"
#: The host of a replayed run.
_REPLAYED = "replayed"


def replayed(
    replay: Any, like: Any, *, mode: str, options: Options, rules: Rules, settings: Mapping[str, Any]
) -> Any:
    """A copy of the model `like` that answers from the recording. Without `like`, of the model of the newest run.

    Raises `ConfigError` for an unknown mode or model, and `NotFound` if there is no `like` and no recorded run.
    """
    check_mode(mode, like)
    if like is None:
        like, rules = _model_of_newest_run(replay), relaxed(rules)
    model = _original(like, settings)
    copy = object.__new__(_class_of(type(model)))
    copy.__dict__.update(model.__dict__)
    copy._session, copy._real = ReplaySession(replay, mode, rules, options), model
    if isinstance(model, SdkModel):
        copy._clients = _replaying_clients(model, replay, options)
    return copy


def check_mode(mode: str, like: Any) -> None:
    """Raise `ConfigError` for an unknown mode, and for one that records without a model that answers."""
    if mode not in MODES:
        raise ConfigError(f"mode is {mode!r}; choose one of {', '.join(map(repr, MODES))}")
    if like is None and mode != NONE:
        raise ConfigError(f"mode {mode!r} records, so it needs a model that answers; pass it as like=")


def _original(like: Any, settings: Mapping[str, Any]) -> SdkModel[Any, Any] | SimpleChatModel:
    """The model `like` with these settings. Raises `ConfigError` if it is no model that can be replayed."""
    model = like(**settings) if isinstance(like, type) else like.bind(**settings) if settings else like
    if not isinstance(model, (SdkModel, SimpleChatModel)):
        raise ConfigError(
            f"like is {like!r:.80}; pass a model of recorder.models or its class, a SimpleChatModel, or None"
        )
    return model


class Recording:
    """The handler that records runs into a database. It is made for the first run that is recorded.

    It has no reference to the `Replay`, which refers to it. The garbage collector could break such a cycle on any
    thread, also on the recorder's own, which cannot wait for itself.
    """

    def __init__(self, url: str, make: Callable[[str], ChatHistoryCallback]) -> None:
        self._url = url
        self._make = make
        self._history: ChatHistoryCallback | None = None
        # Reentrant, because the garbage collector may close a replay while the handler is made.
        self._lock = threading.RLock()

    def history(self) -> ChatHistoryCallback:
        """The handler. It is made at first use, because a new recorder writes into its database at once."""
        with self._lock:
            if self._history is None:
                self._history = self._make(self._url)
            return self._history

    def close(self) -> None:
        """Wait until all recorded runs are stored. In the garbage collector, they are stored later."""
        if collection.runs_here:
            if self._history is not None:
                self._history.close()
            return
        with self._lock:
            history, self._history = self._history, None
        if history is not None:
            history.close().wait()


class ReplaySession:
    """The state that a replayed model and its copies share: which runs were replayed, and the recording handler."""

    def __init__(
        self, replay: Any, mode: str, rules: Rules, options: Options,
        make: Callable[..., ChatHistoryCallback] = ChatHistoryCallback,
    ) -> None:  # fmt: skip
        """`make` makes the recording handler for a URL."""
        self.replay = replay
        self.options = options
        self._mode = mode
        # Runs that are recorded from now on are replayed in the next session, in the same order.
        self._started_at = now()
        before = self._started_at if mode != NONE else None
        how, redaction = _HOW_TO_RECORD.get(mode, ""), replay.redaction
        self._matcher = Matcher(rules, before=before, how_to_record=how, redaction=redaction)
        self._recorded_before: bool | None = None
        make = make if redaction is None else partial(make, redact=redaction)
        self._recording = Recording(replay.url, make)
        replay.closing.append(self._recording.close)

    def recorded_run_for(self, run: Any) -> RecordedRun | None:
        """The recorded run that answers this run, or None if this run is to be recorded.

        Raises `NotRecorded`, and the request's error if no request could be made.
        """
        require_request(run)
        if self._records_all():
            return None
        try:
            return run_queries(self.replay.reader, self._find(run))
        except Empty:
            self._note_nothing_recorded()
            return None

    async def arecorded_run_for(self, run: Any) -> RecordedRun | None:
        """`recorded_run_for` on an event loop."""
        require_request(run)
        if self._records_all():
            return None
        try:
            return await run_queries_async(self.replay.reader, self._find(run))
        except Empty:
            self._note_nothing_recorded()
            return None

    def record(self, run: Any) -> None:
        """Record this run."""
        run.add_handler(self.history())

    def history(self) -> ChatHistoryCallback:
        """The recording handler."""
        return self._recording.history()

    def _records_all(self) -> bool:
        if self.replay.is_new_file:
            self._note_nothing_recorded()
            return True
        return self._mode == ALL or (self._mode == ONCE and self._recorded_before is False)

    def _note_nothing_recorded(self) -> None:
        """Remember that nothing is recorded yet. Raises `NotRecorded` in mode "none"."""
        if self._mode == NONE:
            raise NotRecorded(
                f"No recorded run answers this request: nothing is recorded in {self.replay.name} yet.\n"
                f"{_HOW_TO_RECORD[NONE]}"
            )
        if self._recorded_before is None:
            self._recorded_before = False

    def _find(self, run: Any) -> Queries[RecordedRun | None]:
        if self._mode == ONCE and self._recorded_before is None:
            self._recorded_before = yield from self._was_recorded()
        if self._mode == ONCE and not self._recorded_before:
            return None
        try:
            return (yield from self._matcher.find(run.request.body, run.wire or ""))
        except NotRecorded:
            if self._mode != NEW_EPISODES:
                raise
            return None

    def _was_recorded(self) -> Queries[bool]:
        """Whether there was a recorded run when the session started."""
        page: list[RecordedRun] = yield QueryStep(DatabaseReader.latest, PAGE)
        while page:
            if page[-1].started_at < self._started_at:
                return True
            page = yield QueryStep(DatabaseReader.latest, PAGE, page[-1])
        return False


class _Replayed(BaseLanguageModel[Any, Any]):
    """A mixin before the class of a model. It replays a run from the recording; or lets the model run, and records."""

    _session: ReplaySession
    _real: Any

    def _replay_chunks(self, run: Any, recorded: RecordedRun) -> Generator[Any, None, None]:
        _answer_with(run, recorded)
        return super()._chunks(run)  # type: ignore[safe-super]

    def _areplay_chunks(self, run: Any, recorded: RecordedRun) -> AsyncGenerator[Any, None]:
        _answer_with(run, recorded)
        return super()._achunks(run)  # type: ignore[safe-super]

    def _chunks(self, run: Any) -> Generator[Any, None, None]:
        if (recorded := self._session.recorded_run_for(run)) is not None:
            yield from self._replay_chunks(run, recorded)
            return
        self._session.record(run)
        yield from self._real._chunks(run)

    async def _achunks(self, run: Any) -> AsyncGenerator[Any, None]:
        if (recorded := await self._session.arecorded_run_for(run)) is not None:
            chunks = self._areplay_chunks(run, recorded)
        else:
            await on_own_thread(partial(self._session.record, run))
            chunks = self._real._achunks(run)
        async with Owned(chunks) as owned:
            async for chunk in owned:
                yield chunk


class _ReplayedSdk(_Replayed):
    def _drive(self, run: Any) -> None:
        if run.request.stream:
            super()._drive(run)
        elif (recorded := self._session.recorded_run_for(run)) is not None:
            _answer_with(run, recorded)
            super()._drive(run)
        else:
            self._session.record(run)
            self._real._drive(run)

    async def _adrive(self, run: Any) -> None:
        if run.request.stream:
            await super()._adrive(run)
        elif (recorded := await self._session.arecorded_run_for(run)) is not None:
            _answer_with(run, recorded)
            await super()._adrive(run)
        else:
            await on_own_thread(partial(self._session.record, run))
            await self._real._adrive(run)


class _ReplayedSimple(_Replayed):
    def _replay_chunks(self, run: Any, recorded: RecordedRun) -> Generator[AIMessageChunk, None, None]:
        # `_chunks_of` is a method of SimpleChatModel.
        return self._chunks_of(run, self._recorded_pieces(recorded))  # type: ignore[attr-defined, no-any-return]

    def _areplay_chunks(self, run: Any, recorded: RecordedRun) -> AsyncGenerator[AIMessageChunk, None]:
        return self._achunks_of(run, self._arecorded_pieces(recorded))  # type: ignore[attr-defined, no-any-return]

    def _recorded_pieces(self, recorded: RecordedRun) -> Iterator[AIMessageChunk]:
        options = self._session.options
        stream = self._session.replay.stream(recorded.id, speed=options.speed, max_gap=options.max_gap)
        yield from filter(_restore, stream)

    async def _arecorded_pieces(self, recorded: RecordedRun) -> AsyncGenerator[AIMessageChunk, None]:
        options = self._session.options
        stream = self._session.replay.astream(recorded.id, speed=options.speed, max_gap=options.max_gap)
        async with Owned(stream) as owned:
            async for piece in owned:
                if _restore(piece):
                    yield piece


#: Keys of `response_metadata` that `Replay.stream` adds from the row of the run.
_ROW_METADATA = ("model_name", "model_provider", "id")


def _restore(piece: AIMessageChunk) -> bool:
    """Remove what the recording added to a piece. False if the piece holds nothing else."""
    piece.id = None
    metadata = {key: value for key, value in piece.response_metadata.items() if key not in _ROW_METADATA}
    was_added = bool(piece.response_metadata) and not metadata and not piece.usage_metadata
    piece.response_metadata = metadata
    return bool(piece.content) or not was_added


@cache
def _class_of(kind: Any) -> Any:
    """The subclass of a model's class that answers from a recording. It has the same name."""
    mixin = _ReplayedSdk if issubclass(kind, SdkModel) else _ReplayedSimple
    attributes = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind.__name__, (mixin, kind), attributes)


def _headers_naming(run: Any, recorded: RecordedRun) -> dict[str, str]:
    """The extra headers of a request, with the id of the recorded run that answers it."""
    return {**(run.request.body.get("extra_headers") or {}), RUN_HEADER: recorded.id}


def _replaying_clients(model: Any, replay: Any, options: Options) -> Clients:
    """The model's SDK clients over HTTP clients that replay recorded responses."""
    pace = {"speed": options.speed, "max_gap": options.max_gap}
    changed = partial(_without_secrets, azure=isinstance(model, AzureChatOpenAI))
    clients: Clients = model._clients.with_http_clients(
        replay.http_client(**pace), replay.http_async_client(**pace), changed
    )
    return clients


def _without_secrets(options: Mapping[str, Any], *, azure: bool) -> dict[str, Any]:
    """The options of an SDK client without keys and tokens, with placeholders where the SDK requires a value."""
    found = {key: value for key, value in options.items() if not key.startswith("azure_ad_token")}
    found |= {"api_key": "replayed", "max_retries": 0}
    if azure:
        found.setdefault("api_version", "replayed")
        if "base_url" not in found:
            found["azure_endpoint"] = _NO_HOST
    return found


def _answer_with(run: Any, recorded: RecordedRun) -> None:
    """Let the replay answer this run. It costs nothing, so its host is none that has a price."""
    run.request.body["extra_headers"] = _headers_naming(run, recorded)
    run.request = dataclasses.replace(run.request, host=_REPLAYED)


def relaxed(rules: Rules) -> Rules:
    """The rules without `like`: only the messages must match, unless the user chose rules. The options are unknown."""
    if not rules.is_exact:
        return rules
    return Rules(match_on=("system", "messages"), allow_playback_repeats=rules.allow_playback_repeats)


def _model_of_newest_run(replay: Any) -> Any:
    """A model of the class and the name that the newest run has."""
    runs = replay.reader.ask(DatabaseReader.latest, 1).result()
    if not runs:
        raise NotFound("Nothing is recorded yet, so the model is unknown; pass a model as like=")
    (recorded,) = runs
    homes = {ANTHROPIC: ("anthropic", "ChatAnthropic"), COMPLETIONS: ("completions", "OpenAI")}
    settings: dict[str, Any] = {"use_responses_api": True} if recorded.wire == RESPONSES else {}
    module, name = homes.get(recorded.wire or "", ("openai", "ChatOpenAI"))
    if recorded.provider_name == AzureChatOpenAI.provider_name:
        module, name = "azure", "AzureChatOpenAI"
    kind = getattr(import_module(f"recorder.models.{module}"), name)
    return kind(**({"model": recorded.request_model} if recorded.request_model else {}), **settings)
