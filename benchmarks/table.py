"""The printed table: plain Markdown, aligned, that can be copied into a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_HEAD = ("what", "best", "all runs", "ratio", "target", "met")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    what: str
    #: The best run, with its unit.
    best: str
    #: Each run in order.
    runs: str = ""
    #: The ratio to another side, and the name of that side.
    ratio: str = ""
    target: str = ""
    #: Whether the target is met; None if there is no target.
    met: bool | None = None

    def cells(self) -> tuple[str, ...]:
        met = "" if self.met is None else "yes" if self.met else "NO"
        return (self.what, self.best, self.runs, self.ratio, self.target, met)


def missing(what: str, why: str) -> Row:
    """A line for a side that could not be measured."""
    return Row(what, "not measured", why)


def each(figures: Sequence[float], form: str = ",.1f") -> str:
    """All runs' figures in one cell."""
    return " / ".join(format(figure, form) for figure in figures)


def printed(title: str, rows: Sequence[Row]) -> str:
    """One section."""
    lines = [_HEAD, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    body = [_line(line, widths) for line in lines]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([f"### {title}", "", body[0], rule, *body[1:], ""])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"
