"""What analyzers return becomes an evaluation, or an error that says what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from recorder.analysis.evaluation import Evaluation, evaluation_from


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        (None, None),
        ("good", Evaluation("good")),
        (0.5, Evaluation(score=0.5)),
        (3, Evaluation(score=3.0)),
        (True, Evaluation(score=1.0)),
        ({"label": "a", "score": 1}, Evaluation("a", 1.0)),
        ({"toxic": 0.1}, Evaluation(data={"toxic": 0.1})),
        (Evaluation("x", data={"why": ("a",)}), Evaluation("x", data={"why": ["a"]})),
    ],
)
def test_results_of_analyzers(returned: Any, expected: Evaluation | None) -> None:
    """A label, a score, a dict and an Evaluation are accepted."""
    assert evaluation_from(returned) == expected


@pytest.mark.parametrize(
    "returned",
    [
        object(), [1], "", "x" * 300, float("nan"), float("inf"), 10**400, {}, {"label": 3}, {"score": "high"},
        {"data": [1]}, {"data": {"x": "y" * 20_000}},
    ],
    ids=lambda value: type(value).__name__ + str(value)[:10] if type(value) is not object else "object",
)  # fmt: skip
def test_rubbish_is_an_error(returned: Any) -> None:
    """The error says what may be returned."""
    with pytest.raises(ValueError):
        evaluation_from(returned)
