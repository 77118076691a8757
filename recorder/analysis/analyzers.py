"""Analyzers: what evaluates texts. Ready-made ones have names; the application's own are functions or objects."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, runtime_checkable

from recorder.analysis.extra import require
from recorder.analysis.texts import AnalyzedText
from recorder.errors import ConfigError

#: The longest name and version (characters).
_LONGEST = 100
#: The suffix of the name of an annotation of a sentence.
SENTENCE = ".sentence"


@runtime_checkable
class Analyzer(Protocol):
    """Evaluates texts. It has at least one of `on_sentence` and `on_message`, each plain or `async`:

        def on_sentence(self, sentence: AnalyzedText) -> str | float | dict | Evaluation | None
        def on_message(self, message: AnalyzedText) -> str | float | dict | Evaluation | None

    `prepare()`, if it has one, is called once before the first text, in the place where texts are analyzed.
    """

    #: The name of its annotations; those of sentences are called "name.sentence".
    name: str
    #: A new version evaluates again what an older one has evaluated.
    version: str


class FunctionAnalyzer:
    """Calls a function `f(text)`, plain or `async`, with the text of each message, each sentence, or both."""

    def __init__(
        self, function: Callable[[str], Any], *, name: str | None = None, version: str = "1",
        messages: bool = True, sentences: bool = False,
    ) -> None:  # fmt: skip
        self.name = name or _name_of(function)
        self.version = version
        self._function = function
        if not (messages or sentences):
            raise ConfigError(
                f"The analyzer {self.name!r} gets no texts; pass messages=True or sentences=True"
            )
        if messages:
            self.on_message = self._call
        if sentences:
            self.on_sentence = self._call

    def _call(self, text: AnalyzedText) -> Any:
        return self._function(text.text)


def analyzers_from(given: Any) -> list[Any]:
    """The analyzers of the option `analyze`: names, functions and objects. Raises `ConfigError` and `MissingExtra`."""
    if isinstance(given, (str, bytes)) or not isinstance(given, Sequence):
        raise ConfigError(f"analyze is {given!r:.60}; pass a list, for example analyze=['sentiment']")
    found = [analyzer_from(each) for each in given]
    names = [each.name for each in found]
    if doubled := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"Two analyzers have the name {min(doubled)!r}; give each a name of its own")
    return found


def analyzer_from(given: Any) -> Any:
    """One analyzer. Raises `ConfigError` and `MissingExtra`."""
    if isinstance(given, str):
        return _ready_made(given)
    if isinstance(given, type):
        raise ConfigError(f"{given.__name__} is a class; pass an object, {given.__name__}(...)")
    if not (has_messages(given) or has_sentences(given)):
        if not callable(given):
            raise ConfigError(
                f"{given!r:.60} is no analyzer; pass a name, a function, or an object with on_sentence or on_message"
            )
        given = FunctionAnalyzer(given)
    if has_sentences(given):
        require("sentencex")
    return _checked(given)


def has_messages(analyzer: Any) -> bool:
    """Whether it evaluates messages."""
    return callable(getattr(analyzer, "on_message", None))


def has_sentences(analyzer: Any) -> bool:
    """Whether it evaluates sentences."""
    return callable(getattr(analyzer, "on_sentence", None))


def _ready_made(name: str) -> Any:
    if name != "sentiment":
        raise ConfigError(
            f"There is no analyzer {name!r}; write 'sentiment', or pass your own (--with module:function)"
        )
    from recorder.analysis.sentiment import Sentiment

    return Sentiment()


def _checked(analyzer: Any) -> Any:
    for field in ("name", "version"):
        value = getattr(analyzer, field, None)
        if not isinstance(value, str) or not 0 < len(value) <= _LONGEST:
            raise ConfigError(
                f"{field} of the analyzer {analyzer!r:.60} is {value!r:.60}; "
                f"set it to a text of 1 to {_LONGEST} characters"
            )
    return analyzer


def _name_of(function: Callable[..., Any]) -> str:
    inner = inspect.unwrap(function.func if isinstance(function, partial) else function)
    name = getattr(inner, "__name__", type(inner).__name__)
    if name == "<lambda>":
        raise ConfigError("A lambda has no name; pass FunctionAnalyzer(function, name='...')")
    return str(name)
