"""The tables, once for both databases.

Ids are dashed lower-case text on SQLite and `uuid` on Postgres, times ISO 8601 text with `Z` on SQLite and
`timestamptz` on Postgres, JSON is text that nobody re-encodes on the way. Rows arrive in batches from many
processes, so no table has a serial id, a foreign key or a constraint across runs; every table that grows with
the tokens is keyed by run or conversation first and can be hash-distributed by it.

The views over these tables are in `recorder/storage/views.py`, the steps between revisions in `migrations/`.
"""

import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, Column, Double, Index, Integer, LargeBinary, MetaData, Table, Text, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

from recorder.core.clock import iso, parse_iso

#: Revisions in `migrations/versions`, oldest first; opening a database compares with these, without alembic.
REVISIONS = ("0001", "0002")
#: The revision that this code reads and writes.
HEAD = REVISIONS[-1]

_DASHED = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def dashed(value: object) -> str:
    """An id as it is stored: dashed, lower case. Takes any UUID object or text of one."""
    written = str(value)
    return written if _DASHED.fullmatch(written) else str(uuid.UUID(written))


class Id(TypeDecorator[str]):
    """A UUID; in Python dashed lower-case `str` (UUID objects are taken too)."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.UUID(as_uuid=False))
        return dialect.type_descriptor(Text())

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else dashed(value)


class Time(TypeDecorator[datetime]):
    """A moment; in Python an aware `datetime` in UTC. Text on SQLite, and text sorts as time does."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.TIMESTAMP(timezone=True))
        return dialect.type_descriptor(Text())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(
                f"{value!r} has no time zone; store aware datetimes, like recorder.core.clock.now()"
            )
        return value if dialect.name == "postgresql" else iso(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if isinstance(value, datetime):
            return value.astimezone(UTC)
        found = parse_iso(value)
        if found.tzinfo is None:
            raise ValueError(f"{value!r:.60} has no time zone")
        return found if found.tzinfo is UTC else found.astimezone(UTC)


class Json(TypeDecorator[str]):
    """JSON as the text it is written in; in Python `str`, byte for byte the same on both databases.

    On Postgres it is `json`, not `jsonb`: that would re-order keys and refuse `\\u0000`. SQLAlchemy's asyncpg
    dialect decodes `json` in the driver: make the engine with `json_deserializer=str` to read the text.
    """

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.JSON())
        return dialect.type_descriptor(Text())

    def bind_processor(self, dialect: Dialect) -> Callable[[str | None], Any] | None:
        return None  # text goes in as it is; the dialect's own would encode a str a second time

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], str | None] | None:
        return None if dialect.name != "postgresql" else _json_text


def _json_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise TypeError(
        f"json came back decoded as {type(value).__name__}; make the engine with json_deserializer=str"
    )


#: Bytes a page of a new SQLite file (`PRAGMA page_size`, before the first table and before WAL). In a table
#: WITHOUT ROWID a row longer than a quarter of a page takes an overflow page: segments of 100 tokens cost
#: 46 bytes a token on pages of 4096, 22 on 8192. Larger pages write more to the WAL: 1040, 1310 and 1530
#: bytes a token for 4096, 8192 and 16384 at 5 tokens a row.
PAGE_SIZE = 8192

#: 64 bits on both: SQLite's INTEGER grows as needed.
Int = BigInteger().with_variant(Integer(), "sqlite")

metadata = MetaData()

#: A thread of messages; the id is the application's own text, or a UUIDv7.
conversations = Table(
    "conversations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("user_id", Text),
    Column("title", Text),
    Column("metadata", Json),
    Column("created_at", Time, nullable=False),
)

# For ids by their beginning. SQLite's key compares bytes and serves; the key on Postgres follows the collation.
Index("conversations_by_prefix", conversations.c.id, postgresql_ops={"id": "text_pattern_ops"}).ddl_if(
    dialect="postgresql"
)

#: One call of one model, one HTTP attempt. `sha256` is there once the run is sealed.
runs = Table(
    "runs",
    metadata,
    Column("id", Id, primary_key=True),
    Column("conversation_id", Text, nullable=False),
    Column("parent_run_id", Id),
    Column("attempt", Int, nullable=False, server_default=text("1")),
    Column("operation", Text, nullable=False),
    Column("provider_name", Text),
    Column("request_model", Text),
    Column("response_model", Text),
    Column("response_id", Text),
    Column("wire", Text),
    Column("status", Text, nullable=False),
    Column("started_at", Time, nullable=False),
    Column("first_token_at", Time),
    Column("ended_at", Time),
    Column("finish_reason", Text),
    Column("error_type", Text),
    Column("error_message", Text),
    Column("input_tokens", Int),
    Column("output_tokens", Int),
    Column("total_tokens", Int),
    Column("usage", Json),
    Column("usage_source", Text, nullable=False, server_default=text("'none'")),
    Column("token_count", Int, nullable=False, server_default=text("0")),
    Column("sha256", Text),
    Column("frames_sha256", Text),
    Column("request", Json),
    Column("input_hash", Text),
    Column("tags", Json),
    Column("metadata", Json),
    Column("prompt_message_id", Id),
    Column("response_message_id", Id),
    Column("producer_id", Id),
    Column("pruned_at", Time),
    # When the newest message of its conversation was said, as it began: the run comes after that one.
    Column("said_at", Time),
    Index("runs_by_conversation", "conversation_id", "started_at"),
    Index("runs_by_started_at", "started_at"),
    Index("runs_by_input_hash", "input_hash"),
)

# The few runs that are open, for the sweep after a process died: a small index however long the history is.
_OPEN = runs.c.status == text("'streaming'")
Index("runs_streaming", runs.c.producer_id, sqlite_where=_OPEN, postgresql_where=_OPEN)

# Runs that have no message yet or never will: for transcripts, and for the newest branch of a conversation.
_UNANSWERED = runs.c.response_message_id.is_(None)
Index("runs_unanswered", runs.c.conversation_id, sqlite_where=_UNANSWERED, postgresql_where=_UNANSWERED)

#: A process that records, and when it last said so: one heartbeat for all its runs. `process` tells it from
#: another one with the same host and pid: boot id, namespace and start time.
producers = Table(
    "producers",
    metadata,
    Column("id", Id, primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Int, nullable=False),
    Column("started_at", Time, nullable=False),
    Column("heartbeat_at", Time, nullable=False),
    Column("process", Text),
)

#: What was said, once. `position` counts ancestors; `run_id` is the run that produced it, NULL for input.
# With rowid, for its rows are long: beside its text a message takes 460 bytes on disk, 870 WITHOUT ROWID.
messages = Table(
    "messages",
    metadata,
    Column("conversation_id", Text, primary_key=True),
    Column("id", Id, primary_key=True),
    Column("parent_id", Id),
    Column("position", Int, nullable=False),
    Column("role", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("parts", Json),
    Column("run_id", Id),
    Column("created_at", Time, nullable=False),
    Index("messages_by_parent", "conversation_id", "parent_id"),
    # The newest message of a conversation is one seek.
    Index("messages_by_time", "conversation_id", "created_at", "position"),
    # The conversations that were spoken in last, without looking at the others.
    Index("messages_by_created_at", "created_at", "conversation_id"),
)

#: Consecutive tokens of one run: `[[at_us, text], [at_us, text, kind], [at_us, text, kind, idx], ...]`.
# WITHOUT ROWID: the run's id is stored once a row, and not a second time in an index. 32 bytes a token on
# disk instead of 38, for 200 interleaved runs with 5 tokens a row.
segments = Table(
    "segments",
    metadata,
    Column("run_id", Id, primary_key=True),
    Column("seq", Int, primary_key=True, autoincrement=False),  # of its first token
    Column("count", Int, nullable=False),
    Column("deltas", Json, nullable=False),
    sqlite_with_rowid=False,
)

#: Consecutive frames of one run, compressed together. `seq` counts frames; `first_delta` is the token to seek
#: by.
# With rowid, for its rows are long. Bytes a frame on disk without and with one, on pages of 8192: 65 and 66
# at 5 frames a row, 43 and 40 at 20, 94 and 39 at 100.
frames = Table(
    "frames",
    metadata,
    Column("run_id", Id, primary_key=True),
    Column("seq", Int, primary_key=True, autoincrement=False),
    Column("first_delta", Int, nullable=False),
    Column("count", Int, nullable=False),
    Column("at_us", Int, nullable=False),  # of its first frame
    Column("data", LargeBinary, nullable=False),
    Column("dictionary", Text),  # name and version of the zstd dictionary
)

#: Tokens of a run that are missing, and why.
gaps = Table(
    "gaps",
    metadata,
    Column("run_id", Id, primary_key=True),
    Column("seq", Int, primary_key=True, autoincrement=False),
    Column("count", Int, nullable=False),
    Column("reason", Text, nullable=False),
    sqlite_with_rowid=False,
)

#: Judgements of a run or of one of its messages; names after OpenTelemetry's `gen_ai.evaluation.*`.
annotations = Table(
    "annotations",
    metadata,
    Column("run_id", Id, primary_key=True),
    Column("id", Id, primary_key=True),
    Column("message_id", Id),
    Column("name", Text, nullable=False),
    Column("label", Text),
    Column("score", Double),
    Column("data", Json),
    Column("created_at", Time, nullable=False),
)
