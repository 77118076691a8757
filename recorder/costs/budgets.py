"""Limits of what a conversation or a user may cost, and what is reported when one is passed."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from math import isfinite
from typing import Any, Literal

from recorder.errors import ConfigError

CONVERSATION, USER = "conversation", "user"


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit in US dollars, for each conversation or for each user. Raises `ConfigError` for an invalid value."""

    limit: float
    per: Literal["conversation", "user"] = "conversation"
    #: Only what began in this time counts, up to now. None: everything that is stored.
    within: timedelta | None = None

    def __post_init__(self) -> None:
        given = self.limit
        if (
            isinstance(given, bool)
            or not isinstance(given, (int, float))
            or not isfinite(given)
            or given <= 0
        ):
            raise ConfigError(f"limit is {given!r}; a budget is a number of US dollars above zero")
        if self.per not in (CONVERSATION, USER):
            raise ConfigError(f"per is {self.per!r}; choose one of 'conversation', 'user'")
        if self.within is not None and not (isinstance(self.within, timedelta) and self.within > timedelta()):
            raise ConfigError(f"within is {self.within!r}; pass a timedelta above zero, or None for no limit")


@dataclass(frozen=True, slots=True)
class BudgetEvent:
    """A conversation or a user has cost more than a budget. `on_budget` gets it."""

    budget: Budget
    #: The conversation or the user.
    id: str
    #: What it has cost (US dollars), with what other processes have recorded. Runs without a price are not in it.
    spent: float
    #: A run that passed the limit, and its conversation.
    run_id: str
    conversation_id: str

    @property
    def limit(self) -> float:
        """The limit that was passed (US dollars)."""
        return self.budget.limit

    @property
    def per(self) -> str:
        """Whose limit it is: "conversation" or "user"."""
        return self.budget.per


def checked_budgets(budgets: Any, on_budget: Any) -> tuple[Budget, ...]:
    """The budgets of a configuration. Raises `ConfigError` for what is none, and for one without the other."""
    found: tuple[Any, ...] = (budgets,) if isinstance(budgets, Budget) else _items(budgets)
    for each in found:
        if not isinstance(each, Budget):
            raise ConfigError(f"budgets has {each!r:.60}; pass recorder.Budget(limit=..., per=...)")
    if bool(found) != (on_budget is not None):
        missing, given = ("on_budget", "budgets") if found else ("budgets", "on_budget")
        raise ConfigError(f"{given} is given without {missing}; pass both, or none of them")
    if on_budget is not None and not callable(on_budget):
        raise ConfigError(f"on_budget is {on_budget!r:.60}; pass a function that takes a BudgetEvent")
    return found


def _items(budgets: Any) -> tuple[Any, ...]:
    if not isinstance(budgets, Collection) or isinstance(budgets, (str, bytes)):
        raise ConfigError(f"budgets is {budgets!r:.60}; pass a list of recorder.Budget(limit=..., per=...)")
    return tuple(budgets)


OnBudget = Callable[[BudgetEvent], Any]
