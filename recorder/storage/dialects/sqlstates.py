"""What Postgres' error codes mean for what is to be stored.

The classes are those of https://www.postgresql.org/docs/current/errcodes-appendix.html, the longer ones are codes.
"""

from __future__ import annotations

from recorder.storage.dialects.common import Failure

#: Servers and poolers that are away or busy, locks, deadlocks, resources: nothing of it comes of the rows.
_TRANSIENT = (
    "08",  # the connection
    "25",  # the state of the transaction: read-only after a failover, ended for being idle
    "26",  # a prepared statement that a pooler does not know
    "40",  # rolled back: deadlocks, serialization
    "53",  # disk, connections
    "55",  # locks
    "57",  # shut down, starting up
    "58",  # the disk of the server
    "72",  # a snapshot
)
#: The statement took too long, or too much: a smaller one may not.
_SLOW = ("57014", "53200", "25P04")
#: Data, constraints, checks of views, limits, and what triggers of the user's own raise.
_POISON = ("09", "20", "21", "22", "23", "27", "2F", "38", "39", "40002", "44", "54", "P0")
#: Who, which database and schema, names, rights, and settings.
_FATAL = ("0A", "28", "3D", "3F", "42", "55P02")
_KINDS: dict[str, Failure] = {
    **dict.fromkeys(_TRANSIENT, "transient"),
    **dict.fromkeys(_SLOW, "slow"),
    **dict.fromkeys(_POISON, "poison"),
    **dict.fromkeys(_FATAL, "fatal"),
}
#: The server closes the connection with these, or is in another transaction than the driver believes, or in none.
_LOST = ("08", "25", "57P")


def kind_of(sqlstate: str) -> Failure:
    """Of two codes that fit the longer one counts."""
    fitting = (code for code in _KINDS if sqlstate.startswith(code))
    return _KINDS.get(max(fitting, key=len, default=""), "refused")


def is_lost(sqlstate: str) -> bool:
    """Whether nothing more can be asked of the connection."""
    return sqlstate.startswith(_LOST)
