"""The current status of a run: a run is interrupted if it is stored as streaming and its producer is dead.

A recorder that opens the database stores this status. Readers compute it, so they see it before it is stored.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, literal_column, select

from recorder.config import INTERRUPTED_AFTER
from recorder.storage.columns import names_of
from recorder.storage.liveness import is_dead
from recorder.storage.operations import STEPS
from recorder.storage.rows import INTERRUPTED, STREAMING, Producer
from recorder.storage.schema import producers, runs

_FIELDS = names_of(Producer)
_PRODUCER = [producers.c[name].label(f"by_{name}") for name in _FIELDS]
#: A literal and not a parameter, because SQLite uses the partial index of open runs only for a literal.
IS_OPEN = runs.c.status == literal_column(f"'{STREAMING}'")
#: Whether a run calls a model, and is no chain, tool or retriever around such runs.
IS_MODEL_CALL = runs.c.operation.not_in([literal_column(f"'{name}'") for name in STEPS])
#: The same of runs with the alias `r`.
IS_MODEL_CALL_SQL = "r.operation NOT IN ({})".format(", ".join(f"'{name}'" for name in STEPS))
_RECORDS_IT = and_(IS_OPEN, producers.c.id == runs.c.producer_id)


def select_runs(*columns: ColumnElement[Any]) -> Select[Any]:
    """A query of runs whose rows `status_of` accepts; `columns` include `status`."""
    return select(*columns, *_PRODUCER).select_from(runs.outerjoin(producers, _RECORDS_IT))


def status_of(row: Any, moment: datetime) -> str:
    """The current status of a row of such a query; `moment` is now."""
    return StatusesAt(moment).status_of(row)


class StatusesAt:
    """The current statuses of many rows: each producer, of which there are few, is looked at once."""

    def __init__(self, moment: datetime) -> None:
        self._moment = moment
        self._dead: dict[str, bool] = {}

    def status_of(self, row: Any) -> str:
        """As the function of this name."""
        if row.status != STREAMING or row.by_id is None:
            return str(row.status)
        if row.by_id not in self._dead:
            producer = Producer(*(getattr(row, f"by_{name}") for name in _FIELDS))
            self._dead[row.by_id] = is_dead(producer, self._moment, INTERRUPTED_AFTER)
        return INTERRUPTED if self._dead[row.by_id] else STREAMING
