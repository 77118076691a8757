"""`Store`: the interface of a database for the writer, and the errors that it raises. Imports no library of a database.

`recorder.storage.store.SqlStore` implements it, and `recorder.testing.MemoryStore` does in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Protocol

from recorder.errors import StoreError
from recorder.storage.batch import Batch
from recorder.storage.failures import Failure
from recorder.storage.rows import Producer


class Conflict(StoreError):
    """A row with the same key and another content is stored. Nothing of the batch was stored."""


class RunIdTaken(Conflict):
    """New runs have the ids of other stored runs. Nothing of the batch was stored."""

    def __init__(self, run_ids: Sequence[str]) -> None:
        super().__init__(
            f"Runs {', '.join(run_ids)} are stored already, by another process or as an earlier attempt"
        )
        self.run_ids = frozenset(run_ids)


class ConversationTaken(Conflict):
    """Conversations belong to other users than those who record into them. Nothing of the batch was stored."""

    def __init__(self, keys: Collection[tuple[str, str]]) -> None:
        shown = ", ".join(f"{id} (not of {user})" for id, user in sorted(keys))
        super().__init__(f"These conversations belong to other users: {shown}")
        #: Conversation id and the user to whom it does not belong.
        self.keys = frozenset(keys)


class Moved(StoreError):
    """The file was moved, replaced or damaged. Another file is open, which holds neither the batch nor older ones."""


class Empty(StoreError):
    """The database exists and has no tables of recorder yet."""


class Store(Protocol):
    """The interface of a database for the writer."""

    async def open(self) -> None:
        """Connect, and create or upgrade the tables. Raises `StoreError`."""

    async def append(self, batch: Batch) -> None:
        """Store a batch in one transaction, all of it or nothing. The same batch again changes nothing.

        Writes the rows of its messages into its parts (`message_tree`), unless an earlier attempt did. Raises
        `RunIdTaken` and `ConversationTaken`, and once `Moved` after the database was replaced by another one.
        """

    async def sweep(self, dead: Callable[[Producer], bool], now: datetime) -> int:
        """Mark the open runs of dead producers `interrupted`; how many. A later end of the run overwrites the mark."""

    async def close(self) -> None:
        """Close the connection; a later `open` connects again."""

    def failure(self, error: BaseException) -> Failure:
        """The kind of an error that the methods above raised."""
