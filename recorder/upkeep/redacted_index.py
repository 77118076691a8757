"""Removes what was redacted from the index of the search, also from its bytes.

On Postgres a row has its words, and goes with them; its index has the words until it is made again (REINDEX).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Executable, text, update

from recorder.storage.dialects.sqlite_words import MERGE, REMOVE, rowid_of
from recorder.storage.schema import messages
from recorder.storage.search.searched_text import words_of_row
from recorder.storage.store import SqlStore

#: Messages of one transaction.
_PAGE = 500


def without_words(rows: Sequence[Any]) -> Iterator[Executable]:
    """What removes the words of deleted messages from SQLite's index. Messages of the same time lose words by it, so
    they are indexed again."""
    for row in rows:
        words = words_of_row(row.role, row.content, row.parts) if row.words is not None else ""
        if words:
            yield text(REMOVE).bindparams(number=rowid_of(row.created_at), words=words)
            yield update(messages).where(messages.c.created_at == row.created_at).values(words=None)


async def index_again(store: SqlStore) -> None:
    """Index the messages that were changed, and write SQLite's index again without the words that were removed."""
    while await store.index_messages(_PAGE):
        pass
    if store.dialect.name == "sqlite" and store.dialect.has_index:
        async with store.transaction() as connection:
            await connection.exec_driver_sql(MERGE)
