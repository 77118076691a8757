"""Full-text search over messages, and requests to stop runs.

Revision 0008, after 0007.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"

ID = sa.Text().with_variant(postgresql.UUID(as_uuid=False), "postgresql")
TIME = sa.Text().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
WORDS = sa.Text().with_variant(postgresql.TSVECTOR(), "postgresql")

#: Its rowids are times in microseconds. It holds no text and no positions.
MESSAGE_WORDS = (
    "CREATE VIRTUAL TABLE message_words "
    "USING fts5(words, content='', columnsize=0, detail=none, tokenize='ascii')"
)


def upgrade() -> None:
    """Add the column, which is NULL in older rows until `recorder migrate` fills it, the indexes and the table."""
    op.add_column("messages", sa.Column("words", WORDS))
    is_missing = sa.column("words").is_(None)
    op.create_index(
        "messages_without_words", "messages", ["created_at"],
        sqlite_where=is_missing, postgresql_where=is_missing,
    )  # fmt: skip
    if on_postgres():
        op.create_index("messages_by_words", "messages", ["words"], postgresql_using="gin")
    elif has_fts5():
        op.execute(MESSAGE_WORDS)
    op.create_table(
        "stop_requests",
        sa.Column("run_id", ID, primary_key=True),
        sa.Column("requested_at", TIME, nullable=False),
        sa.Column("requested_by", sa.Text()),
    )


def downgrade() -> None:
    """Drop the tables, the indexes and the column."""
    op.drop_table("stop_requests")
    if on_postgres():
        op.drop_index("messages_by_words", "messages")
    else:
        op.execute("DROP TABLE IF EXISTS message_words")
    op.drop_index("messages_without_words", "messages")
    op.drop_column("messages", "words")


def on_postgres() -> bool:
    """Whether the database is Postgres."""
    return op.get_context().dialect.name == "postgresql"


def has_fts5() -> bool:
    """Whether this SQLite can search texts. Python's usually can; without it everything but the search works."""
    if context.is_offline_mode():
        return True
    found = op.get_bind().execute(sa.text("SELECT 1 FROM pragma_module_list WHERE name = 'fts5'"))
    return found.first() is not None
