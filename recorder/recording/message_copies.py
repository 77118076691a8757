"""Copies of the application's messages, which the application may change before they are stored."""

from __future__ import annotations

import logging
from copy import copy
from typing import Any

from recorder.messages import BaseMessage, ChatMessage, from_any

log = logging.getLogger("recorder")


def message_from(value: Any) -> BaseMessage:
    """The value as a message. A value of an unknown type is recorded as its text, with a warning."""
    try:
        message = from_any(value)
    except Exception as error:
        log.warning("A message of an unknown type is stored as text: %s", error)
        return ChatMessage(str(value), role="unknown")
    return with_own_blocks(message)


def with_own_blocks(message: BaseMessage) -> BaseMessage:
    """The message if its content is text, else a copy whose content blocks are copies, too."""
    if not isinstance(message.content, list):
        return message
    message = copy(message)
    message.content = [dict(block) if isinstance(block, dict) else block for block in message.content]
    return message
