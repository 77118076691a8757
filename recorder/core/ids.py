"""Ids of what is recorded: new ones, and whether a conversation may have the id that its caller gives."""

from __future__ import annotations

import uuid_utils

from recorder.errors import ConfigError

#: Characters; longer ones would not fit the keys of every database.
MAX_CONVERSATION_ID = 255


def new_id() -> str:
    """A new UUIDv7, lower case with dashes: sorts by time on both databases."""
    return str(uuid_utils.uuid7())


def check_conversation_id(id: str) -> str:
    """The id itself, or `ConfigError` when it can be no conversation's id."""
    if not isinstance(id, str):
        raise ConfigError(f"conversation_id must be a str, not {type(id).__name__}; pass str(...) of it")
    if not id:
        raise ConfigError("conversation_id is empty; pass a name, or leave it out to get a new one")
    if len(id) > MAX_CONVERSATION_ID:
        raise ConfigError(
            f"conversation_id {id[:32]!r}... has {len(id)} characters and the limit is "
            f"{MAX_CONVERSATION_ID}; pass a shorter one, a hash of it for example"
        )
    return id
