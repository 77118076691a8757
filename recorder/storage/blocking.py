"""A store for synchronous code."""

from __future__ import annotations

from recorder.core.blocking_loop import BlockingLoop
from recorder.storage.store import SqlStore


class BlockingStore(BlockingLoop):
    """An open database: `run` blocks until a coroutine of its `store` ends."""

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        """Open the database of a URL. Raises what `SqlStore` and its `open` raise."""
        self.store = SqlStore(url, read_only=read_only)
        super().__init__()
        try:
            self.run(self.store.open())
        except BaseException:  # Ctrl-C may come when the connection is open
            self.close()
            raise

    def close(self) -> None:
        """Close the connection, then the event loop."""
        try:
            self.run(self.store.close())
        finally:
            super().close()
