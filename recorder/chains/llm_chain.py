"""`LLMChain`: a prompt, a model and a parser, with LangChain's older methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from recorder.chains.chain import BaseChain, ChainCall
from recorder.chains.langchain_steps import is_langchains, langchain_step
from recorder.chains.pipeline import Pipeline
from recorder.chains.prompt_template import PromptTemplate
from recorder.chains.recorded_memory import RecordedMemory
from recorder.chains.sequence import Pipeable, step_of
from recorder.chains.steps import ChainStep, PromptStep, RunnableStep
from recorder.chains.str_output_parser import StrOutputParser
from recorder.chains.verbose import VerboseHandler
from recorder.errors import ConfigError
from recorder.memory.bounds import ConversationBufferMemory
from recorder.messages import RunInfo
from recorder.models.runnable import Runnable
from recorder.redaction.credentials import shown

#: LangChain's key of the run's id in the result.
_RUN_KEY = "__run"
#: The input with the stop sequences of a call, and the arguments of a call that are not the model's.
_STOP = "stop"
_OWN_OPTIONS = ("return_only_outputs", "include_run_info")


class LLMChain(Pipeable, BaseChain):
    """A prompt and a model: `LLMChain(llm=chat, prompt=PromptTemplate.from_template("Sing about {topic}."))`.

    `invoke` takes a dict of the prompt's variables, or the value itself if there is one, and returns them with the
    answer under `output_key`. `stream` yields `{output_key: piece}` for each chunk. `callbacks` get the events of the
    chain and of the model. `llm_kwargs` are options of each request. `verbose` prints the prompt and both ends of a
    run. With `memory` the model gets the recorded conversation in a place of the prompt, as in `ConversationChain`.
    """

    def __init__(
        self, *, llm: Any, prompt: Any, output_key: str = "text", output_parser: Any = None,
        llm_kwargs: Mapping[str, Any] | None = None, memory: ConversationBufferMemory | None = None,
        conversation_id: str | None = None, verbose: bool = False, callbacks: Any = None,
        tags: Sequence[str] | None = None, metadata: Mapping[str, Any] | None = None, name: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(callbacks=callbacks, tags=tags, metadata=metadata, name=name)
        self.llm = _checked_model(llm)
        self.prompt = prompt
        self.output_key = output_key
        self.output_parser = output_parser if output_parser is not None else StrOutputParser()
        self.llm_kwargs = dict(llm_kwargs or {})
        self.verbose = verbose
        self.memory = memory
        if verbose:
            self.callbacks.append(VerboseHandler())
        self._prompt_step, self._parser_step = _prompt_step(prompt), step_of(self.output_parser)
        self._conversation = (
            RecordedMemory(memory, prompt, llm, conversation_id) if memory is not None else None
        )
        if self._conversation is None and conversation_id is not None:
            raise ConfigError(
                "conversation_id belongs to a chain with memory=; pass one, or leave the id out"
            )

    @classmethod
    def from_string(cls, llm: Any, template: str) -> Self:
        """A chain of a model and a template."""
        return cls(llm=llm, prompt=PromptTemplate.from_template(template))

    @property
    def input_keys(self) -> list[str]:
        """The inputs that a call needs."""
        known = self.memory.memory_variables if self.memory is not None else ()
        return [name for name in self.prompt.input_variables if name not in known]

    @property
    def output_keys(self) -> list[str]:
        """The keys that a call adds to its inputs."""
        return [self.output_key]

    # -- LangChain's older methods ----------------------------------------------------------------------------------

    def __call__(  # type: ignore[override]  # LangChain's older form has arguments of its own
        self, inputs: Any, return_only_outputs: bool = False, callbacks: Any = None, *,
        tags: Sequence[str] | None = None, metadata: Mapping[str, Any] | None = None, run_name: str | None = None,
        include_run_info: bool = False, config: Any = None,
    ) -> Any:  # fmt: skip
        """LangChain's older form of `invoke`."""
        if config is not None:
            return super().__call__(inputs, config=config)
        options = {"return_only_outputs": return_only_outputs, "include_run_info": include_run_info}
        return self.invoke(inputs, _config(callbacks, tags, metadata, run_name), **options)

    async def acall(
        self, inputs: Any, return_only_outputs: bool = False, callbacks: Any = None, *,
        tags: Sequence[str] | None = None, metadata: Mapping[str, Any] | None = None, run_name: str | None = None,
        include_run_info: bool = False,
    ) -> dict[str, Any]:  # fmt: skip
        """LangChain's older form of `ainvoke`."""
        options = {"return_only_outputs": return_only_outputs, "include_run_info": include_run_info}
        found: dict[str, Any] = await self.ainvoke(
            inputs, _config(callbacks, tags, metadata, run_name), **options
        )
        return found

    def run(
        self, *args: Any, callbacks: Any = None, tags: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None, **inputs: Any,
    ) -> Any:  # fmt: skip
        """The answer alone. The input is one value, or each variable by its name."""
        return self(_one_input(args, inputs), callbacks=callbacks, tags=tags, metadata=metadata)[
            self.output_key
        ]

    async def arun(
        self, *args: Any, callbacks: Any = None, tags: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None, **inputs: Any,
    ) -> Any:  # fmt: skip
        """`run` on an event loop."""
        given = _one_input(args, inputs)
        return (await self.acall(given, callbacks=callbacks, tags=tags, metadata=metadata))[self.output_key]

    def predict(self, callbacks: Any = None, **inputs: Any) -> Any:
        """The answer alone, for the variables of the prompt."""
        return self(inputs, callbacks=callbacks)[self.output_key]

    async def apredict(self, callbacks: Any = None, **inputs: Any) -> Any:
        """`predict` on an event loop."""
        return (await self.acall(inputs, callbacks=callbacks))[self.output_key]

    def apply(self, input_list: Sequence[Any], callbacks: Any = None) -> list[dict[str, Any]]:
        """The output for each of these inputs. Each one is a run of the chain."""
        return self.batch(input_list, _config(callbacks), return_only_outputs=True)

    async def aapply(self, input_list: Sequence[Any], callbacks: Any = None) -> list[dict[str, Any]]:
        """`apply` on an event loop."""
        return await self.abatch(input_list, _config(callbacks), return_only_outputs=True)

    # -- what the chain does ----------------------------------------------------------------------------------------

    def _runnables(self) -> Sequence[Runnable]:
        return [self.llm]

    def _pipeline(self, inputs: Any, options: Mapping[str, Any]) -> Pipeline:
        if unknown := [name for name in options if name not in _OWN_OPTIONS]:
            raise ConfigError(
                f"{type(self).__name__} does not know the option {unknown[0]!r}; options of the model are llm_kwargs="
            )
        stop = {_STOP: inputs[_STOP]} if inputs.get(_STOP) is not None else {}
        model = RunnableStep(self.llm, {**self.llm_kwargs, **stop})
        return Pipeline([self._prompt_step, model, self._parser_step])

    def _inputs_of(self, input: Any) -> dict[str, Any]:
        if isinstance(input, Mapping):
            return dict(input)
        if len(self.input_keys) == 1:
            return {self.input_keys[0]: input}
        raise ConfigError(
            f"{type(self).__name__} has the inputs {self.input_keys}, and got {shown(input)}; pass a dict with a value "
            "for each"
        )

    def _first(self, call: ChainCall) -> Any:
        inputs = self._checked(call.inputs)
        return inputs if self._conversation is None else self._conversation.fill(inputs, call.run.request)

    async def _afirst(self, call: ChainCall) -> Any:
        inputs = self._checked(call.inputs)
        if self._conversation is None:
            return inputs
        return await self._conversation.afill(inputs, call.run.request)

    def _checked(self, inputs: dict[str, Any]) -> dict[str, Any]:
        if missing := [name for name in self.input_keys if name not in inputs]:
            raise ConfigError(
                f"{type(self).__name__} needs the input {missing[0]!r}, and got "
                f"{', '.join(map(repr, inputs)) or 'none'}; pass {{{missing[0]!r}: ...}}"
            )
        return inputs

    def _named(self, metadata: dict[str, Any], handlers: Sequence[Any]) -> dict[str, Any]:
        if self._conversation is None:
            return metadata
        return self._conversation.named(metadata, handlers, self.name)

    def _output_of(self, value: Any) -> Any:
        return {self.output_key: value}

    def _result(self, call: ChainCall, first: Any) -> Any:
        found = dict(call.run.output) if call.options.get(_OWN_OPTIONS[0]) else {**first, **call.run.output}
        if call.options.get(_OWN_OPTIONS[1]):
            found[_RUN_KEY] = RunInfo(call.run.request.run_id)
        return found


def _checked_model(llm: Any) -> Runnable:
    if isinstance(llm, Runnable):
        return llm
    if is_langchains(llm):
        langchain_step(llm)  # raises for a model
    raise ConfigError(f"llm is {shown(llm)}; pass a model of recorder.models")


def _prompt_step(prompt: Any) -> ChainStep:
    step = step_of(prompt)
    if not isinstance(step, PromptStep):
        raise ConfigError(f"prompt is {shown(prompt)}; pass a PromptTemplate or a ChatPromptTemplate")
    return step


def _one_input(args: Sequence[Any], inputs: Mapping[str, Any]) -> Any:
    """LangChain's rule for `run`: one value, or values by name."""
    if len(args) == 1 and not inputs:
        return args[0]
    if inputs and not args:
        return inputs
    raise ConfigError(
        f"run takes one value, or each variable by its name, and got {len(args)} values and {len(inputs)} names"
    )


def _config(
    callbacks: Any, tags: Any = None, metadata: Any = None, run_name: str | None = None
) -> dict[str, Any]:
    return {"callbacks": callbacks, "tags": tags, "metadata": metadata, "run_name": run_name}
