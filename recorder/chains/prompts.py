"""The base class of prompts: variables in, a prompt value out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Self

from recorder.chains.sequence import Pipeable
from recorder.chains.steps import ChainStep, PromptStep
from recorder.chains.template_text import missing_variables
from recorder.errors import ConfigError
from recorder.messages import BaseMessage

#: The name that chains use for the stop sequences of a call.
_STOP = "stop"


class BasePromptTemplate(Pipeable):
    """A prompt with variables. `invoke` takes a dict of their values, or the value itself if there is one variable.

    `partial_variables` have a value already: a value, or a function that is called for each use. Values for other names
    are ignored, as in LangChain. Raises `ConfigError` for a template that is not valid, and for a missing value.
    """

    #: The variables without a value, in alphabetical order.
    input_variables: list[str]
    partial_variables: dict[str, Any]

    @abstractmethod
    def format_prompt(self, **values: Any) -> Any:
        """The prompt value with these values."""

    def format(self, **values: Any) -> str:
        """The prompt as one text."""
        text: str = self.format_prompt(**values).to_string()
        return text

    def format_messages(self, **values: Any) -> list[BaseMessage]:
        """The prompt as messages."""
        messages: list[BaseMessage] = self.format_prompt(**values).to_messages()
        return messages

    async def aformat_prompt(self, **values: Any) -> Any:
        """`format_prompt` on an event loop."""
        return self.format_prompt(**values)

    async def aformat(self, **values: Any) -> str:
        """`format` on an event loop."""
        return self.format(**values)

    async def aformat_messages(self, **values: Any) -> list[BaseMessage]:
        """`format_messages` on an event loop."""
        return self.format_messages(**values)

    def partial(self, **values: Any) -> Self:
        """The same prompt with values for some of its variables: values, or functions."""
        known = {**self.partial_variables, **values}
        left = [name for name in self.input_variables if name not in values]
        return self._copy(partial_variables=known, input_variables=left)

    def invoke(self, input: Any, config: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """The prompt value. `config` is ignored: filling a template is no run."""
        return self.format_prompt(**self._values(input))

    async def ainvoke(self, input: Any, config: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """`invoke` on an event loop."""
        return self.invoke(input)

    def stream(self, input: Any, config: Mapping[str, Any] | None = None, **options: Any) -> Iterator[Any]:
        """Yield the prompt value."""
        yield self.invoke(input)

    async def astream(
        self, input: Any, config: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncIterator[Any]:
        """`stream` on an event loop."""
        yield self.invoke(input)

    # -- inside -------------------------------------------------------------------------------------------------

    def _step(self) -> ChainStep:
        return PromptStep(self)

    def _set_variables(self, names: list[str], partial_variables: Mapping[str, Any] | None) -> None:
        self.partial_variables = dict(partial_variables or {})
        self.input_variables = [name for name in names if name not in self.partial_variables]
        if _STOP in names:
            raise ConfigError(
                "A variable of a prompt cannot be named 'stop', because a chain passes stop sequences under this name; "
                "rename it"
            )

    def _all_values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The given values and the partial ones. Raises `ConfigError` for a missing one."""
        if missing := [name for name in self.input_variables if name not in values]:
            raise missing_variables(missing, values)
        known = {
            name: value() if callable(value) else value for name, value in self.partial_variables.items()
        }
        return {**known, **values}

    def _values(self, input: Any) -> dict[str, Any]:
        if isinstance(input, Mapping):
            return dict(input)
        if len(self.input_variables) == 1:
            return {self.input_variables[0]: input}
        raise ConfigError(
            f"{type(self).__name__} has the variables {self.input_variables}, and got {type(input).__name__}; "
            "pass a dict with a value for each"
        )


def check_format(template_format: str) -> None:
    """Raise `ConfigError` for a format of templates that is not supported."""
    if template_format != "f-string":
        raise ConfigError(
            f"template_format is {template_format!r}; recorder has 'f-string' only: fill other templates yourself, and "
            "pass the text"
        )
