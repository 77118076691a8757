"""Redacts one stored conversation: its messages get new ids, and everything that names them names the new ones.

The id of a message follows from its content and its parent, so that a conversation goes on after it was redacted. Two
messages that differed only in what was replaced become one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Executable, delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from recorder.core.escaping import unescape
from recorder.core.json import dumps
from recorder.messages.identity import encoded_key, hash_of_key, id_of_key
from recorder.redaction.message_redaction import redacted_message
from recorder.redaction.redaction import MatchCounts, Redaction
from recorder.storage import schema
from recorder.storage.continued_conversations import thread_key
from recorder.storage.message_columns import columns_of_message, message_of
from recorder.storage.request_input import CONTEXT
from recorder.storage.row_checks import json_of
from recorder.storage.schema import context_messages, conversations, messages, runs
from recorder.storage.unnamed_conversations import HistoryOwner
from recorder.upkeep.lost_links import lost_ends, lost_parents
from recorder.upkeep.moved_evaluations import MovedEvaluations
from recorder.upkeep.redacted_index import without_words
from recorder.upkeep.redacted_run import MOST_ROWS, merged, redacted_columns


class RedactedConversation:
    """What redacts one conversation. `prepare` reads it, and `statements` change it."""

    def __init__(self, id: str, redaction: Redaction) -> None:
        self.id = id
        self._redaction = redaction
        #: What was replaced in all of it.
        self.counts = MatchCounts(redaction)
        #: Old id -> new id, of the messages that change.
        self.ids: dict[str, str] = {}
        #: How many messages change.
        self.changed = 0
        self.statements: list[Executable] = []
        #: Old id -> what was replaced in the message.
        self._found: dict[str, MatchCounts] = {}
        self._evaluations = MovedEvaluations(self.ids, redaction)

    async def prepare(self, connection: AsyncConnection) -> None:
        """Read the conversation, and find what changes."""
        await self._change_details(connection)
        await self._change_messages(connection)
        await self._change_context(connection)
        if self.ids:
            await self.link(connection)

    async def link(self, connection: AsyncConnection) -> None:
        """Find what names a message by its old id: runs, annotations, and messages that came meanwhile."""
        rows = (await connection.execute(select(messages).where(messages.c.conversation_id == self.id))).all()
        for row in rows:
            if row.parent_id in self.ids and row.id not in self.ids:
                self.statements.append(self._update_message(row.id, {"parent_id": self.ids[row.parent_id]}))
        query = select(
            runs.c.id, runs.c.prompt_message_id, runs.c.response_message_id, runs.c.instructions, runs.c.input,
            runs.c.input_hash, runs.c.redaction,
        ).where(runs.c.conversation_id == self.id)  # fmt: skip
        replies = _replies(rows)
        for row in (await connection.execute(query)).all():
            for choice, id in enumerate(replies.get(row.id) or [row.response_message_id]):
                self._evaluations.add_reply(row.id, choice, id)
            if values := self._changed_run(row):
                self.statements.append(update(runs).where(runs.c.id == row.id).values(values))
        mine = select(runs.c.id).where(runs.c.conversation_id == self.id)
        of_it = or_(schema.annotations.c.run_id.in_(mine), schema.annotations.c.conversation_id == self.id)
        found = (await connection.execute(select(schema.annotations).where(of_it))).all()
        self.statements += self._evaluations.statements(found)
        self._evaluations.forget_texts()

    async def _change_details(self, connection: AsyncConnection) -> None:
        query = select(conversations).where(conversations.c.id == self.id)
        row = (await connection.execute(query)).first()
        if row is not None and (
            values := redacted_columns(row, self._redaction, self.counts, ("metadata", "tags"), ("title",))
        ):
            self.statements.append(update(conversations).where(conversations.c.id == self.id).values(values))

    async def _change_messages(self, connection: AsyncConnection) -> None:
        query = select(messages).where(messages.c.conversation_id == self.id)
        rows = (await connection.execute(query.order_by(messages.c.position, messages.c.created_at))).all()
        owner = await self._owner(connection)
        new: dict[str, dict[str, Any]] = {}
        contents = {row.id: row.content_hash for row in rows}
        parents = lost_parents(rows)
        for row in rows:
            values = self._redacted_row(row)
            meant = parents.get(row.parent_id, row.parent_id)
            parent = self.ids.get(meant, meant)
            if values is None and parent == row.parent_id:
                continue
            values = row._asdict() | (values or {}) | {"words": None}
            id = id_of_key(
                self.id, parent, encoded_key(message_of(values["role"], values["content"], values["parts"]))
            )
            contents[row.id] = values["content_hash"]
            if row.thread_key is not None:
                values["thread_key"] = _key(owner, contents.get(row.parent_id), values["content_hash"])
            self.ids[row.id] = id
            new.setdefault(id, {**values, "id": id, "parent_id": parent})
            self._evaluations.add(row.id, unescape(row.content), unescape(values["content"]))
        self._replace(messages, new, {row.id for row in rows})
        if connection.dialect.name == "sqlite":
            self.statements += without_words([row for row in rows if row.id in self.ids])
        named = select(runs.c.prompt_message_id, runs.c.response_message_id)
        ends = (await connection.execute(named.where(runs.c.conversation_id == self.id))).all()
        for lost, meant in lost_ends(ends, rows, parents).items():
            self.ids[lost] = self.ids.get(meant, meant)

    def _redacted_row(self, row: Any) -> dict[str, Any] | None:
        """New values of a message's columns; None if it has no match."""
        message = message_of(row.role, row.content, row.parts)
        counts = MatchCounts(self._redaction)
        redacted = redacted_message(message, self._redaction, counts)
        if redacted is message:
            return None
        self._found[row.id] = counts
        self.counts.add(counts.items())
        role, content, parts = columns_of_message(redacted)
        found = {"role": role, "content": content, "parts": parts}
        if hasattr(row, "content_hash"):
            found["content_hash"] = hash_of_key(encoded_key(redacted))  # type: ignore[assignment]
        return found

    async def _change_context(self, connection: AsyncConnection) -> None:
        query = select(context_messages).where(context_messages.c.conversation_id == self.id)
        rows = (await connection.execute(query)).all()
        new: dict[str, dict[str, Any]] = {}
        for row in rows:
            if (values := self._redacted_row(row)) is not None:
                message = message_of(values["role"], values["content"], values["parts"])
                id = id_of_key(self.id, CONTEXT, encoded_key(message))
                self.ids[row.id] = id
                new.setdefault(id, {**row._asdict(), **values, "id": id})
        self._replace(context_messages, new, {row.id for row in rows})

    def _replace(self, table: Any, new: Mapping[str, dict[str, Any]], stored: set[str]) -> None:
        """Delete the changed rows, and insert the new ones, unless one of them is stored as it is."""
        old = sorted(self.ids.keys() & stored)
        if not old:
            return
        self.changed += len(old)
        for start in range(0, len(old), MOST_ROWS):
            is_old = table.c.conversation_id == self.id, table.c.id.in_(old[start : start + MOST_ROWS])
            self.statements.append(delete(table).where(*is_old))
        there = stored - self.ids.keys()
        rows = [row for id, row in new.items() if id not in there]
        self.statements += [insert(table).values(row) for row in rows]

    def _changed_run(self, row: Any) -> dict[str, Any]:
        """New values of a run's columns that name messages."""
        values: dict[str, Any] = {}
        for name in ("prompt_message_id", "response_message_id"):
            if (id := getattr(row, name)) in self.ids:
                values[name] = self.ids[id]
        for name in ("instructions", "input"):
            if (stored := getattr(row, name)) is not None:
                items = json_of(stored, f"run {row.id}")
                new = [self.ids.get(str(item), item) for item in items]
                if new != items:
                    values[name] = dumps(new)
        if values.keys() - {"response_message_id"} and row.input_hash is not None:
            values["input_hash"] = None  # it is that of the text that is removed
        if (counts := self._found.get(row.prompt_message_id)) is not None:
            values["redaction"] = merged(row.redaction, counts)
        return values

    def _update_message(self, id: str, values: Mapping[str, Any]) -> Executable:
        mine = messages.c.conversation_id == self.id, messages.c.id == id
        return update(messages).where(*mine).values(values)

    async def _owner(self, connection: AsyncConnection) -> HistoryOwner | None:
        """The owner in the keys of its replies, as far as it can be known: a user, not the key of an API."""
        query = select(conversations.c.user_id).where(conversations.c.id == self.id)
        user = (await connection.execute(query)).scalar()
        return HistoryOwner(f"user {user}", timedelta()) if user is not None else None


def _replies(rows: Sequence[Any]) -> dict[str, list[str]]:
    """The messages of each run, in the order of its replies."""
    found: dict[str, list[str]] = {}
    for row in sorted(rows, key=lambda row: (row.created_at, row.id)):
        if row.run_id is not None:
            found.setdefault(row.run_id, []).append(row.id)
    return found


def _key(owner: HistoryOwner | None, prompt: int | None, reply: int) -> int | None:
    """The key of a reply; None if its owner is not known, so that it is found by no request."""
    return thread_key(owner, prompt or 0, reply) if owner is not None else None
