"""LangChain's names of memories. The memory of a chain is a recorded conversation; these say how much of it is sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recorder.errors import ConfigError
from recorder.memory.branch_reader import LastMessages
from recorder.memory.conversation_memory import note_in
from recorder.messages import BaseMessage
from recorder.storage.newest_branch import BranchMessage


class ConversationBufferMemory:
    """All messages of the recorded conversation: `ConversationChain(llm=chat, memory=ConversationBufferMemory())`.

    `memory_key` is the variable of the prompt, a `MessagesPlaceholder`. `return_messages` is LangChain's and ignored:
    the history is always messages.
    """

    #: Whether `bounded` may wait, for example for an API that counts tokens.
    waits = False

    def __init__(self, *, memory_key: str = "history", return_messages: bool = True) -> None:
        self.memory_key = memory_key
        self.return_messages = return_messages

    @property
    def memory_variables(self) -> list[str]:
        """The variables of the prompt that the memory fills."""
        return [self.memory_key]

    @property
    def tail(self) -> LastMessages | None:
        """How many of the last messages are read; None for all."""
        return None

    def bounded(self, messages: list[BaseMessage], llm: Any) -> list[BaseMessage]:
        """The messages that are sent. `llm` is the model of the chain."""
        return messages


class ConversationBufferWindowMemory(ConversationBufferMemory):
    """The last `k` exchanges: a question and its answer, with the calls of tools between them. `k` is at least 1."""

    def __init__(self, *, k: int = 5, memory_key: str = "history", return_messages: bool = True) -> None:
        super().__init__(memory_key=memory_key, return_messages=return_messages)
        if k < 1:
            raise ConfigError(
                f"k is {k}; pass 1 or more, because the newest exchange says where in the conversation a question is"
            )
        self.k = k

    @property
    def tail(self) -> LastMessages | None:
        """Some more than the window has without tools, and one exchange more, which may be a question alone."""
        return LastMessages(4 * self.k + 4, self._has_window)

    def bounded(self, messages: list[BaseMessage], llm: Any) -> list[BaseMessage]:
        """The messages of the last exchanges."""
        return messages[exchange_starts(messages)[-self.k :][0] :] if messages else []

    def _has_window(self, messages: Sequence[BranchMessage]) -> bool:
        found = [each.message for each in messages]
        return len(exchange_starts(found)) > self.k + 1 and not any(map(note_in, found))


class ConversationTokenBufferMemory(ConversationBufferMemory):
    """The last exchanges that have at most `max_token_limit` tokens together, and at least the newest one.

    Tokens are counted by `llm.get_num_tokens_from_messages`; the default is the model of the chain. For OpenAI this
    needs the extra `tokens`. For Anthropic each count is a request; for 1,000 exchanges there are about ten.
    """

    waits = True

    def __init__(
        self, *, llm: Any = None, max_token_limit: int = 2_000, memory_key: str = "history",
        return_messages: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(memory_key=memory_key, return_messages=return_messages)
        self.llm = llm
        self.max_token_limit = max_token_limit

    def bounded(self, messages: list[BaseMessage], llm: Any) -> list[BaseMessage]:
        """The messages of the last exchanges within the limit. Raises `ConfigError` if the model counts no tokens."""
        counter = getattr(self.llm or llm, "get_num_tokens_from_messages", None)
        if counter is None:
            raise ConfigError(
                f"{type(self.llm or llm).__name__} counts no tokens; pass ConversationTokenBufferMemory(llm=...) an "
                "object with get_num_tokens_from_messages, or use ConversationBufferWindowMemory"
            )
        starts = exchange_starts(messages)
        low, high = 0, len(starts) - 1  # the newest exchange is sent in any case
        while low < high:
            middle = (low + high) // 2
            if counter(messages[starts[middle] :]) <= self.max_token_limit:
                high = middle
            else:
                low = middle + 1
        return messages[starts[low] :] if messages else []


def exchange_starts(messages: Sequence[BaseMessage]) -> list[int]:
    """Where each exchange begins: with a question after an answer. The first one begins with the first message."""
    return [
        place
        for place, message in enumerate(messages)
        if place == 0 or (message.role == "user" and messages[place - 1].role != "user")
    ]
