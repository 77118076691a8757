"""The rules of `with_fallbacks`: which errors make the next model answer. LangChain's arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recorder.models.attempts import ATTEMPT_KEY, Outcome, Steps, Try

#: Keys of a config that belong to the run of the first model only.
_FIRST_ONLY = ("run_id", ATTEMPT_KEY)


@dataclass(frozen=True, slots=True)
class Fallbacks:
    """Calls the models in order until one answers. If none does, the first error is raised."""

    models: int
    error_types: tuple[type[BaseException], ...] = (Exception,)

    def steps(self, config: dict[str, Any]) -> Steps:
        """The steps of one call: one attempt for each model, until one answers."""
        first: Outcome = yield Try(0, config)
        outcome, number = first, 1
        rest = {key: config[key] for key in config if key not in _FIRST_ONLY}
        while isinstance(outcome.error, self.error_types):
            if number == self.models:
                return first
            outcome = yield Try(number, rest)
            number += 1
        return outcome
