"""Pages of a table by its key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Table, and_, or_


def after_key(table: Table, key: Sequence[Any]) -> ColumnElement[bool]:
    """The rows after this one in the order of the key, which has one or two columns.

    A comparison of two rows has no types in SQLAlchemy: Postgres refuses to compare an id with a text.
    """
    first, *more = table.primary_key.columns
    later = [column > value for column, value in zip(more, key[1:], strict=True)]
    return and_(first >= key[0], or_(first > key[0], *later))
