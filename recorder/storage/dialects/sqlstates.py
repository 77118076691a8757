"""The kind of failure for each SQLSTATE of Postgres.

Two letters are a class of https://www.postgresql.org/docs/current/errcodes-appendix.html, five are one code.
"""

from __future__ import annotations

from recorder.storage.failures import Failure

#: Servers and poolers that are down or busy, locks, deadlocks, resources. Rows cause these only where a trigger of the
#: user raises such a code.
_DOUBTFUL = (
    "08",  # the connection
    "25",  # the state of the transaction: read-only after a failover, ended by an error
    "26",  # a prepared statement that a pooler does not know
    "40",  # a rollback: deadlocks, serialization
    "53",  # disk, connections
    "55",  # locks
    "57",  # the server shuts down or starts up
    "58",  # the disk of the server
    "72",  # a snapshot that is too old
)
#: The statement took too long or too much memory, or the transaction too long, or the server ended it as idle while a
#: statement was still on its way. A smaller one may succeed.
_SLOW = ("57014", "53200", "25P03", "25P04")
#: Data, constraints, checks of views, limits, and errors that a user's own triggers raise.
_POISON = ("09", "20", "21", "22", "23", "27", "2F", "38", "39", "40002", "44", "54", "P0")
#: Authentication, an unknown database or schema, names, permissions, and settings.
_FATAL = ("0A", "28", "3D", "3F", "42", "55P02")
_KINDS: dict[str, Failure] = {
    **dict.fromkeys(_DOUBTFUL, "doubtful"),
    **dict.fromkeys(_SLOW, "slow"),
    **dict.fromkeys(_POISON, "poison"),
    **dict.fromkeys(_FATAL, "fatal"),
}
#: After these the server has closed the connection, or its transaction is not the one that the driver believes.
_LOST = ("08", "25", "57P")


def failure_of(sqlstate: str) -> Failure:
    """The kind of failure; a five-letter entry takes precedence over its class."""
    fitting = (code for code in _KINDS if sqlstate.startswith(code))
    return _KINDS.get(max(fitting, key=len, default=""), "refused")


def is_lost(sqlstate: str) -> bool:
    """Whether the connection cannot be used after this code."""
    return sqlstate.startswith(_LOST)
