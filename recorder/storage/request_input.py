"""What a request was made of: instructions, messages of the conversation, and messages in place of left-out ones.

The run's row keeps it in two short lists, `instructions` and `input`, so that a turn takes the same space however long
the conversation is. `RunColumns` describes them, and `DatabaseReader.request` reads the messages again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import takewhile
from typing import NamedTuple

from recorder.core.json import dumps
from recorder.errors import StoreError
from recorder.messages import BaseMessage
from recorder.messages.identity import PathIds, content_hash, id_below
from recorder.storage.message_columns import columns_of_message
from recorder.storage.row_checks import json_of
from recorder.storage.rows import ContextMessageRow, RunRow, RunStart
from recorder.storage.schema import dashed
from recorder.storage.stored_messages import KnownMessage

#: In place of the parent in the ids of context messages, which have none.
CONTEXT = "context"
_ROLES = frozenset(("system", "developer"))
#: A position, or the first and the last of several.
_PLACES = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")


def instructions_of(messages: Sequence[BaseMessage]) -> Sequence[BaseMessage]:
    """The system and developer messages that a request begins with."""
    return [*takewhile(lambda message: message.role in _ROLES, messages)]


def after_instructions(start: RunStart) -> Sequence[BaseMessage]:
    """The messages of a request after its instructions; computed once."""
    if start.after_instructions is None:
        count = len(instructions_of(start.messages))
        start.after_instructions = start.messages[count:] if count else start.messages
    return start.after_instructions


def path_of(start: RunStart, path_ids: PathIds | None = None) -> Sequence[str]:
    """The ids of what was said in a request, as a path from a root; computed once."""
    messages = after_instructions(start)
    if len(start.path) != len(messages):
        start.path = (path_ids or PathIds()).compute(start.conversation_id, messages)
    return start.path


def contents_of(start: RunStart) -> Sequence[int]:
    """The content hashes of what was said in a request; computed once."""
    messages = after_instructions(start)
    if len(start.contents) != len(messages):
        start.contents = [content_hash(message) for message in messages]
    return start.contents


def context_row(conversation_id: str, message: BaseMessage, at: datetime) -> ContextMessageRow:
    """The row of a message that is no part of what was said."""
    id = id_below(conversation_id, CONTEXT, message)
    return ContextMessageRow(conversation_id, id, *columns_of_message(message), at)


def encoded_ids(ids: Sequence[str]) -> str | None:
    """The column `instructions`; None without ids."""
    return dumps(ids) if ids else None


def encoded_input(
    sent: Sequence[KnownMessage | ContextMessageRow], path: Iterable[KnownMessage]
) -> str | None:
    """The column `input` for these messages; `path` is the known part of the path that ends with the prompt."""
    on_path = {message.id for message in path}
    items: list[str] = []
    first = last = -2
    for message in sent:
        if isinstance(message, ContextMessageRow) or message.id not in on_path:
            items.append(message.id)
            last = -2
        elif message.position == last + 1:
            last += 1
            items[-1] = f"{first}-{last}"
        else:
            first = last = message.position
            items.append(str(first))
    is_whole = len(items) == 1 and first == 0 and last == len(sent) - 1
    return None if is_whole else dumps(items)


class Input(NamedTuple):
    """The decoded column `input`."""

    #: An id, or the first and the last position on the path that ends with the prompt, both included.
    items: Sequence[str | tuple[int, int]]

    @property
    def ids(self) -> list[str]:
        """The ids among the items."""
        return [item for item in self.items if isinstance(item, str)]

    @property
    def first(self) -> int | None:
        """The lowest position on the path; None without positions."""
        return min((item[0] for item in self.items if not isinstance(item, str)), default=None)


#: The input of a run that was sent its whole path.
WHOLE_PATH = Input([(0, 2**62)])


def sent_ids(run: RunRow) -> set[str]:
    """The ids in the columns `instructions` and `input` of a run. Raises `StoreError` for a damaged value."""
    given = [json_of(text, f"run {run.id}") for text in (run.instructions, run.input) if text is not None]
    return {str(item) for items in given for item in items if _is_id(str(item))}


def decoded_input(items: Sequence[object] | None) -> Input:
    """The column `input`. Raises `StoreError` for a damaged value."""
    if items is None:
        return WHOLE_PATH
    found: list[str | tuple[int, int]] = []
    before = -1
    for item in map(str, items):
        if _is_id(item):
            found.append(item)
            continue
        places = _PLACES.fullmatch(item)
        first, last = (int(places[1]), int(places[2] or places[1])) if places else (-1, -1)
        if not before < first <= last:  # a message that came twice could fill the memory
            raise StoreError(f"The input of a run has the item {item!r:.60}; the row is damaged")
        found.append((first, last))
        before = last
    return Input(found)


def checked_ids(ids: Sequence[object] | None) -> list[str]:
    """The column `instructions`. Raises `StoreError` for a value that is no id."""
    found = [str(id) for id in ids or ()]
    if wrong := [id for id in found if not _is_id(id)]:
        raise StoreError(f"The instructions of a run have {wrong[0]!r:.60} as an id; the row is damaged")
    return found


def _is_id(item: str) -> bool:
    try:
        return dashed(item) == item
    except ValueError:
        return False
