"""Copies of the application's messages, which the application may change before they are stored."""

from __future__ import annotations

import logging
from copy import copy
from typing import Any

from recorder.messages import BaseMessage, ChatMessage, HumanMessage, from_any
from recorder.storage.storable_values import list_of, text_of

log = logging.getLogger("recorder")


def request_from(batch: Any) -> list[BaseMessage]:
    """The messages of a request as LangChain passes them: a list in a list. A flat list will do, too."""
    given = list_of(batch)
    if given and _is_list_of_messages(given[0]):
        given = list_of(given[0])
    return [message_from(value) for value in given]


def _is_list_of_messages(value: Any) -> bool:
    """Whether the value is a list or a tuple, except a tuple of a role and its content: this is one message."""
    if not isinstance(value, tuple):
        return isinstance(value, list)
    return not (len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], (str, list)))


def prompts_from(prompts: Any) -> list[BaseMessage]:
    """The prompts of a completion as messages."""
    return [
        HumanMessage(value if isinstance(value, str) else text_of(value) or "") for value in list_of(prompts)
    ]


def message_from(value: Any) -> BaseMessage:
    """The value as a message. A value of an unknown type is recorded as its text, with a warning."""
    try:
        message = from_any(value)
    except Exception as error:
        log.warning("A message of an unknown type is stored as text: %s", error)
        return ChatMessage(text_of(value) or "", role="unknown")
    return with_own_blocks(message)


def with_own_blocks(message: BaseMessage) -> BaseMessage:
    """The message if its content is text, else a copy whose content blocks are copies, too."""
    if not isinstance(message.content, list):
        return message
    message = copy(message)
    message.content = [dict(block) if isinstance(block, dict) else block for block in message.content]
    return message
