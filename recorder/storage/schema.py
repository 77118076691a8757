"""The tables, defined once for both databases.

Ids are dashed lower-case text on SQLite and `uuid` on Postgres. Times are ISO 8601 text with `Z` on SQLite and
`timestamptz` on Postgres. JSON is text that is stored byte for byte. Rows arrive in batches from many processes, so no
table has a serial id, a foreign key or a constraint across runs. The key of every table that grows with the tokens
begins with the run or the conversation, so the table can be hash-distributed by it.

The columns of a table are those of its row type in `recorder/storage/rows.py`. Keys, defaults and indexes are here. The
views over these tables are in `recorder/storage/views.py`, the steps between revisions in `migrations/`.
"""

import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    DDL,
    BigInteger,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    event,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

from recorder.core.clock import iso, parse_iso
from recorder.storage.columns import Format, columns_of, names_of
from recorder.storage.rows import (
    AnnotationRow,
    ContextMessageRow,
    ConversationRow,
    FrameRow,
    GapRow,
    MessageRow,
    Producer,
    RunRow,
    SegmentRow,
    StopRequest,
)

#: Revisions in `migrations/versions`, oldest first. Opening a database compares with these, without alembic.
REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008")
#: The revision that this code reads and writes.
HEAD = REVISIONS[-1]

_DASHED = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def dashed(value: object) -> str:
    """An id in its stored form, dashed and lower case, from any UUID object or its text. Raises `ValueError`."""
    written = str(value)
    return written if _DASHED.fullmatch(written) else str(uuid.UUID(written))


class Id(TypeDecorator[str]):
    """A UUID; in Python dashed lower-case `str`. Parameters may be UUID objects, too."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.UUID(as_uuid=False))
        return dialect.type_descriptor(Text())

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else dashed(value)


class Time(TypeDecorator[datetime]):
    """A time; in Python an aware `datetime` in UTC. Text on SQLite, which sorts in the order of time."""

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
    """JSON text; in Python `str`, byte for byte the same on both databases.

    On Postgres it is `json`: `jsonb` would re-order keys and refuse `\\u0000`. SQLAlchemy's asyncpg dialect decodes
    `json` in the driver, so create the engine with `json_deserializer=str` to read the text.
    """

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.JSON())
        return dialect.type_descriptor(Text())

    def bind_processor(self, dialect: Dialect) -> Callable[[str | None], Any] | None:
        return None  # the dialect's own processor would encode the text a second time

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], str | None] | None:
        return None if dialect.name != "postgresql" else _json_text


def _json_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise TypeError(
        f"the driver decoded json to {type(value).__name__}; create the engine with json_deserializer=str"
    )


#: The page size of a new SQLite file (bytes; `PRAGMA page_size`, before the first table and before WAL). In a table
#: WITHOUT ROWID a row longer than a quarter of a page takes an overflow page: segments of 100 tokens cost
#: 46 bytes a token on pages of 4096, 22 on 8192. Larger pages write more to the WAL: 1040, 1310 and 1530
#: bytes a token for 4096, 8192 and 16384 at 5 tokens a row.
PAGE_SIZE = 8192

#: 64 bits on both databases: SQLite's INTEGER has up to 8 bytes.
Int = BigInteger().with_variant(Integer(), "sqlite")

#: The words of a message: a `tsvector` on Postgres.
Words = Text().with_variant(postgresql.TSVECTOR(), "postgresql")

#: The type of a column, by its type in a row and by its format.
_TYPES: Mapping[tuple[type[Any], Format | None], Any] = {
    (str, None): Text,
    (str, "escaped"): Text,
    (str, "uuid"): Id,
    (str, "json"): Json,
    (datetime, None): Time,
    (int, None): Int,
    (float, None): Double,
    (bytes, None): LargeBinary,
}


def _columns(row_type: Any, *keys: str, **server_defaults: str) -> Iterator[Column[Any]]:
    """The columns of a row type; `keys` are the primary key."""
    for column in columns_of(row_type):
        yield Column(
            column.name,
            _TYPES[column.type, column.format],
            primary_key=column.name in keys,
            autoincrement=False,
            nullable=column.is_nullable,
            server_default=text(server_defaults[column.name]) if column.name in server_defaults else None,
        )


metadata = MetaData()

#: A thread of messages. The id is text from the application, or a UUIDv7.
conversations = Table("conversations", metadata, *_columns(ConversationRow, "id"))

# Finds the conversations of a user, for what they cost. Conversations without a user have no rows in it.
_HAS_USER = conversations.c.user_id.is_not(None)
Index("conversations_by_user", conversations.c.user_id, sqlite_where=_HAS_USER, postgresql_where=_HAS_USER)

# For queries by the beginning of an id. SQLite's primary key compares bytes and serves them, too; the primary key on
# Postgres follows the collation and does not.
Index("conversations_by_prefix", conversations.c.id, postgresql_ops={"id": "text_pattern_ops"}).ddl_if(
    dialect="postgresql"
)

#: One call of one model, one HTTP attempt. `sha256` is NULL until the run is sealed.
runs = Table(
    "runs",
    metadata,
    *_columns(RunRow, "id", attempt="1", usage_source="'none'", token_count="0"),
    Index("runs_by_conversation", "conversation_id", "started_at"),
    Index("runs_by_started_at", "started_at"),
    Index("runs_by_input_hash", "input_hash"),
)

# The few open runs, for the sweep after a process died. The index stays small however many runs are stored.
_OPEN = runs.c.status == text("'streaming'")
Index("runs_streaming", runs.c.producer_id, sqlite_where=_OPEN, postgresql_where=_OPEN)

# Finds the response that a request of the Responses API names. Runs of other APIs have no rows in it.
_OF_RESPONSES = runs.c.wire == text("'openai.responses'")
Index("runs_by_response", runs.c.response_id, sqlite_where=_OF_RESPONSES, postgresql_where=_OF_RESPONSES)

# Runs without a message: for transcripts, and for the newest branch of a conversation.
_UNANSWERED = runs.c.response_message_id.is_(None)
Index("runs_unanswered", runs.c.conversation_id, sqlite_where=_UNANSWERED, postgresql_where=_UNANSWERED)

#: A process that records, with one heartbeat for all its runs. `process` distinguishes it from another process with the
#: same host and pid: boot id, pid namespace and start time.
producers = Table("producers", metadata, *_columns(Producer, "id"))

#: Each message of a conversation, stored once. `position` is the number of its ancestors. `run_id` is the run that
#: produced it, NULL for input. `words` is derived from the other columns and no part of a row in Python: the words by
#: which the message is found. It is NULL in rows of older versions, until they are indexed. On SQLite it is the empty
#: text, and `MESSAGE_WORDS` has the words.
# With rowid, because its rows are long: beside its text a message takes 460 bytes on disk, 870 WITHOUT ROWID.
messages = Table(
    "messages",
    metadata,
    *_columns(MessageRow, "conversation_id", "id"),
    Column("words", Words),
    Index("messages_by_parent", "conversation_id", "parent_id"),
    # Finds the newest message of a conversation with one seek.
    Index("messages_by_time", "conversation_id", "created_at", "position"),
    # Finds the conversations with the newest messages without reading the others.
    Index("messages_by_created_at", "created_at", "conversation_id"),
    # Finds where a window of the history stands.
    Index("messages_by_content", "conversation_id", "content_hash", "created_at"),
)

# Finds the conversation that a request continues. Only applications with `thread="history"` have rows in it.
_HAS_KEY = messages.c.thread_key.is_not(None)
Index(
    "messages_by_thread_key",
    messages.c.thread_key,
    messages.c.created_at,
    sqlite_where=_HAS_KEY,
    postgresql_where=_HAS_KEY,
)

# Finds the messages that are not indexed yet.
_NOT_INDEXED = messages.c.words.is_(None)
Index(
    "messages_without_words",
    messages.c.created_at,
    sqlite_where=_NOT_INDEXED,
    postgresql_where=_NOT_INDEXED,
)
Index("messages_by_words", messages.c.words, postgresql_using="gin").ddl_if(dialect="postgresql")

#: The table of the index on SQLite. A rowid is the time of the messages in microseconds since 1970 (UTC): the newest
#: messages are found first, and the index of `created_at` finds their rows. It holds neither texts nor positions. The
#: words of messages of the same microsecond are in one row.
MESSAGE_WORDS = "message_words"
_CREATE_MESSAGE_WORDS: Any = DDL(  # type: ignore[no-untyped-call]
    f"CREATE VIRTUAL TABLE {MESSAGE_WORDS} "
    "USING fts5(words, content='', columnsize=0, detail=none, tokenize='ascii')"
)
event.listen(messages, "after_create", _CREATE_MESSAGE_WORDS.execute_if(dialect="sqlite"))

#: Instructions and other messages that runs were sent and nobody said, each text of a conversation once.
context_messages = Table("context_messages", metadata, *_columns(ContextMessageRow, "conversation_id", "id"))

#: Consecutive tokens of one run: `[[at_us, text], [at_us, text, kind], [at_us, text, kind, idx], ...]`.
# WITHOUT ROWID: the run's id is stored once in a row, and not a second time in an index. 32 bytes a token on disk
# instead of 38, for 200 interleaved runs with 5 tokens a row.
segments = Table("segments", metadata, *_columns(SegmentRow, "run_id", "seq"), sqlite_with_rowid=False)

#: Consecutive frames of one run, compressed together. `dictionary` is the name and version of the zstd dictionary.
# With rowid, because its rows are long. Bytes a frame on disk without and with rowid, on pages of 8192: 65 and 66 at 5
# frames a row, 43 and 40 at 20, 94 and 39 at 100.
frames = Table("frames", metadata, *_columns(FrameRow, "run_id", "seq"))

#: Missing tokens of a run, and the reason.
gaps = Table("gaps", metadata, *_columns(GapRow, "run_id", "seq"), sqlite_with_rowid=False)

#: Evaluations of a run or of one of its messages. The names follow OpenTelemetry's `gen_ai.evaluation.*`.
annotations = Table("annotations", metadata, *_columns(AnnotationRow, "run_id", "id"))

# Finds the annotations of messages without a run. Others are found by their run.
_WITHOUT_RUN = annotations.c.conversation_id.is_not(None)
Index(
    "annotations_by_conversation",
    annotations.c.conversation_id,
    sqlite_where=_WITHOUT_RUN,
    postgresql_where=_WITHOUT_RUN,
)

#: Runs that somebody wants to stop. The process that records a run watches for its row.
stop_requests = Table("stop_requests", metadata, *_columns(StopRequest, "run_id"))

#: Row type -> its table, in the order in which the writer stores them.
TABLES: Mapping[type[Any], Table] = {
    Producer: producers,
    ConversationRow: conversations,
    MessageRow: messages,
    ContextMessageRow: context_messages,
    RunRow: runs,
    SegmentRow: segments,
    FrameRow: frames,
    GapRow: gaps,
    AnnotationRow: annotations,
}


def row_columns(row_type: type[Any]) -> list[Column[Any]]:
    """The columns of a row type in its table, in the order of the row."""
    return [TABLES[row_type].c[name] for name in names_of(row_type)]
