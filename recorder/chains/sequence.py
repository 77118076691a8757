"""`prompt | model | parser`: steps in order, as one chain."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from recorder.chains.chain import BaseChain
from recorder.chains.langchain_steps import is_langchains, langchain_step
from recorder.chains.pipeline import Pipeline
from recorder.chains.steps import ChainStep, FunctionStep, RunnableStep
from recorder.errors import ConfigError
from recorder.models.runnable import Runnable
from recorder.redaction.credentials import shown


class Pipeable(Runnable):
    """What can stand in `a | b`, beside a model, a function, and a prompt or a parser of LangChain."""

    def __or__(self, other: Any) -> RunnableSequence:
        return RunnableSequence(self, other)

    def __ror__(self, other: Any) -> RunnableSequence:
        return RunnableSequence(other, self)

    def pipe(self, *others: Any) -> RunnableSequence:
        """The same as `|`, LangChain's name."""
        return RunnableSequence(self, *others)

    def _step(self) -> ChainStep:
        """This as a step of a chain."""
        return RunnableStep(self)


class RunnableSequence(Pipeable, BaseChain):
    """Steps in order: `RunnableSequence(prompt, model, parser)`, which is `prompt | model | parser`.

    A step is a prompt, a model, a parser, a chain, or a function of one argument, plain or `async`. A prompt and a
    parser of LangChain are steps as well. In a stream the last model gives its chunks; parsers make something of each
    chunk, and a function gets the complete output of the step before it. Options of a call belong to the first step, if
    that is a model. Raises `ConfigError` for what is no step.
    """

    def __init__(self, *steps: Any, name: str | None = None, **settings: Any) -> None:
        super().__init__(name=name, **settings)
        #: The steps as they were passed. Those of a sequence without a name of its own stand in its place.
        self.steps = [each for step in steps for each in _flat(step)]
        if not self.steps:
            raise ConfigError("RunnableSequence has no steps; pass a prompt, a model and a parser")
        self._made = [step_of(each) for each in self.steps]

    def _runnables(self) -> Sequence[Runnable]:
        return [step.runnable for step in self._made if isinstance(step, RunnableStep)]

    def _pipeline(self, inputs: Any, options: Mapping[str, Any]) -> Pipeline:
        if not options:
            return Pipeline(self._made, numbered=True)
        first, *rest = self._made
        if not isinstance(first, RunnableStep):
            raise ConfigError(
                f"The option {next(iter(options))!r} is for a model, but the chain begins with {first.name}; pass it "
                "with model.bind(...)"
            )
        return Pipeline([RunnableStep(first.runnable, options), *rest], numbered=True)

    def __repr__(self) -> str:
        return " | ".join(step.name for step in self._made)


def step_of(thing: Any) -> ChainStep:
    """A step of a chain. Raises `ConfigError` for what is none."""
    if isinstance(thing, Pipeable):
        return thing._step()
    if isinstance(thing, Runnable):
        return RunnableStep(thing)
    if is_langchains(thing):
        return langchain_step(thing)
    if callable(thing) and not isinstance(thing, type):
        return FunctionStep(_checked(thing))
    raise ConfigError(
        f"{shown(thing)} cannot be a step of a chain; pass a prompt, a model, a parser or a function of one argument"
    )


def _flat(step: Any) -> list[Any]:
    """The steps of a nested sequence, which is one chain with this one: `(a | b) | c` is `a | b | c`."""
    is_plain = type(step) is RunnableSequence and not (
        step.callbacks or step.tags or step.metadata or step._config or step.name != RunnableSequence.__name__
    )
    return list(step.steps) if is_plain else [step]


def _checked(function: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigError(
            f"{function.__name__} is a generator, which cannot be a step of a chain; iterate over chain.stream(...)"
        )
    return function
