"""Reads and fills texts with `{variables}`. A field is a name and a format, never an access to an object."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from string import Formatter
from typing import Any, NamedTuple

from recorder.errors import ConfigError
from recorder.redaction.credentials import shown

#: What a conversion after "!" calls, as in Python's format strings.
_CONVERSIONS: dict[str | None, Callable[[Any], Any]] = {
    None: lambda value: value,
    "r": repr,
    "s": str,
    "a": ascii,
}
#: A width or a precision of five digits makes a text of 10,000 characters or more.
_HUGE = re.compile(r"\d{5}")


class TemplatePart(NamedTuple):
    """A text, and the variable after it; "" for none."""

    literal: str
    name: str
    conversion: str | None
    format: str


class TemplateText:
    """A template that is read once. Raises `ConfigError` for what is no template."""

    def __init__(self, template: str) -> None:
        if not isinstance(template, str):
            raise ConfigError(f"A template is a text, not {type(template).__name__}; pass a str")
        self.text = template
        self._parts = list(_parts(template))
        #: The names of the variables, in alphabetical order.
        self.variables = sorted({part.name for part in self._parts if part.name})

    def fill(self, values: Mapping[str, Any]) -> str:
        """The text with these values. Raises `ConfigError`, which names each variable without a value."""
        if missing := [name for name in self.variables if name not in values]:
            raise missing_variables(missing, values)
        return "".join(part.literal + _value(part, values) for part in self._parts)


def missing_variables(missing: list[str], given: Mapping[str, Any]) -> ConfigError:
    """The error for variables without a value."""
    names, first = ", ".join(map(repr, missing)), missing[0]
    return ConfigError(
        f"The prompt lacks a value for {names}; it got {', '.join(map(repr, given)) or 'none'}. "
        f"Pass {first}=..., or write {{{{{first}}}}} for the text {{{first}}}"
    )


def _parts(template: str) -> Iterator[TemplatePart]:
    try:
        fields = list(Formatter().parse(template))
    except ValueError as error:
        raise ConfigError(
            f"The template {shown(template)} is not valid: {error}; write {{{{ and }}}} for braces in the text"
        ) from error
    for literal, name, format_spec, conversion in fields:
        if name is not None:
            _check_field(template, name, format_spec or "", conversion)
        yield TemplatePart(literal, name or "", conversion, format_spec or "")


def _check_field(template: str, name: str, format_spec: str, conversion: str | None) -> None:
    """Raise `ConfigError` for a field that is no plain name, and for a format that could do harm."""
    if not name.isidentifier():
        why = f"{shown(name)} is no name of a variable; attributes, indexes and numbers are not allowed"
    elif "{" in format_spec or "}" in format_spec:
        why = "a field within the format of another one is not allowed"
    elif _HUGE.search(format_spec):
        why = f"the format {shown(format_spec)} makes a text that is too long"
    elif conversion not in _CONVERSIONS:
        why = f"the conversion {shown(conversion)} is unknown; use !r, !s or !a"
    else:
        return
    raise ConfigError(f"The template {shown(template)} is refused: {why}. Write {{{{ and }}}} for braces")


def _value(part: TemplatePart, values: Mapping[str, Any]) -> str:
    if not part.name:
        return ""
    try:
        return format(_CONVERSIONS[part.conversion](values[part.name]), part.format)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"The value of {part.name!r} does not fit the format {part.format!r}: {error}"
        ) from error
