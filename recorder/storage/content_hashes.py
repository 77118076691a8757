"""Computes the content hashes of messages that older versions stored without one."""

from __future__ import annotations

from sqlalchemy import Connection, and_, bindparam, or_, select, update
from sqlalchemy.exc import DBAPIError

from recorder.storage.row_checks import readable
from recorder.storage.schema import dashed, messages
from recorder.storage.stored_messages import hash_of_row

#: Messages of one transaction.
_PAGE = 500


def fill_content_hashes(connection: Connection) -> int:
    """Compute the missing hashes, page by page, each in a transaction of its own; how many were computed.

    Reads all messages once. A call that was stopped can be repeated. A damaged row stays without a hash. Raises
    `StoreError` for rows that cannot be read.
    """
    with readable((DBAPIError,)):
        return _fill(connection)


def _fill(connection: Connection) -> int:
    key = messages.c.conversation_id, messages.c.id
    query = select(*key, messages.c.role, messages.c.content, messages.c.parts, messages.c.content_hash)
    query = query.order_by(*key).limit(_PAGE)
    change = update(messages).where(key[0] == bindparam("owner"), key[1] == bindparam("message"))
    page, done = query, 0
    while True:
        with connection.begin():
            rows = connection.execute(page).all()
            found = [(row, hash_of_row(row)) for row in rows if row.content_hash is None]
            values = [
                {"owner": row.conversation_id, "message": row.id, "content_hash": content}
                for row, content in found
                if content is not None and _is_own_id(row.id)
            ]
            if values:
                connection.execute(change, values)
        done += len(values)
        if len(rows) < _PAGE:
            return done
        owner, message = rows[-1].conversation_id, rows[-1].id
        page = query.where(or_(key[0] > owner, and_(key[0] == owner, key[1] > message)))


def _is_own_id(id: object) -> bool:
    """Whether recorder wrote the id; another program may have written any text."""
    try:
        return dashed(id) == id
    except ValueError:
        return False
