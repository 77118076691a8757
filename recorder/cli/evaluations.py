"""Evaluations of messages as `recorder show` draws them: a line for each message, and a summary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.text import Text

from recorder.cli.console import plural, styled

Row = Mapping[str, Any]

_BARS = "▁▂▃▄▅▆▇█"
#: The last scores that are drawn.
_DRAWN = 30


def line_of(message: Row) -> Text | None:
    """The evaluations of a message on one line; None without any."""
    shown = [_words(each) for each in message.get("evaluations") or ()]
    return styled(", ".join(shown), "dim", no_wrap=True, overflow="ellipsis") if shown else None


def summary_of(messages: Sequence[Row], *, ascii_only: bool) -> Iterator[Text]:
    """A line for each name that has scores: the means by role, of how many messages, and the scores in their order."""
    scores: dict[str, list[tuple[str, float]]] = {}
    for message in messages:
        for each in message.get("evaluations") or ():
            if each["score"] is not None:
                scores.setdefault(each["name"], []).append((message["role"], each["score"]))
    for name, found in scores.items():
        roles = (_mean(role, found, messages) for role in dict.fromkeys(role for role, _ in found))
        drawn = "" if ascii_only or len(found) < 2 else "  " + _drawn([score for _, score in found])
        yield styled(f"{name}: {', '.join(roles)}{drawn}", "dim")


def _mean(role: str, found: Sequence[tuple[str, float]], messages: Sequence[Row]) -> str:
    own = [score for each, score in found if each == role]
    total = sum(message["role"] == role for message in messages)
    return f"{role} {sum(own) / len(own):+.2f} ({len(own):,} of {plural(total, 'message')})"


def _drawn(scores: Sequence[float]) -> str:
    """A bar for each of the last scores, from -1 to 1 where all are between, else from the least to the greatest."""
    inside = all(-1 <= score <= 1 for score in scores)
    low, high = (-1.0, 1.0) if inside else (min(scores), max(scores))
    most = len(_BARS) - 1
    return "".join(_BARS[round((score - low) / ((high - low) or 1) * most)] for score in scores[-_DRAWN:])


def _words(evaluation: Row) -> str:
    score = "" if evaluation["score"] is None else f"{evaluation['score']:+.2f}"
    return " ".join(part for part in (evaluation["name"], evaluation["label"], score) if part)
