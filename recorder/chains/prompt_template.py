"""`PromptTemplate`: a text with `{variables}`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from recorder.chains.prompt_values import StringPromptValue
from recorder.chains.prompts import BasePromptTemplate, check_format
from recorder.chains.template_text import TemplateText
from recorder.errors import ConfigError


class PromptTemplate(BasePromptTemplate):
    """A prompt that is one text: `PromptTemplate.from_template("Write a song about {topic}.")`.

    `{name}`, `{name!r}` and `{name:>10}` are fields, as in Python's format strings; `{{` and `}}` are braces.
    Attributes and indexes (`{a.b}`, `{a[0]}`) are refused, because a template may come from a user. The variables are
    read in the template; `input_variables` is compared with them if `validate_template` is set, and else ignored, as in
    LangChain.
    """

    def __init__(
        self, template: str, *, input_variables: Sequence[str] | None = None,
        partial_variables: Mapping[str, Any] | None = None, template_format: str = "f-string",
        validate_template: bool = False,
    ) -> None:  # fmt: skip
        check_format(template_format)
        self.template_format = template_format
        self._text = TemplateText(template)
        self._set_variables(self._text.variables, partial_variables)
        if validate_template and set(input_variables or ()) != set(self.input_variables):
            raise ConfigError(
                f"The template has the variables {self.input_variables}, not {list(input_variables or ())}; correct "
                "input_variables, or leave it out"
            )

    @property
    def template(self) -> str:
        """The text with its fields."""
        return self._text.text

    @classmethod
    def from_template(
        cls, template: str, *, template_format: str = "f-string",
        partial_variables: Mapping[str, Any] | None = None,
    ) -> Self:  # fmt: skip
        """A prompt of this text."""
        return cls(template, template_format=template_format, partial_variables=partial_variables)

    @classmethod
    def from_file(cls, template_file: str | Path, encoding: str = "utf-8", **options: Any) -> Self:
        """A prompt of the text in a file."""
        return cls.from_template(Path(template_file).read_text(encoding), **options)

    @classmethod
    def from_examples(
        cls, examples: Sequence[str], suffix: str, input_variables: Sequence[str], example_separator: str = "\n\n",
        prefix: str = "", **options: Any,
    ) -> Self:  # fmt: skip
        """A prompt of a prefix, examples and a suffix, with a separator between them."""
        text = example_separator.join([prefix, *examples, suffix])
        return cls(text, input_variables=input_variables, **options)

    def format(self, **values: Any) -> str:
        """The text with these values."""
        return self._text.fill(self._all_values(values))

    def format_prompt(self, **values: Any) -> StringPromptValue:
        """The text with these values, as a prompt value."""
        return StringPromptValue(self.format(**values))

    def __add__(self, other: Any) -> PromptTemplate:
        """One text after the other."""
        if isinstance(other, str):
            other = PromptTemplate.from_template(other)
        if not isinstance(other, PromptTemplate):
            return NotImplemented
        if twice := self.partial_variables.keys() & other.partial_variables.keys():
            raise ConfigError(f"Both prompts have a value for {sorted(twice)[0]!r}; leave out one of them")
        known = {**self.partial_variables, **other.partial_variables}
        return PromptTemplate(self.template + other.template, partial_variables=known)

    def __repr__(self) -> str:
        return f"PromptTemplate(input_variables={self.input_variables!r}, template={self.template!r})"
