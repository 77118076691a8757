"""Reads the structured output in an answer: from a tool call, or from JSON in the text."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from recorder.errors import ModelRefusalError, OutputParserException
from recorder.messages import AIMessage
from recorder.redaction.credentials import shown

#: Finish reasons of an answer that the model refused, or that a filter stopped.
_REFUSED = ("content_filter", "refusal")
#: A text with a block of code: an optional name of the language, then the code.
_FENCE = re.compile(r"```(?:json)?(.*?)(?:```|$)", re.DOTALL)
#: What models write around JSON.
_AROUND = " \n\r\t`"


class OutputParser(ABC):
    """Reads the value in a message. `schema` is a Pydantic class that checks it; None for no check."""

    def __init__(self, schema: Any = None) -> None:
        self._schema = schema

    def parse(self, message: AIMessage) -> Any:
        """The value; None if the model did not call the tool, or called another one in place of answering.

        Raises `OutputParserException` for text or arguments that are not JSON, `ModelRefusalError` if the model
        refused, and Pydantic's `ValidationError` for a value that the class refuses.
        """
        raise_if_refused(message)
        return self._complete(message)

    def parse_partial(self, message: AIMessage) -> Any:
        """The value in the part of an answer that has arrived. None if there is none yet. Raises nothing."""
        value = self._partial(message)
        if value is None or self._schema is None:
            return value
        try:
            return self._checked(value)
        except ValueError:
            return None

    @abstractmethod
    def _complete(self, message: AIMessage) -> Any:
        """The value in a complete message."""

    @abstractmethod
    def _partial(self, message: AIMessage) -> Any:
        """The value so far, unchecked."""

    def _checked(self, value: Any) -> Any:
        return value if self._schema is None else self._schema.model_validate(value)


class ToolCallParser(OutputParser):
    """Reads the arguments of the first call of one tool."""

    def __init__(self, tool_name: str, schema: Any = None, *, missing: str = "") -> None:
        super().__init__(schema)
        self._name = tool_name
        #: Why it is an error if there is no call. Empty, if it is none.
        self._missing = missing

    def _complete(self, message: AIMessage) -> Any:
        if (value := self._partial(message)) is not None:
            return self._checked(value)
        broken = [call["args"] for call in message.invalid_tool_calls if call["name"] == self._name]
        if broken:
            text = broken[0] or ""
            raise OutputParserException(
                f"The arguments of the call of {self._name} are not a JSON object: {shown(text)}{_advice(message)}",
                text,
            )
        if self._missing:
            raise OutputParserException(self._missing, message.text)
        return None

    def _partial(self, message: AIMessage) -> Any:
        return next((call["args"] for call in message.tool_calls if call["name"] == self._name), None)


class JsonParser(OutputParser):
    """Reads JSON in the text of an answer, also in a block of code."""

    def _complete(self, message: AIMessage) -> Any:
        text = message.text
        if message.tool_calls and not text.strip():
            return None
        try:
            value = json.loads(_without_fence(text), strict=False)
        except ValueError as error:
            raise OutputParserException(
                f"The answer is not JSON: {shown(text)}{_advice(message)}", text
            ) from error
        return self._checked_text(value, text)

    def _partial(self, message: AIMessage) -> Any:
        from pydantic_core import from_json

        try:
            return from_json(_without_fence(message.text), allow_partial="trailing-strings")
        except ValueError:
            return None

    def _checked_text(self, value: Any, text: str) -> Any:
        return self._checked(value)


class JsonModeParser(JsonParser):
    """`JsonParser` for answers that no schema constrained: a value that the class refuses is a parsing error."""

    def _checked_text(self, value: Any, text: str) -> Any:
        try:
            return self._checked(value)
        except ValueError as error:
            raise OutputParserException(
                f"The answer is no {self._schema.__name__}: {shown(text)}. {error}", text
            ) from error


class CompleteJsonParser(JsonParser):
    """`JsonParser` that reads nothing in a part of an answer."""

    def _partial(self, message: AIMessage) -> Any:
        return None


def raise_if_refused(message: AIMessage) -> None:
    """Raise `ModelRefusalError` if the model refused to answer, or if a filter stopped the answer."""
    if refusal := message.additional_kwargs.get("refusal"):
        raise ModelRefusalError(str(refusal), message)
    if (reason := _reason(message)) in _REFUSED:
        raise ModelRefusalError(f"The model's answer was stopped: {reason}", message)


def _reason(message: AIMessage) -> Any:
    """Why the answer ended, in the words of the provider."""
    metadata = message.response_metadata
    details = metadata.get("incomplete_details")
    incomplete = details.get("reason") if isinstance(details, Mapping) else None
    return incomplete or metadata.get("finish_reason") or metadata.get("stop_reason")


def _advice(message: AIMessage) -> str:
    """The next step for an answer that was cut off, at the end of an error message."""
    if _reason(message) in ("length", "max_tokens", "max_output_tokens"):
        return "; it was cut off at the limit of tokens, so allow more of them"
    return ""


def _without_fence(text: str) -> str:
    """The JSON in a text: the block of code if there is one, else all of it."""
    if (found := _FENCE.search(text)) and not text.lstrip().startswith(("{", "[")):
        text = found[1]
    return text.strip(_AROUND)
