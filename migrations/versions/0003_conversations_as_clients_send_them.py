"""The content hash of messages, the instructions and the input of runs, and the table `context_messages`.

A migration describes one state of the past. It imports nothing of recorder, so that later changes do not change it.
"""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"

TIME = sa.Text().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
ID = sa.Text().with_variant(postgresql.UUID(), "postgresql")
JSON = sa.Text().with_variant(postgresql.JSON(), "postgresql")
INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

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
UNION ALL
SELECT r.conversation_id, c.id, NULL, 1, i.key - json_array_length(r.instructions),
       c.role, c.content, 'complete', NULL, NULL, c.created_at, NULL
FROM runs AS r CROSS JOIN json_each(r.instructions) AS i
     JOIN context_messages AS c ON c.conversation_id = r.conversation_id AND c.id = i.value
WHERE r.id = (SELECT n.id FROM runs AS n WHERE n.conversation_id = r.conversation_id
              ORDER BY n.started_at DESC, n.id DESC LIMIT 1)
""",
    "chathistory": """
SELECT row_number() OVER (ORDER BY t.created_at, t.conversation_id , t.position, t.id) AS id,
       t.role AS role,
       t.content AS content
FROM (SELECT s.created_at, s.conversation_id, s.position, coalesce(s.message_id, s.run_id) AS id, s.role, s.content
      FROM transcripts AS s
      WHERE s.position >= 0 AND (s.message_id IS NOT NULL OR s.content <> '')
      UNION ALL
      SELECT c.created_at, c.conversation_id, -1, c.id, c.role, c.content
      FROM context_messages AS c WHERE c.role IN ('system', 'developer')) AS t
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
UNION ALL
SELECT r.conversation_id, c.id, NULL, 1, i.nth - 1 - json_array_length(r.instructions),
       c.role, c.content, 'complete', NULL, NULL, c.created_at, NULL
FROM runs AS r CROSS JOIN LATERAL json_array_elements_text(r.instructions) WITH ORDINALITY AS i(id, nth)
     JOIN context_messages AS c ON c.conversation_id = r.conversation_id AND c.id = CAST(i.id AS uuid)
WHERE r.id = (SELECT n.id FROM runs AS n WHERE n.conversation_id = r.conversation_id
              ORDER BY n.started_at DESC, n.id DESC LIMIT 1)
""",
    "chathistory": """
SELECT row_number() OVER (ORDER BY t.created_at, t.conversation_id COLLATE "C", t.position, t.id) AS id,
       t.role AS role,
       t.content AS content
FROM (SELECT s.created_at, s.conversation_id, s.position, coalesce(s.message_id, s.run_id) AS id, s.role, s.content
      FROM transcripts AS s
      WHERE s.position >= 0 AND (s.message_id IS NOT NULL OR s.content <> '')
      UNION ALL
      SELECT c.created_at, c.conversation_id, -1, c.id, c.role, c.content
      FROM context_messages AS c WHERE c.role IN ('system', 'developer')) AS t
""",
}

# The views of revision 0002.
OLDER_SQLITE = {
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


def upgrade() -> None:
    """Add the columns, the index and the table, and replace the views."""
    op.add_column("messages", sa.Column("content_hash", INT))
    op.create_index("messages_by_content", "messages", ["conversation_id", "content_hash", "created_at"])
    op.add_column("runs", sa.Column("instructions", JSON))
    op.add_column("runs", sa.Column("input", JSON))
    op.create_table(
        "context_messages",
        sa.Column("conversation_id", sa.Text(), primary_key=True),
        sa.Column("id", ID, primary_key=True),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("parts", JSON),
        sa.Column("created_at", TIME, nullable=False),
    )
    make_views(VIEWS_POSTGRES if on_postgres() else VIEWS_SQLITE)


def downgrade() -> None:
    """Restore the views of revision 0002, and drop the table, the index and the columns."""
    make_views(OLDER_POSTGRES if on_postgres() else OLDER_SQLITE)
    op.drop_table("context_messages")
    op.drop_column("runs", "input")
    op.drop_column("runs", "instructions")
    op.drop_index("messages_by_content", "messages")
    op.drop_column("messages", "content_hash")


def on_postgres() -> bool:
    """Whether the database is Postgres."""
    return op.get_context().dialect.name == "postgresql"


def make_views(views: Mapping[str, str]) -> None:
    """Replace the views. On SQLite a view that uses another one is dropped first."""
    if not on_postgres():
        for name in reversed(list(views)):
            op.execute(f"DROP VIEW {name}")
    # Replaced instead of dropped on Postgres: a user's own views may use them.
    for name, body in views.items():
        op.execute(f"CREATE {'OR REPLACE ' if on_postgres() else ''}VIEW {name} AS {body.strip()}")
