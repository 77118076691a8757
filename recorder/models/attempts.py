"""The steps of a call that may need several attempts: which model is called, and when.

The rules are generators of steps (`retries`, `fallbacks`). They do no I/O: `runnable` drives them, blocking or on an
event loop, and sends back how each attempt ended.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

#: The key of a config under which a further attempt has its number and the id of the first attempt's run.
ATTEMPT_KEY = "recorder_attempt"


@dataclass(frozen=True, slots=True)
class Try:
    """Call the model with this number in the list of models."""

    model_number: int
    config: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait before the next attempt (seconds)."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended: with a value, or with an error."""

    value: Any = None
    error: BaseException | None = None

    def result(self) -> Any:
        """The value. Raises the error if there is one."""
        try:
            if self.error is not None:
                raise self.error
            return self.value
        finally:
            del self  # the error's traceback refers to this frame, which would refer to the error


#: Yields steps, is sent the outcome of each attempt, and returns the outcome of the call.
Steps = Generator[Try | Pause, Any, Outcome]


class AttemptRules(Protocol):
    """Says which attempts a call has."""

    def steps(self, config: dict[str, Any]) -> Steps:
        """The steps of one call with this config."""


def attempt_of(config: Any) -> tuple[int, UUID | None]:
    """The number of the attempt that a config is for, and the id of the first one's run; 1 and None for a first one."""
    number, first_run_id = config.get(ATTEMPT_KEY) or (1, None)
    return number, first_run_id
