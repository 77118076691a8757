"""Transactions on a store's only connection. It is replaced after an error that may have left it in a wrong state."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncTransaction

from recorder.core.after_fork import never_finalize
from recorder.storage.dialects import Dialect


class Transactions:
    """One transaction at a time. Several calls of the store may share one."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self._engine: AsyncEngine | None = None
        self._connection: AsyncConnection | None = None
        #: The connection while several calls share its transaction.
        self._shared: AsyncConnection | None = None

    @property
    def is_shared(self) -> bool:
        """Whether several calls share the open transaction."""
        return self._shared is not None

    async def connected(self) -> AsyncConnection:
        """The connection; a new one if there is none that can be used."""
        connection = self._connection
        if connection is not None and (self.dialect.is_closed() or self._has_open_transaction(connection)):
            await self._abandon(connection)
        while self._connection is None or self._connection.closed or self._connection.invalidated:
            self._engine = self._engine or self.dialect.engine()
            try:
                self._connection = await self._engine.connect()
            except Exception as error:
                if not self.dialect.ended_by_fork(error):
                    raise
                # A fork closed the connection while it was being set up, so try again.
        return self._connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """One transaction. If an error breaks the connection, the next transaction has a new one."""
        if self._shared is not None:
            yield self._shared
            return
        connection, transaction = await self._begun()
        try:
            yield connection
        except BaseException as error:
            if self.dialect.breaks_connection(error) or not await self._rolled_back(connection, transaction):
                await self._abandon(connection)
            raise
        try:
            await transaction.commit()
        except BaseException:
            # The transaction may still be open, whatever was raised; the next one must not become a part of it.
            await self._abandon(connection)
            raise

    @asynccontextmanager
    async def locking(self, conversations: Sequence[str]) -> AsyncIterator[None]:
        """One transaction, shared by all calls inside, with a lock for each conversation."""
        async with self.transaction() as connection:
            await self.dialect.lock_conversations(connection, conversations)
            self._shared = connection
            try:
                yield
            finally:
                self._shared = None

    async def close(self) -> None:
        """Close the connection. The next transaction connects again."""
        connection, engine = self._connection, self._engine
        self._connection = self._engine = None
        if connection is not None:
            await self.dialect.close_connection(connection)
        if engine is not None:
            await engine.dispose()

    def leave_to_parent(self) -> None:
        """In a forked child: never use or finalize the parent's connection. The next transaction connects again."""
        never_finalize(self._shared, self._connection, self._engine)
        self._shared = self._connection = self._engine = None

    def _has_open_transaction(self, connection: AsyncConnection) -> bool:
        """Whether an error left a transaction open. The next one would be a part of it and never be committed."""
        return not (connection.closed or connection.invalidated) and self.dialect.in_transaction(connection)

    async def _begun(self) -> tuple[AsyncConnection, AsyncTransaction]:
        while True:
            try:
                connection = await self.connected()
                return connection, await connection.begin()
            except BaseException as error:
                if not self.dialect.breaks_connection(error):
                    raise
                if self._connection is not None:
                    await self._abandon(self._connection)
                if not self.dialect.is_closed():
                    raise
                # A fork closed the connection before anything was done, so try again.

    async def _abandon(self, connection: AsyncConnection) -> None:
        """Close a connection without another statement."""
        self._connection = None
        await connection.invalidate()
        await connection.close()

    async def _rolled_back(self, connection: AsyncConnection, transaction: AsyncTransaction) -> bool:
        """Roll back; whether the transaction has certainly ended."""
        try:
            await transaction.rollback()
        except Exception:
            return False  # the caller raises the error that came before this one
        except BaseException:  # cancelled, or the process exits: this error is raised
            await self._abandon(connection)
            raise
        return True
