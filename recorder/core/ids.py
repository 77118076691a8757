"""Makes ids, and checks the conversation ids that callers give."""

from __future__ import annotations

from uuid import NAMESPACE_OID, uuid5

import uuid_utils

from recorder.errors import ConfigError

#: Characters. Longer ids do not fit the keys of every database.
MAX_CONVERSATION_ID = 255
#: Metadata keys for the conversation id: recorder's, LangChain's sessions, LangGraph's threads.
CONVERSATION_KEYS = ("conversation_id", "session_id", "thread_id")


def new_id() -> str:
    """A new UUIDv7, lower case with dashes. Ids sort by the time they were made, on both databases."""
    return str(uuid_utils.uuid7())


def id_of_user(conversation_id: str, user_id: str) -> str:
    """The id under which a conversation of this user is stored if the given id belongs to another user."""
    found = f"{conversation_id}@{user_id}"
    return found if len(found) <= MAX_CONVERSATION_ID else str(uuid5(NAMESPACE_OID, found))


def check_conversation_id(id: str) -> str:
    """Return the id. Raises `ConfigError` if it is no str, is empty or is too long."""
    if not isinstance(id, str):
        raise ConfigError(
            f"conversation_id must be a str, not {type(id).__name__}; pass str(conversation_id)"
        )
    if not id:
        raise ConfigError("conversation_id is empty; pass a name, or leave it out to get a new id")
    if len(id) > MAX_CONVERSATION_ID:
        raise ConfigError(
            f"conversation_id {id[:32]!r}... has {len(id)} characters and the limit is "
            f"{MAX_CONVERSATION_ID}; pass a shorter one, for example its hash"
        )
    return id
