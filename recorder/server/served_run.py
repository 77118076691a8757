"""One run that a client of the server has started."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.errors import ConfigError
from recorder.messages import BaseMessage
from recorder.server.chat_models import ServedModel

log = logging.getLogger("recorder")

#: The key in a run's metadata that marks it as a run of a server, which can be stopped. Its value is the hash of the
#: request, so that a repetition is told from another request with the same id.
SERVED = "recorder_request"


@dataclass(slots=True)
class ServedRun:
    """A run under way in this process."""

    run_id: UUID
    model: ServedModel
    conversation_id: str
    user_id: str | None
    messages: Sequence[BaseMessage]
    fingerprint: str
    #: Whether the client can send the request again with the same id.
    is_named: bool = False
    #: The task that calls the model.
    task: asyncio.Task[None] | None = field(default=None, compare=False)

    def cancel(self) -> None:
        """Leave the provider; the run is recorded as cancelled, with what has come. Any thread may call this."""
        if self.task is not None and not self.task.done():
            self.task.get_loop().call_soon_threadsafe(self.task.cancel)

    async def cancelled(self, within: float) -> None:
        """Cancel it and wait for its end, for so many seconds at most."""
        self.cancel()
        if self.task is not None:
            await asyncio.wait({self.task}, timeout=within)

    async def call(self, history: ChatHistoryCallback) -> None:
        """Call the model to the end of its answer. An error of the provider is recorded with the run."""
        handlers: list[Any] = [history]
        if self.is_named:
            handlers.append(FirstOnly(history))
        config = {"callbacks": handlers, "run_id": self.run_id, "metadata": self._metadata()}
        try:
            async with asyncio.timeout(self.model.timeout):
                async with aclosing(self.model.llm.astream(list(self.messages), config)) as chunks:
                    async for _ in chunks:
                        pass
        except TimeoutError:
            log.warning(
                "Run %s took longer than %g seconds and was cancelled", self.run_id, self.model.timeout
            )
        except Exception as error:  # its text, which may repeat the request, is with the run only
            log.warning("Run %s of %r failed: %s", self.run_id, self.model.name, type(error).__name__)

    def _metadata(self) -> dict[str, str]:
        found = {SERVED: self.fingerprint, "conversation_id": self.conversation_id}
        return found if self.user_id is None else {**found, "user_id": self.user_id}


class FirstOnly:
    """Ends a run before the provider is called if another process has started it at the same time.

    The database decides: the run that is stored second gets another id.
    """

    run_inline = True
    raise_error = True

    def __init__(self, history: ChatHistoryCallback) -> None:
        self._history = history

    async def on_chat_model_start(
        self, serialized: Any, messages: Any, *, run_id: UUID, **given: Any
    ) -> None:
        """Wait until the run is stored. Raises `ConfigError` for the second one."""
        await self._history.flush()
        run = self._history.recorder.find(run_id.int)
        if run is not None and run.start.run_id != str(run_id):
            raise ConfigError(
                f"Run {run_id} was started by another process at the same time, and has the answer"
            )
