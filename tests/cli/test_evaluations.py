"""`recorder show` draws the evaluations of messages: a line for each, and a summary that says how many have a score."""

from __future__ import annotations

from typing import Any

from recorder.cli import evaluations
from recorder.storage import message_evaluations


def message(id: str, role: str, run_id: str | None = None) -> dict[str, Any]:
    """Return the row of a message."""
    return {"message_id": id, "role": role, "run_id": run_id}


def row(key: str, name: str, label: str | None, score: float | None, *, run: bool = False) -> dict[str, Any]:
    """Return the row of an evaluation of a message, or of a run."""
    return {"message_id": None if run else key, "run_id": key, "name": name, "label": label, "score": score}


MESSAGES = [message("m1", "user"), message("m2", "assistant", "r2"), message("m3", "user")]
ROWS = [
    row("m1", "sentiment", "neutral", 0.0),
    row("m1", "sentiment", "negative", -0.5),
    row("m2", "sentiment", "positive", 0.5),
    row("r2", "user_feedback", None, 1.0, run=True),
    row("m3", "language", "de", None),
]


def test_each_message_has_its_newest_evaluations() -> None:
    """Those of its run are shown with it; a message without any has no line."""
    messages = [dict(each) for each in [*MESSAGES, message("m4", "user")]]
    message_evaluations.add_to(messages, ROWS)
    lines = [evaluations.line_of(each) for each in messages]
    assert [line and line.plain for line in lines] == [
        "sentiment negative -0.50",
        "user_feedback +1.00, sentiment positive +0.50",
        "language de",
        None,
    ]


def test_the_summary_says_how_many_messages_have_a_score() -> None:
    """Bars go from -1 to 1, or from the least to the greatest; there are none in ASCII, and none for one score."""
    messages = [dict(each) for each in MESSAGES]
    message_evaluations.add_to(messages, ROWS)
    found = [line.plain for line in evaluations.summary_of(messages, ascii_only=False)]
    mean = "sentiment: user -0.50 (1 of 2 messages), assistant +0.50 (1 of 1 message)"
    assert found == [mean + "  ▃▆", "user_feedback: assistant +1.00 (1 of 1 message)"]
    assert next(evaluations.summary_of(messages, ascii_only=True)).plain == mean
    wide = [dict(message(f"w{score}", "user")) for score in (1, 5, 9)]
    message_evaluations.add_to(wide, [row(f"w{score}", "length", None, float(score)) for score in (1, 5, 9)])
    [line] = evaluations.summary_of(wide, ascii_only=False)
    assert line.plain.endswith("▁▅█")
