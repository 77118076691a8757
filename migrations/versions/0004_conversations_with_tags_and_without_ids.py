"""Tags of conversations, and a key by which the conversation of a request without an id is found.

Revision 0004, after 0003.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"

JSON = sa.Text().with_variant(postgresql.JSON(), "postgresql")
INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the columns and the index."""
    op.add_column("conversations", sa.Column("tags", JSON))
    op.add_column("messages", sa.Column("thread_key", INT))
    has_key = sa.column("thread_key").is_not(None)
    op.create_index(
        "messages_by_thread_key",
        "messages",
        ["thread_key", "created_at"],
        sqlite_where=has_key,
        postgresql_where=has_key,
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_index("messages_by_thread_key", "messages")
    op.drop_column("messages", "thread_key")
    op.drop_column("conversations", "tags")
