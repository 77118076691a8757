"""The rules of `with_retry`: which errors are tried again, how often, and after which pause. LangChain's arguments."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from recorder.errors import ConfigError
from recorder.models.attempts import ATTEMPT_KEY, Outcome, Pause, Steps, Try
from recorder.models.call_config import merge_tags, run_id_of

#: LangChain's names and defaults of the pauses: the first one, the longest, the factor, and the longest random part.
_PAUSES = {"initial": 1.0, "max": 60.0, "exp_base": 2.0, "jitter": 1.0}

#: Error types, or a function that says whether an error is tried again.
ErrorTypes = tuple[type[BaseException], ...] | type[BaseException] | Callable[[BaseException], bool]


@dataclass(frozen=True, slots=True)
class Retries:
    """Calls one model again after an error. Each attempt is a run of its own, with its number."""

    error_types: ErrorTypes = (Exception,)
    attempts: int = 3
    has_pauses: bool = True
    pauses: Mapping[str, float] | None = None
    #: Gives a number from 0 to 1 for the random part of a pause.
    chance: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        if not isinstance(self.attempts, int) or self.attempts < 1:
            raise ConfigError(
                f"stop_after_attempt is {self.attempts!r}; pass the number of attempts, 1 or more"
            )
        if unknown := sorted(set(self.pauses or ()) - set(_PAUSES)):
            names = ", ".join(_PAUSES)
            raise ConfigError(f"exponential_jitter_params has {unknown[0]!r}; it may have {names}")

    def steps(self, config: dict[str, Any]) -> Steps:
        """The steps of one call: attempts, with a pause before each further one."""
        first_run_id = run_id_of(config.get("run_id"))
        config = {**config, "run_id": first_run_id}
        for number in count(1):
            outcome: Outcome = yield Try(0, config)
            if outcome.error is None or number >= self.attempts or not self._retries(outcome.error):
                break
            if pause := self._pause(number):
                yield Pause(pause)
            config = {
                **config,
                "run_id": None,
                "tags": merge_tags(_without_own(config.get("tags")), [f"{_TAG}{number + 1}"]),
                ATTEMPT_KEY: (number + 1, first_run_id),
            }
        return outcome

    def _retries(self, error: BaseException) -> bool:
        types = self.error_types
        if isinstance(types, (tuple, type)):
            return isinstance(error, types)
        return bool(types(error))

    def _pause(self, number: int) -> float:
        """The seconds after attempt `number`: they double each time, with a random part."""
        if not self.has_pauses:
            return 0.0
        pauses = {**_PAUSES, **(self.pauses or {})}
        try:
            grown = pauses["initial"] * pauses["exp_base"] ** (number - 1)
        except OverflowError:
            return pauses["max"]
        return max(0.0, min(grown + self.chance() * pauses["jitter"], pauses["max"]))


#: LangChain's tag of a further attempt, before its number.
_TAG = "retry:attempt:"


def _without_own(tags: Any) -> list[str]:
    return [tag for tag in tags or () if not tag.startswith(_TAG)]
