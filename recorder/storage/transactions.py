"""Transactions on the one connection of a store, which is made anew whenever it cannot be trusted any more."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncTransaction

from recorder.core.inherited import keep_for_ever
from recorder.storage.dialects import Dialect


class Transactions:
    """One at a time; several verbs may share one."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self._engine: AsyncEngine | None = None
        self._connection: AsyncConnection | None = None
        #: That of a transaction which is open for several verbs.
        self._shared: AsyncConnection | None = None

    @property
    def is_shared(self) -> bool:
        """Whether one is open for several verbs."""
        return self._shared is not None

    async def connected(self) -> AsyncConnection:
        """The connection, which is made where there is none that can be used."""
        found = self._connection
        if found is not None and (self.dialect.is_closed() or self._is_inside_another(found)):
            await self._abandon(found)
        if self._connection is None or self._connection.closed or self._connection.invalidated:
            self._engine = self._engine or self.dialect.engine()
            self._connection = await self._engine.connect()
        return self._connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """One transaction on the one connection; after an error that leaves it unsure, the next has a new one."""
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
            # Whatever was raised, the transaction may be open still: the next one would end with it.
            await self._abandon(connection)
            raise

    @asynccontextmanager
    async def alone(self, conversations: Sequence[str]) -> AsyncIterator[None]:
        """One transaction for all verbs inside; whoever is alone with one of these conversations waits for its end."""
        async with self.transaction() as connection:
            await self.dialect.lock_conversations(connection, conversations)
            self._shared = connection
            try:
                yield
            finally:
                self._shared = None

    async def close(self) -> None:
        """Let go of the database; the next transaction connects again."""
        connection, engine = self._connection, self._engine
        self._connection = self._engine = None
        if connection is not None:
            await self.dialect.close_connection(connection)
        if engine is not None:
            await engine.dispose()

    def leave_to_parent(self) -> None:
        """In a forked child: what is open is the parent's, and nothing here uses or finalizes it; connect anew."""
        keep_for_ever(self._shared, self._connection, self._engine)
        self._shared = self._connection = self._engine = None

    def _is_inside_another(self, connection: AsyncConnection) -> bool:
        """Whether an error left a transaction open; the next one would be a part of it, and never be committed."""
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
                # A fork came between, and nothing was done yet.

    async def _abandon(self, connection: AsyncConnection) -> None:
        """Let go of a connection without asking it for anything more."""
        self._connection = None
        await connection.invalidate()
        await connection.close()

    async def _rolled_back(self, connection: AsyncConnection, transaction: AsyncTransaction) -> bool:
        """Whether the transaction is certainly over."""
        try:
            await transaction.rollback()
        except Exception:
            return False  # the error that led here is the one to raise
        except BaseException:  # cancelled, or cut off: this is the one to raise
            await self._abandon(connection)
            raise
        return True
