"""`recorder stats --cost`: what the runs used and cost, by model, user and day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy.exc import DBAPIError

from recorder.cli import console, queries
from recorder.costs import fill, price_list
from recorder.errors import MissingExtra, StoreError
from recorder.storage.blocking import BlockingStore
from recorder.storage.dialects import masked
from recorder.storage.failures import error_text
from recorder.storage.store import SqlStore

Row = Mapping[str, Any]

#: What the tables are by, and how many rows each shows at most. JSON has all.
GROUPS = ("model", "user", "day")
_SHOWN = 20
#: The column of each view that names the group; the others are counts and sums.
_KEYS = {"model": "model", "user": "user_id", "day": "day"}
_SUMS = "runs, unpriced_runs, estimated_runs, input_tokens, output_tokens, cost"
_NEWEST_OR_DEAREST = {"day": "day DESC"}
_TOTAL = """
SELECT count(*) AS runs,
    coalesce(sum(CASE WHEN cost IS NULL THEN 1 ELSE 0 END), 0) AS unpriced_runs,
    coalesce(sum(CASE WHEN usage_source = 'estimated' THEN 1 ELSE 0 END), 0) AS estimated_runs,
    CAST(sum(input_tokens) AS bigint) AS input_tokens,
    CAST(sum(output_tokens) AS bigint) AS output_tokens,
    sum(cost) AS cost
FROM run_costs
"""


def run(url: str, *, as_json: bool, fill_in: bool) -> None:
    """Print the costs; with `fill_in` estimate and price the stored runs first. Raises `RecorderError`."""
    filled = asdict(_fill(url)) if fill_in else None
    found = queries.read(url, read)
    if as_json:
        console.print_json({"url": masked(url), **found, **({"filled": filled} if filled else {})})
        return
    if filled:
        console.echo(_filled(filled), "")
    for group in GROUPS:
        _print(group, found[group])
    console.echo(_summary(found["total"]))
    if found["total"]["unpriced_runs"] and not price_list.is_installed():
        console.echo(price_list.install_hint())


async def read(store: SqlStore) -> dict[str, Any]:
    """The sums of each group, the dearest first, days the newest first; and the total."""
    found: dict[str, Any] = {}
    for group in GROUPS:
        key = _KEYS[group]
        order = _NEWEST_OR_DEAREST.get(group, f"coalesce(cost, 0) DESC, runs DESC, {key}")
        found[group] = await store.rows(f"SELECT {key}, {_SUMS} FROM costs_by_{group} ORDER BY {order}")
    [found["total"]] = await store.rows(_TOTAL)
    return found


def _fill(url: str) -> fill.Filled:
    if not price_list.is_installed():
        raise MissingExtra(price_list.install_hint())
    queries.read(url, _nothing)  # raises for a database that is none, before one is created
    try:
        with BlockingStore(url) as database:
            return database.run(fill.fill(database.store))
    except DBAPIError as error:
        raise StoreError(f"{masked(url)} cannot be filled: {error_text(error)}") from error


def _filled(done: Row) -> str:
    left = f" {done['failed']:,} could not be read." if done["failed"] else ""
    return (
        f"Runs without usage or without a cost: {done['examined']:,}. Usage estimated: {done['estimated']:,}. "
        f"Priced by reported usage: {done['priced']:,}.{left}"
    )


async def _nothing(store: SqlStore) -> None:
    """Opening the database is all."""


def _print(group: str, rows: Sequence[Row]) -> None:
    if not rows:
        return
    key = _KEYS[group]
    shown = [
        {
            group: row[key] if row[key] is not None else "(none)",
            "runs": row["runs"],
            "unpriced": row["unpriced_runs"],
            "estimated": row["estimated_runs"],
            "input": row["input_tokens"],
            "output": row["output_tokens"],
            "cost": money(row["cost"]),
        }
        for row in rows[:_SHOWN]
    ]
    console.print_rows(shown)
    if len(rows) > _SHOWN:
        console.echo(f"{len(rows) - _SHOWN:,} more; --json has all")
    console.echo("")


def _summary(total: Row) -> str:
    unpriced = f", {total['unpriced_runs']:,} of them without a price" if total["unpriced_runs"] else ""
    estimated = f", {total['estimated_runs']:,} with estimated usage" if total["estimated_runs"] else ""
    return f"{money(total['cost'])} for {console.plural(total['runs'], 'run')}{unpriced}{estimated}."


def money(amount: float | None) -> str:
    """US dollars, with enough digits for the smallest run."""
    if amount is None:
        return "no cost known"
    return f"${amount:,.2f}" if amount >= 1 else f"${amount:.6f}"
