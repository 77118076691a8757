"""`ReplayChatModel`: a chat model of LangChain that answers from a recording."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from copy import copy
from types import TracebackType
from typing import Any, Self

from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import PrivateAttr

from recorder.config import default_url
from recorder.errors import ConfigError
from recorder.integrations.langchain.framework import BaseChatModel
from recorder.integrations.langchain.recorded_answers import RecordedAnswers, newest_run
from recorder.models.replayed_model import NONE, check_mode
from recorder.replay import Replay
from recorder.replay.http.match import Rules
from recorder.replay.pace import Options


class ReplayChatModel(BaseChatModel):
    """Answers LangChain's requests from the recording at this URL.

    `like` is a chat model of LangChain. With it a request is answered by a run of the same request, and what is not
    recorded can be recorded. Without it only the messages must be the same. `mode` is vcrpy's: "none" only replays;
    "once" records if the database was empty before, else only replays; "new_episodes" replays recorded requests and
    records new ones; "all" records every request. To record, it calls `like`. `speed` 1.0 answers at the recorded
    speed, None at once; `max_gap` shortens pauses (seconds). `match_on`, `ignore` and `allow_playback_repeats` are
    those of `Replay.model`. Other arguments are fields of `like`.

    A request without a recorded run raises `NotRecorded`; a recorded error is raised again. `close` waits until all
    that was recorded is stored. Raises `ConfigError` for invalid arguments.
    """

    url: str
    like: Any = None
    mode: str = NONE
    speed: float | None = None
    max_gap: float | None = None
    match_on: Any = None
    ignore: Any = None
    allow_playback_repeats: bool = False
    redact: Any = ()

    _replay: Replay = PrivateAttr()
    _answers: RecordedAnswers = PrivateAttr()
    _copy: Any = PrivateAttr()

    def __init__(self, url: str | None = None, **options: Any) -> None:
        names = ReplayChatModel.model_fields
        given = {name: options[name] for name in options if name in names}
        settings = {name: options[name] for name in options if name not in names}
        like = given["like"] = _with_settings(given.get("like"), settings)
        check_mode(given.get("mode", NONE), like)
        given["url"] = url or default_url()
        super().__init__(**given)
        rules = Rules(self.match_on, self.ignore, self.allow_playback_repeats)
        self._replay = Replay(self.url, redact=self.redact)
        self._answers = RecordedAnswers(
            self._replay, like, self.mode, rules, Options(self.speed, self.max_gap)
        )
        self._copy = None if like is None else _copy_that_replays(like, self._answers)

    # -- LangChain's side -----------------------------------------------------------------------------------------

    def _generate(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        return self._answers.generate(messages, stop, kwargs)

    async def _agenerate(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        return await self._answers.agenerate(messages, stop, kwargs)

    def _stream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in self._answers.stream(messages, stop, kwargs):
            if run_manager is not None:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        async for chunk in self._answers.astream(messages, stop, kwargs):
            if run_manager is not None:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    def bind_tools(self, tools: Sequence[Any], *, tool_choice: Any = None, **kwargs: Any) -> Any:
        """The model with these tools, as `like` sends them."""
        given = kwargs if tool_choice is None else {**kwargs, "tool_choice": tool_choice}
        if self._copy is not None:
            return self.bind(**self._copy.bind_tools(tools, **given).kwargs)
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **given)

    def with_structured_output(self, schema: Any, **kwargs: Any) -> Any:
        """The model with answers of this schema, as `like` requests them."""
        if self._copy is not None:
            return self._copy.with_structured_output(schema, **kwargs)
        return super().with_structured_output(schema, **kwargs)

    @property
    def _llm_type(self) -> str:
        return "recorder-replay"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        if self._copy is not None:
            return self._copy._get_ls_params(stop=stop, **kwargs)
        run = newest_run(self._replay)
        model = kwargs.get("model") or (run.request_model if run is not None else None)
        found = super()._get_ls_params(stop=stop, **kwargs)
        provider = run.provider_name if run is not None else None
        return {**found, "ls_provider": provider or "recorder", "ls_model_name": model or "recorded"}

    # -- the end --------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Wait until all that was recorded is stored, and close the recording."""
        self._replay.close()

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
        await self._replay.__aexit__(kind, error, trace)


def _with_settings(like: Any, settings: dict[str, Any]) -> Any:
    """A model with these fields. Raises `ConfigError` for what is no model of LangChain, or no field of it."""
    if like is not None and not isinstance(like, BaseChatModel):
        raise ConfigError(f"like is {like!r:.80}; pass a chat model of LangChain, or None")
    if not settings:
        return like
    fields: dict[str, Any] = {} if like is None else type(like).model_fields
    names = {field.alias or name: name for name, field in fields.items()} | {name: name for name in fields}
    if unknown := [name for name in settings if name not in names]:
        raise ConfigError(
            f"{unknown[0]!r} is no option of ReplayChatModel and no field of like ({like!r:.40})"
        )
    model: Any = like
    return model.model_copy(update={names[name]: value for name, value in settings.items()})


def _copy_that_replays(like: Any, answers: RecordedAnswers) -> Any:
    """A copy of a model that answers from the recording; the rest, as its tools and schemas, is the model's own."""
    found = copy(like)
    kind = _class_of(type(like), answers)
    object.__setattr__(found, "__class__", kind)
    return found


def _class_of(kind: Any, answers: RecordedAnswers) -> Any:
    """A subclass of a model's class, with the methods above that make answers."""
    methods: dict[str, Callable[..., Any]] = {
        name: getattr(ReplayChatModel, name) for name in ("_generate", "_agenerate", "_stream", "_astream")
    }
    found = type(kind.__name__, (kind,), {"__module__": kind.__module__, "__doc__": kind.__doc__, **methods})
    found._answers = answers  # type: ignore[attr-defined]
    return found
