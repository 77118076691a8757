"""The table that a campaign prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.faults.campaign import Row

_HEAD = ("fault", "on", "rounds", "acknowledged", "missing", "doubled", "disordered", "in gaps", "verdict")


def printed(rows: Sequence[Row]) -> str:
    """One line for each fault and database; then every breach, with the command that repeats it."""
    cells = [_HEAD, *map(_cells, rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(_HEAD))]
    lines = [_line(line, widths) for line in cells]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join([*lines, *(line for row in rows for line in _breaches(row))])


def _cells(row: Row) -> tuple[str, ...]:
    verdict = row.verdict
    if not row.rounds:
        return row.fault.title, row.database, "0", *[""] * 5, f"left out: {row.left_out}"
    figures = (verdict.acknowledged, verdict.missing, verdict.doubled, verdict.disordered, verdict.gaps)
    words = "EXACT" if verdict.exact else f"BREACH in {len(row.broken)} rounds"
    return row.fault.title, row.database, f"{row.rounds:,}", *(f"{figure:,}" for figure in figures), words


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    left = cells[0].ljust(widths[0]), cells[1].ljust(widths[1])
    figures = (cell.rjust(width) for cell, width in zip(cells[2:-1], widths[2:-1], strict=True))
    return "  ".join([*left, *figures, cells[-1]]).rstrip()


def _breaches(row: Row) -> Iterator[str]:
    if not row.broken:
        return
    yield f"\n{row.fault.title} on {row.database}:"
    yield from (f"  {_shortened(breach)}" for breach in row.verdict.breaches[:10])
    if (more := len(row.verdict.breaches) - 10) > 0:
        yield f"  and {more} more"
    for seed in row.broken[:5]:
        yield (
            f"  repeat it: make faults ARGS='--only {row.fault.name} --on {row.database} "
            f"--seed {seed} --rounds 1'"
        )


def _shortened(breach: str) -> str:
    """The beginning of the text, and its end, where a traceback has its error."""
    return breach if len(breach) <= 600 else f"{breach[:200]} ... {breach[-400:]}"
