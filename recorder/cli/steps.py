"""`recorder show` of a chain, a graph, a tool or a retriever: what it got and returned, and all that ran in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recorder.cli.console import Row, console, facts, moment, print_unpadded, styled, table
from recorder.core.json import dumps
from recorder.storage.operations import STEPS
from recorder.storage.transcript import error_text

#: A run and all runs below it. Within the conversation, which has an index; a parent has none.
RUNS_BELOW = """
WITH RECURSIVE below AS (
    SELECT r.id, 0 AS depth FROM runs AS r WHERE r.id = :id
    UNION ALL
    SELECT r.id, below.depth + 1 FROM below JOIN runs AS r ON r.parent_run_id = below.id
    WHERE r.conversation_id = :conversation AND below.depth < 50)
SELECT below.depth, r.* FROM below JOIN runs AS r ON r.id = below.id ORDER BY r.started_at, r.id
"""
#: Characters of inputs and outputs that are shown.
_SHOWN = 2_000


def is_step(about: Row) -> bool:
    """Whether a row of `runs` is a chain, a tool or a retriever."""
    return about["operation"] in STEPS


def name_of(run: Row) -> str | None:
    """The name of a step, or the model of a run."""
    found: str | None = (run["request"] or {}).get("name") if is_step(run) else None
    return found or run["response_model"] or run["request_model"]


def show(found: Row) -> None:
    """Print a step."""
    screen = console()
    screen.print(styled(f"{found['operation']} {found['id']}", "bold"))
    print_unpadded(facts(_about(found)), soft_wrap=True)
    screen.print()
    columns = ("run", "operation", "name", "status")
    print_unpadded(table(columns, [_line(run) for run in found["runs"]], fold=["name"]))


def _about(found: Row) -> Sequence[tuple[str, Any]]:
    request, output = found["request"] or {}, found["output"] or {}
    return [
        ("name", name_of(found)),
        ("status", found["status"]),
        ("error", error_text(found["error_type"], found["error_message"])),
        ("conversation", found["conversation_id"]),
        ("started", moment(found["started_at"])),
        ("inputs", _shown(request.get("inputs"))),
        ("output", _shown(output.get("output"))),
    ]


def _shown(value: Any) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text):,} characters)"


def _line(run: Row) -> dict[str, Any]:
    indented = "  " * run["depth"] + str(run["operation"])
    return {**run, "run": run["id"], "operation": indented}
