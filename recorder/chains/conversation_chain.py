"""`ConversationChain`: a chat whose memory is the conversation that is recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recorder.chains.chat_prompt_template import ChatPromptTemplate
from recorder.chains.llm_chain import LLMChain
from recorder.chains.message_templates import MessagesPlaceholder
from recorder.chains.recorded_memory import check_bound
from recorder.errors import ConfigError
from recorder.memory.bounds import ConversationBufferMemory

#: LangChain's words, as instructions. LangChain sends them in one text with the history.
DEFAULT_INSTRUCTIONS = (
    "The following is a friendly conversation between a human and an AI. The AI is talkative and provides lots of "
    "specific details from its context. If the AI does not know the answer to a question, it truthfully says it does "
    "not know."
)


class ConversationChain(LLMChain):
    """A chat: `ConversationChain(llm=chat).predict(input="Hello!")`, where a `ChatHistoryCallback` records the model.

    The memory is the recorded conversation: each call reads its newest branch, once all that was recorded before is
    committed, and sends it as messages. So it goes on after a restart, and in every process with the same database.
    `memory` bounds what is sent. `conversation_id` names the conversation; the default is that of
    `with history.conversation(...)`, else that of the recorder, else one of the chain's own. `prompt` needs
    `MessagesPlaceholder("history")` and `{input}`. Raises `ConfigError` for another prompt, without a recorder, and for
    an invalid id, and `StoreError` if the database does not answer.
    """

    def __init__(
        self, *, llm: Any, prompt: Any = None, memory: ConversationBufferMemory | None = None,
        conversation_id: str | None = None, input_key: str = "input", output_key: str = "response",
        output_parser: Any = None, llm_kwargs: Mapping[str, Any] | None = None, verbose: bool = False,
        callbacks: Any = None, tags: Sequence[str] | None = None, metadata: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:  # fmt: skip
        memory = ConversationBufferMemory() if memory is None else memory
        check_bound(memory)
        self.input_key = input_key
        super().__init__(
            llm=llm, prompt=default_prompt(memory.memory_key, input_key) if prompt is None else prompt,
            memory=memory, conversation_id=conversation_id, output_key=output_key, output_parser=output_parser,
            llm_kwargs=llm_kwargs, verbose=verbose, callbacks=callbacks, tags=tags, metadata=metadata, name=name,
        )  # fmt: skip
        if self.input_keys != [input_key]:
            raise ConfigError(
                f"The prompt of ConversationChain has the inputs {self.input_keys}, not [{input_key!r}]; name the "
                f"question {{{input_key}}}, and give other variables a value with prompt.partial(...)"
            )


def default_prompt(memory_key: str = "history", input_key: str = "input") -> ChatPromptTemplate:
    """LangChain's instructions, the conversation, and the question."""
    question = ("human", f"{{{input_key}}}")
    return ChatPromptTemplate([("system", DEFAULT_INSTRUCTIONS), MessagesPlaceholder(memory_key), question])
