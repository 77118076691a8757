"""The memory of a chain: the conversation that the recorder of its model records."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from recorder.chains.chain_run import ChainRequest
from recorder.chat_history_callback import ChatHistoryCallback
from recorder.core.ids import CONVERSATION_KEYS, check_conversation_id, new_id
from recorder.errors import ConfigError
from recorder.memory.bounds import ConversationBufferMemory
from recorder.memory.branch_reader import BranchReader
from recorder.memory.conversation_memory import answered_messages
from recorder.messages import BaseMessage
from recorder.runs.run import TEXT_MODEL
from recorder.storage.storable_values import first_text, text_of

#: The key of the metadata that names the user.
_USER = "user_id"


class RecordedMemory:
    """Reads the conversation before each call. The recorder stores it, so nothing is added.

    The conversation is that of the call's metadata, else `conversation_id`, else that of
    `with history.conversation(...)`, else that of the recorder, else one of the chain's own.
    """

    def __init__(
        self, bound: ConversationBufferMemory, prompt: Any, llm: Any, conversation_id: str | None
    ) -> None:
        check_bound(bound)
        _check_prompt(prompt, bound)
        _check_model(llm)
        self._bound, self._llm = bound, llm
        self._given = check_conversation_id(conversation_id) if conversation_id is not None else None
        #: The conversation of a chain for which nothing is named, so that it goes on with each call.
        self._own = new_id()
        self._reader: BranchReader | None = None

    def named(self, metadata: dict[str, Any], handlers: Sequence[Any], name: str) -> dict[str, Any]:
        """The metadata with the ids of the conversation and the user, as they are now.

        A stream may begin later, and elsewhere. Raises `ConfigError` without a recorder, and `Closed` for a closed one.
        """
        history = _recorder_in(handlers, name)
        history.recorder.require_open()
        names = history.names
        found = {CONVERSATION_KEYS[0]: self._given or names.conversation_id or self._own}
        if names.user_id is not None:
            found[_USER] = names.user_id
        if first_text(metadata, CONVERSATION_KEYS):
            del found[CONVERSATION_KEYS[0]]
        return {**found, **metadata}

    def fill(self, inputs: Mapping[str, Any], request: ChainRequest) -> dict[str, Any]:
        """The inputs with the messages of the conversation. Blocks until what was recorded before is committed.

        Raises `ConfigError` for an invalid id, and `StoreError` if the database does not answer.
        """
        found = self._reader_of(request).read(*_place(request), answered_messages, self._bound.tail)
        return self._filled(inputs, self._bound.bounded(found, self._llm))

    async def afill(self, inputs: Mapping[str, Any], request: ChainRequest) -> dict[str, Any]:
        """`fill` on an event loop."""
        found = await self._reader_of(request).aread(*_place(request), answered_messages, self._bound.tail)
        if self._bound.waits:
            return self._filled(inputs, await asyncio.to_thread(self._bound.bounded, found, self._llm))
        return self._filled(inputs, self._bound.bounded(found, self._llm))

    def _filled(self, inputs: Mapping[str, Any], messages: list[BaseMessage]) -> dict[str, Any]:
        return {**inputs, self._bound.memory_key: messages}

    def _reader_of(self, request: ChainRequest) -> BranchReader:
        history, reader = _recorder_in(request.handlers, request.name), self._reader
        if reader is None or reader.history is not history:
            reader = self._reader = BranchReader(history)
        return reader


def _recorder_in(handlers: Sequence[Any], name: str) -> ChatHistoryCallback:
    for each in handlers:
        if isinstance(each, ChatHistoryCallback):
            return each
    raise ConfigError(
        f"The memory of {name} is the conversation that a recorder stores, and its model has none; add one: "
        "ChatOpenAI(callbacks=[ChatHistoryCallback('sqlite:///chat_history.db')])"
    )


def _place(request: ChainRequest) -> tuple[str, str | None]:
    """The conversation and the user."""
    metadata = request.metadata
    given = next(metadata[key] for key in CONVERSATION_KEYS if metadata.get(key))
    return check_conversation_id(given), text_of(metadata.get(_USER)) or None


def check_bound(memory: Any) -> None:
    """Raise `ConfigError` for a memory that stores messages itself, such as LangChain's."""
    if not isinstance(memory, ConversationBufferMemory):
        raise ConfigError(
            f"memory is of type {type(memory).__name__}; the memory is the recorded conversation, and "
            "recorder.chains.ConversationBufferWindowMemory and ConversationTokenBufferMemory bound it"
        )


def _check_prompt(prompt: Any, bound: ConversationBufferMemory) -> None:
    """Raise `ConfigError` unless the prompt has a place for the messages of the conversation."""
    parts = getattr(prompt, "messages", ())
    if bound.memory_key not in {getattr(part, "variable_name", None) for part in parts}:
        raise ConfigError(
            f"The prompt has no place for the conversation, which is sent as messages and not as a text; pass "
            f"ChatPromptTemplate([..., MessagesPlaceholder({bound.memory_key!r}), ('human', '{{input}}')])"
        )


def _check_model(llm: Any) -> None:
    """Raise `ConfigError` for a completion model, which takes one text."""
    if getattr(llm, "model_type", None) == TEXT_MODEL:
        raise ConfigError(
            f"{type(llm).__name__} is a completion model, which takes one text and no messages; pass a chat model"
        )
