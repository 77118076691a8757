"""The INSERT statements for SQLite: many rows as multi-row VALUES, and what happens to rows that are stored already."""

from __future__ import annotations

from functools import lru_cache

from sqlalchemy import Table

from recorder.storage.schema import Time


@lru_cache(maxsize=256)
def insert_statement(
    table: Table, columns: tuple[str, ...], update: tuple[str, ...], same: tuple[str, ...], count: int
) -> tuple[str, list[int]]:
    """The statement for `count` rows, and the places of the times in a row."""
    row = "(" + ",".join("?" * len(columns)) + ")"
    names = ",".join(f'"{name}"' for name in columns)
    sql = f'INSERT INTO "{table.name}" ({names}) VALUES {",".join([row] * count)} ON CONFLICT '
    times = [place for place, name in enumerate(columns) if isinstance(table.c[name].type, Time)]
    return sql + _on_conflict(table, update, same), times


def _on_conflict(table: Table, update: tuple[str, ...], same: tuple[str, ...]) -> str:
    if not update:
        return "DO NOTHING"
    sets = ",".join(f'"{name}"=excluded."{name}"' for name in update)
    equal = " AND ".join(f'"{table.name}"."{name}" IS excluded."{name}"' for name in same)
    key = ",".join(column.name for column in table.primary_key)
    return f"({key}) DO UPDATE SET {sets}" + (f" WHERE {equal}" if equal else "")
