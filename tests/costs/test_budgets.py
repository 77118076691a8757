"""Budgets are checked when the recorder is made, before anything is opened."""

from __future__ import annotations

from datetime import timedelta
from math import inf, nan
from typing import Any

import pytest

from recorder import Budget, BudgetEvent, ChatHistoryCallback, ConfigError
from recorder.testing import MemoryStore


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 0}, r"limit is 0; a budget is a number of US dollars above zero"),
        ({"limit": -1.5}, r"limit is -1.5; a budget"),
        ({"limit": nan}, r"limit is nan; a budget"),
        ({"limit": inf}, r"limit is inf; a budget"),
        ({"limit": "5"}, r"limit is '5'; a budget"),
        ({"limit": True}, r"limit is True; a budget"),
        ({"limit": 1, "per": "day"}, r"per is 'day'; choose one of 'conversation', 'user'"),
        ({"limit": 1, "within": 60}, r"within is 60; pass a timedelta above zero"),
        ({"limit": 1, "within": timedelta()}, r"within is datetime.timedelta\(0\); pass a timedelta"),
    ],
)
def test_a_budget_is_an_amount_above_zero(options: dict[str, Any], message: str) -> None:
    """The error names the value and what to pass."""
    with pytest.raises(ConfigError, match=message):
        Budget(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budgets": [Budget(1)]}, "budgets is given without on_budget; pass both"),
        ({"on_budget": print}, "on_budget is given without budgets; pass both"),
        ({"budgets": [5.0], "on_budget": print}, r"budgets has 5.0; pass recorder.Budget"),
        ({"budgets": 5.0, "on_budget": print}, r"budgets is 5.0; pass a list of recorder.Budget"),
        ({"budgets": "5", "on_budget": print}, r"budgets is '5'; pass a list of recorder.Budget"),
        ({"budgets": [Budget(1)], "on_budget": 5}, r"on_budget is 5; pass a function"),
        (
            {"budgets": [Budget(1)], "on_budget": print, "store": MemoryStore()},
            "need a database that can be read",
        ),
    ],
)
def test_budgets_and_their_function_go_together(tmp_path: Any, options: dict[str, Any], message: str) -> None:
    """Nothing is opened for options that cannot work."""
    with pytest.raises(ConfigError, match=message):
        ChatHistoryCallback(f"sqlite:///{tmp_path / 'a.db'}", **options)
    assert list(tmp_path.iterdir()) == []


def test_an_event_shows_its_limit() -> None:
    """Its budget's limit and whose it is."""
    event = BudgetEvent(Budget(5, "user"), "anna", 5.1, "run", "conversation")
    assert (event.limit, event.per, event.id, event.spent) == (5, "user", "anna", 5.1)
