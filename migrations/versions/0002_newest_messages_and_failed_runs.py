"""Indexes for newest messages and unanswered runs; the columns `said_at` and `process`.

A migration describes one state of the past. It imports nothing of recorder, so that later changes do not change it.
"""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"

TIME = sa.Text().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
UNANSWERED = sa.text("response_message_id IS NULL")

VIEWS_SQLITE = {
    "transcripts": """
SELECT m.conversation_id AS conversation_id,
       m.id AS message_id,
       m.parent_id AS parent_id,
       CASE WHEN m.parent_id IS NULL
            THEN (SELECT count(*) FROM messages AS s
                  WHERE s.conversation_id = m.conversation_id AND s.parent_id IS NULL
                    AND (+s.created_at, s.id) <= (m.created_at, m.id))
            ELSE (SELECT count(*) FROM messages AS s
                  WHERE s.conversation_id = m.conversation_id AND s.parent_id = m.parent_id
                    AND (+s.created_at, s.id) <= (m.created_at, m.id))
       END AS branch,
       m.position AS position,
       m.role AS role,
       m.content AS content,
       coalesce(r.status, 'complete') AS status,
       coalesce(r.response_model, r.request_model) AS model,
       m.run_id AS run_id,
       m.created_at AS created_at,
       CASE WHEN r.error_type IS NULL THEN r.error_message
            WHEN coalesce(r.error_message, '') = '' THEN r.error_type
            ELSE r.error_type || ': ' || r.error_message
       END AS error
FROM messages AS m LEFT JOIN runs AS r ON r.id = m.run_id
UNION ALL
SELECT r.conversation_id,
       NULL,
       r.prompt_message_id,
       1 + (SELECT count(*) FROM messages AS s
            WHERE s.conversation_id = r.conversation_id
              AND s.parent_id IS r.prompt_message_id)
         + (SELECT count(*) FROM runs AS o
            WHERE o.conversation_id = r.conversation_id
              AND o.prompt_message_id IS r.prompt_message_id
              AND o.response_message_id IS NULL
              AND (o.started_at, o.id) < (r.started_at, r.id)),
       coalesce(p.position + 1, 0),
       'assistant',
       (SELECT group_concat(a.text, '')
        FROM (SELECT t.seq, t.text FROM tokens AS t
              WHERE t.run_id = r.id
                AND t.kind = 'text' AND (t.idx = '0' OR t.idx LIKE '0.%')
              ORDER BY t.seq) AS a),
       r.status,
       coalesce(r.response_model, r.request_model),
       r.id,
       coalesce(r.first_token_at, r.started_at),
       CASE WHEN r.error_type IS NULL THEN r.error_message
            WHEN coalesce(r.error_message, '') = '' THEN r.error_type
            ELSE r.error_type || ': ' || r.error_message
       END
FROM runs AS r
     LEFT JOIN messages AS p ON p.conversation_id = r.conversation_id AND p.id = r.prompt_message_id
WHERE r.response_message_id IS NULL
""",
    "chathistory": """
SELECT row_number() OVER (ORDER BY t.created_at, t.conversation_id , t.position,
                                   coalesce(t.message_id, t.run_id)) AS id,
       t.role AS role,
       t.content AS content
FROM transcripts AS t
WHERE t.message_id IS NOT NULL OR t.content <> ''
""",
}

VIEWS_POSTGRES = {
    "transcripts": """
SELECT m.conversation_id AS conversation_id,
       m.id AS message_id,
       m.parent_id AS parent_id,
       CASE WHEN m.parent_id IS NULL
            THEN (SELECT count(*) FROM messages AS s
                  WHERE s.conversation_id = m.conversation_id AND s.parent_id IS NULL
                    AND (s.created_at, s.id) <= (m.created_at, m.id))
            ELSE (SELECT count(*) FROM messages AS s
                  WHERE s.conversation_id = m.conversation_id AND s.parent_id = m.parent_id
                    AND (s.created_at, s.id) <= (m.created_at, m.id))
       END AS branch,
       m.position AS position,
       m.role AS role,
       m.content AS content,
       coalesce(r.status, 'complete') AS status,
       coalesce(r.response_model, r.request_model) AS model,
       m.run_id AS run_id,
       m.created_at AS created_at,
       CASE WHEN r.error_type IS NULL THEN r.error_message
            WHEN coalesce(r.error_message, '') = '' THEN r.error_type
            ELSE r.error_type || ': ' || r.error_message
       END AS error
FROM messages AS m LEFT JOIN runs AS r ON r.id = m.run_id
UNION ALL
SELECT r.conversation_id,
       NULL,
       r.prompt_message_id,
       1 + (SELECT count(*) FROM messages AS s
            WHERE s.conversation_id = r.conversation_id
              AND s.parent_id IS NOT DISTINCT FROM r.prompt_message_id)
         + (SELECT count(*) FROM runs AS o
            WHERE o.conversation_id = r.conversation_id
              AND o.prompt_message_id IS NOT DISTINCT FROM r.prompt_message_id
              AND o.response_message_id IS NULL
              AND (o.started_at, o.id) < (r.started_at, r.id)),
       coalesce(p.position + 1, 0),
       'assistant',
       (SELECT string_agg(a.text, '' ORDER BY a.seq)
        FROM (SELECT t.seq, t.text FROM tokens AS t
              WHERE t.run_id = r.id
                AND t.kind = 'text' AND (t.idx = '0' OR t.idx LIKE '0.%')
              ORDER BY t.seq) AS a),
       r.status,
       coalesce(r.response_model, r.request_model),
       r.id,
       coalesce(r.first_token_at, r.started_at),
       CASE WHEN r.error_type IS NULL THEN r.error_message
            WHEN coalesce(r.error_message, '') = '' THEN r.error_type
            ELSE r.error_type || ': ' || r.error_message
       END
FROM runs AS r
     LEFT JOIN messages AS p ON p.conversation_id = r.conversation_id AND p.id = r.prompt_message_id
WHERE r.response_message_id IS NULL
""",
    "chathistory": """
SELECT row_number() OVER (ORDER BY t.created_at, t.conversation_id COLLATE "C", t.position,
                                   coalesce(t.message_id, t.run_id)) AS id,
       t.role AS role,
       t.content AS content
FROM transcripts AS t
WHERE t.message_id IS NOT NULL OR t.content <> ''
""",
}

# The views of revision 0001.
OLDER_SQLITE = {
    "transcripts": """
SELECT m.conversation_id AS conversation_id,
       m.id AS message_id,
       m.parent_id AS parent_id,
       CASE WHEN m.parent_id IS NULL
            THEN (SELECT count(*) FROM messages AS s
                  WHERE s.conversation_id = m.conversation_id AND s.parent_id IS NULL
                    AND (s.created_at, s.id) <= (m.created_at, m.id))
            ELSE (SELECT count(*) FROM messages AS s
                  WHERE s.conversation_id = m.conversation_id AND s.parent_id = m.parent_id
                    AND (s.created_at, s.id) <= (m.created_at, m.id))
       END AS branch,
       m.position AS position,
       m.role AS role,
       m.content AS content,
       coalesce(r.status, 'complete') AS status,
       coalesce(r.response_model, r.request_model) AS model,
       m.run_id AS run_id,
       m.created_at AS created_at
FROM messages AS m LEFT JOIN runs AS r ON r.id = m.run_id
UNION ALL
SELECT r.conversation_id,
       NULL,
       r.prompt_message_id,
       1 + (SELECT count(*) FROM messages AS s
            WHERE s.conversation_id = r.conversation_id
              AND s.parent_id IS r.prompt_message_id)
         + (SELECT count(*) FROM runs AS o
            WHERE o.conversation_id = r.conversation_id
              AND o.prompt_message_id IS r.prompt_message_id
              AND o.response_message_id IS NULL
              AND (o.started_at, o.id) < (r.started_at, r.id)
              AND EXISTS (SELECT 1 FROM tokens AS t
                          WHERE t.run_id = o.id AND t.text <> ''
                            AND t.kind = 'text' AND (t.idx = '0' OR t.idx LIKE '0.%'))),
       coalesce(p.position + 1, 0),
       'assistant',
       (SELECT group_concat(a.text, '')
        FROM (SELECT t.seq, t.text FROM tokens AS t
              WHERE t.run_id = r.id
                AND t.kind = 'text' AND (t.idx = '0' OR t.idx LIKE '0.%')
              ORDER BY t.seq) AS a),
       r.status,
       coalesce(r.response_model, r.request_model),
       r.id,
       coalesce(r.first_token_at, r.started_at)
FROM runs AS r
     LEFT JOIN messages AS p ON p.conversation_id = r.conversation_id AND p.id = r.prompt_message_id
WHERE r.response_message_id IS NULL
  AND EXISTS (SELECT 1 FROM tokens AS t
              WHERE t.run_id = r.id AND t.text <> ''
                AND t.kind = 'text' AND (t.idx = '0' OR t.idx LIKE '0.%'))
""",
    "chathistory": """
SELECT row_number() OVER (ORDER BY t.created_at, t.conversation_id , t.position,
                                   coalesce(t.message_id, t.run_id)) AS id,
       t.role AS role,
       t.content AS content
FROM transcripts AS t
""",
}

OLDER_POSTGRES = {
    "transcripts": """
SELECT m.conversation_id AS conversation_id,
       m.id AS message_id,
       m.parent_id AS parent_id,
       CASE WHEN m.parent_id IS NULL
            THEN (SELECT count(*) FROM messages AS s
                  WHERE s.conversation_id = m.conversation_id AND s.parent_id IS NULL
                    AND (s.created_at, s.id) <= (m.created_at, m.id))
            ELSE (SELECT count(*) FROM messages AS s
                  WHERE s.conversation_id = m.conversation_id AND s.parent_id = m.parent_id
                    AND (s.created_at, s.id) <= (m.created_at, m.id))
       END AS branch,
       m.position AS position,
       m.role AS role,
       m.content AS content,
       coalesce(r.status, 'complete') AS status,
       coalesce(r.response_model, r.request_model) AS model,
       m.run_id AS run_id,
       m.created_at AS created_at
FROM messages AS m LEFT JOIN runs AS r ON r.id = m.run_id
UNION ALL
SELECT r.conversation_id,
       NULL,
       r.prompt_message_id,
       1 + (SELECT count(*) FROM messages AS s
            WHERE s.conversation_id = r.conversation_id
              AND s.parent_id IS NOT DISTINCT FROM r.prompt_message_id)
         + (SELECT count(*) FROM runs AS o
            WHERE o.conversation_id = r.conversation_id
              AND o.prompt_message_id IS NOT DISTINCT FROM r.prompt_message_id
              AND o.response_message_id IS NULL
              AND (o.started_at, o.id) < (r.started_at, r.id)
              AND EXISTS (SELECT 1 FROM tokens AS t
                          WHERE t.run_id = o.id AND t.text <> ''
                            AND t.kind = 'text' AND (t.idx = '0' OR t.idx LIKE '0.%'))),
       coalesce(p.position + 1, 0),
       'assistant',
       (SELECT string_agg(a.text, '' ORDER BY a.seq)
        FROM (SELECT t.seq, t.text FROM tokens AS t
              WHERE t.run_id = r.id
                AND t.kind = 'text' AND (t.idx = '0' OR t.idx LIKE '0.%')
              ORDER BY t.seq) AS a),
       r.status,
       coalesce(r.response_model, r.request_model),
       r.id,
       coalesce(r.first_token_at, r.started_at)
FROM runs AS r
     LEFT JOIN messages AS p ON p.conversation_id = r.conversation_id AND p.id = r.prompt_message_id
WHERE r.response_message_id IS NULL
  AND EXISTS (SELECT 1 FROM tokens AS t
              WHERE t.run_id = r.id AND t.text <> ''
                AND t.kind = 'text' AND (t.idx = '0' OR t.idx LIKE '0.%'))
""",
    "chathistory": """
SELECT row_number() OVER (ORDER BY t.created_at, t.conversation_id COLLATE "C", t.position,
                                   coalesce(t.message_id, t.run_id)) AS id,
       t.role AS role,
       t.content AS content
FROM transcripts AS t
""",
}


def upgrade() -> None:
    """Add the indexes and columns, and replace the views."""
    op.create_index("messages_by_time", "messages", ["conversation_id", "created_at", "position"])
    op.create_index("messages_by_created_at", "messages", ["created_at", "conversation_id"])
    op.create_index(
        "runs_unanswered", "runs", ["conversation_id"], sqlite_where=UNANSWERED, postgresql_where=UNANSWERED
    )
    op.add_column("runs", sa.Column("said_at", TIME))
    op.add_column("producers", sa.Column("process", sa.Text()))
    if not on_postgres():
        make_views(VIEWS_SQLITE)
        return
    op.create_index(
        "conversations_by_prefix", "conversations", ["id"], postgresql_ops={"id": "text_pattern_ops"}
    )
    # Replaced instead of dropped: a user's own views may use them.
    for name, body in VIEWS_POSTGRES.items():
        op.execute(f"CREATE OR REPLACE VIEW {name} AS {body.strip()}")


def downgrade() -> None:
    """Restore the views of revision 0001, and drop the indexes and columns."""
    make_views(OLDER_POSTGRES if on_postgres() else OLDER_SQLITE)
    if on_postgres():
        op.drop_index("conversations_by_prefix", "conversations")
    op.drop_column("producers", "process")
    op.drop_column("runs", "said_at")
    op.drop_index("runs_unanswered", "runs")
    op.drop_index("messages_by_created_at", "messages")
    op.drop_index("messages_by_time", "messages")


def on_postgres() -> bool:
    """Whether the database is Postgres."""
    return op.get_context().dialect.name == "postgresql"


def make_views(views: Mapping[str, str]) -> None:
    """Drop and create the views; a view that uses another one is dropped first."""
    for name in reversed(list(views)):
        op.execute(f"DROP VIEW {name}")
    for name, body in views.items():
        op.execute(f"CREATE VIEW {name} AS {body.strip()}")
