"""`with_structured_output`: a model whose answers are values of a schema. LangChain's arguments and results."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping
from typing import Any

from recorder.callbacks import handlers_from
from recorder.core.owned_generator import Owned
from recorder.errors import ConfigError
from recorder.messages import AIMessage, AIMessageChunk
from recorder.models.call_config import merge_configs
from recorder.models.json_schemas import is_pydantic_class
from recorder.models.output_parsers import (
    CompleteJsonParser,
    JsonModeParser,
    JsonParser,
    OutputParser,
    ToolCallParser,
)
from recorder.models.runnable import Runnable

#: LangChain's methods.
FUNCTION_CALLING, JSON_MODE, JSON_SCHEMA = METHODS = ("function_calling", "json_mode", "json_schema")


class StructuredOutput(Runnable):
    """A model and a parser of its answers. The run of the model is recorded as any other.

    With `include_raw` the result is a dict: `raw` is the answer, `parsed` is the value or None, and `parsing_error` is
    the error or None. Without it, the result is the value, and a parsing error is raised.
    """

    def __init__(self, model: Any, parser: OutputParser, *, include_raw: bool) -> None:
        self._model = model
        self._parser = parser
        self._include_raw = include_raw

    def invoke(self, input: Any, config: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Return the value, or with `include_raw` the dict."""
        return self._result(self._model.invoke(input, self._merged(config), **options))

    async def ainvoke(self, input: Any, config: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """`invoke` on an event loop."""
        return self._result(await self._model.ainvoke(input, self._merged(config), **options))

    def stream(
        self, input: Any, config: Mapping[str, Any] | None = None, **options: Any
    ) -> Generator[Any, None, None]:
        """Yield the value as it grows: each one has everything that arrived before.

        With `include_raw` yield `{"raw": chunk}` for each chunk, and at the end `parsed` and `parsing_error`.
        """
        growth = _Growth(self._parser, include_raw=self._include_raw)
        chunks = self._model.stream(input, self._merged(config), **options)
        try:
            for chunk in chunks:
                yield from growth.items(chunk)
        finally:
            chunks.close()
        yield from growth.last_items()

    async def astream(
        self, input: Any, config: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncGenerator[Any, None]:
        """`stream` on an event loop."""
        growth = _Growth(self._parser, include_raw=self._include_raw)
        async with Owned(self._model.astream(input, self._merged(config), **options)) as chunks:
            async for chunk in chunks:
                for item in growth.items(chunk):
                    yield item
        for item in growth.last_items():
            yield item

    def attached_handlers(self) -> list[Any]:
        """The handlers of every call of the model."""
        return handlers_from([*super().attached_handlers(), *self._model.attached_handlers()])

    def _merged(self, config: Mapping[str, Any] | None) -> dict[str, Any]:
        return merge_configs(self._config, config or {})

    def _result(self, message: AIMessage) -> Any:
        if not self._include_raw:
            return self._parser.parse(message)
        return {"raw": message, **parsed_or_error(self._parser, message)}


class _Growth:
    """The items of a stream: the value so far, after each chunk that changed it."""

    def __init__(self, parser: OutputParser, *, include_raw: bool) -> None:
        self._parser = parser
        self._include_raw = include_raw
        self._sum: AIMessageChunk | None = None
        #: The last value that was yielded.
        self._value: Any = None

    def items(self, chunk: AIMessageChunk) -> Generator[Any, None, None]:
        """The items for this chunk."""
        self._sum = chunk if self._sum is None else self._sum + chunk
        if self._include_raw:
            yield {"raw": chunk}
        else:
            yield from self._new(self._parser.parse_partial(self._sum))

    def last_items(self) -> Generator[Any, None, None]:
        """The items after the last chunk. Raises the parsing error."""
        message = (self._sum or AIMessageChunk("")).to_message()
        if not self._include_raw:
            yield from self._new(self._parser.parse(message))
            return
        for key, value in parsed_or_error(self._parser, message).items():
            yield {key: value}

    def _new(self, value: Any) -> Generator[Any, None, None]:
        if value is not None and value != self._value:
            self._value = value
            yield value


def parsed_or_error(parser: OutputParser, message: AIMessage) -> dict[str, Any]:
    """LangChain's keys `parsed` and `parsing_error`. One of the two values is None."""
    try:
        return {"parsed": parser.parse(message), "parsing_error": None}
    except Exception as error:
        return {"parsed": None, "parsing_error": error}


def check_method(method: str, schema: Any, methods: tuple[str, ...] = METHODS) -> None:
    """Raise `ConfigError` for an unknown method, and for a method that needs a schema without one."""
    if method not in methods:
        raise ConfigError(f"method is {method!r}; choose one of {', '.join(map(repr, methods))}")
    if schema is None and method != JSON_MODE:
        raise ConfigError(
            f"method {method!r} needs a schema; pass a Pydantic class, a TypedDict or a JSON schema"
        )


def text_parser(method: str, schema: Any) -> OutputParser:
    """The parser of a text that is JSON. With a Pydantic class the value is one of its objects, else a dict."""
    if not is_pydantic_class(schema):
        return JsonParser()
    return JsonModeParser(schema) if method == JSON_MODE else CompleteJsonParser(schema)


def tool_parser(name: str, schema: Any, *, missing: str = "") -> OutputParser:
    """The parser of a call of this tool. `missing` is the error if there is no call."""
    return ToolCallParser(name, schema if is_pydantic_class(schema) else None, missing=missing)
