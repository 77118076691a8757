"""The first tables and views.

A migration describes one state of the past. It imports nothing of recorder, so that later changes do not change it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

ID = sa.Text().with_variant(postgresql.UUID(as_uuid=False), "postgresql")
TIME = sa.Text().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
JSON = sa.Text().with_variant(postgresql.JSON(), "postgresql")
INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TEXT = sa.Text()
STREAMING = sa.text("status = 'streaming'")

VIEWS_SQLITE = {
    "tokens": """
SELECT s.run_id AS run_id,
       s.seq + d.key AS seq,
       json_extract(d.value, '$[0]') AS at_us,
       coalesce(json_extract(d.value, '$[2]'), 'text') AS kind,
       coalesce(json_extract(d.value, '$[3]'), '0') AS idx,
       json_extract(d.value, '$[1]') AS text
FROM segments AS s, json_each(s.deltas) AS d
""",
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
    "run_stats": """
SELECT r.id AS run_id,
       r.conversation_id AS conversation_id,
       coalesce(r.response_model, r.request_model) AS model,
       r.status AS status,
       CASE WHEN r.sha256 IS NULL THEN coalesce(r.stored, 0) ELSE r.token_count END AS token_count,
       CAST(coalesce(r.first_us, r.us_to_first) AS double precision) / 1000 AS time_to_first_token_ms,
       CAST(coalesce(r.us_to_end, r.last_us) AS double precision) / 1000 AS duration_ms,
       CAST((r.stored - 1) * 1000000 AS double precision)
           / nullif(r.last_us - r.first_us, 0) AS tokens_per_second,
       (
           SELECT CAST(g.us AS double precision) / 1000
           FROM (SELECT d.us, row_number() OVER (ORDER BY d.us) AS nth, count(*) OVER () AS n
                 FROM (SELECT t.at_us - lag(t.at_us) OVER (ORDER BY t.seq) AS us
                       FROM tokens AS t WHERE t.run_id = r.id) AS d
                 WHERE d.us IS NOT NULL) AS g
           WHERE g.nth = (g.n * 50 + 99) / 100) AS gap_p50_ms,
       (
           SELECT CAST(g.us AS double precision) / 1000
           FROM (SELECT d.us, row_number() OVER (ORDER BY d.us) AS nth, count(*) OVER () AS n
                 FROM (SELECT t.at_us - lag(t.at_us) OVER (ORDER BY t.seq) AS us
                       FROM tokens AS t WHERE t.run_id = r.id) AS d
                 WHERE d.us IS NOT NULL) AS g
           WHERE g.nth = (g.n * 95 + 99) / 100) AS gap_p95_ms
FROM (SELECT o.*,
             (SELECT CAST(sum(s.count) AS bigint) FROM segments AS s WHERE s.run_id = o.id) AS stored,
             (SELECT json_extract(s.deltas, '$[0][0]') FROM segments AS s
              WHERE s.run_id = o.id ORDER BY s.seq LIMIT 1) AS first_us,
             (SELECT json_extract(s.deltas, '$[#-1][0]') FROM segments AS s
              WHERE s.run_id = o.id ORDER BY s.seq DESC LIMIT 1) AS last_us,
             (CAST(strftime('%s', substr(o.first_token_at, 1, 19)) AS integer)
                 - CAST(strftime('%s', substr(o.started_at, 1, 19)) AS integer)) * 1000000
                 + CAST(substr(o.first_token_at, 21, 6) AS integer)
                 - CAST(substr(o.started_at, 21, 6) AS integer) AS us_to_first,
             (CAST(strftime('%s', substr(o.ended_at, 1, 19)) AS integer)
                 - CAST(strftime('%s', substr(o.started_at, 1, 19)) AS integer)) * 1000000
                 + CAST(substr(o.ended_at, 21, 6) AS integer)
                 - CAST(substr(o.started_at, 21, 6) AS integer) AS us_to_end
      FROM runs AS o) AS r
""",
}

VIEWS_POSTGRES = {
    "tokens": """
SELECT s.run_id AS run_id,
       s.seq + d.nth - 1 AS seq,
       CAST(d.value ->> 0 AS bigint) AS at_us,
       coalesce(d.value ->> 2, 'text') AS kind,
       coalesce(d.value ->> 3, '0') AS idx,
       d.value ->> 1 AS text
FROM segments AS s CROSS JOIN LATERAL json_array_elements(s.deltas) WITH ORDINALITY AS d(value, nth)
""",
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
    "run_stats": """
SELECT r.id AS run_id,
       r.conversation_id AS conversation_id,
       coalesce(r.response_model, r.request_model) AS model,
       r.status AS status,
       CASE WHEN r.sha256 IS NULL THEN coalesce(r.stored, 0) ELSE r.token_count END AS token_count,
       CAST(coalesce(r.first_us, r.us_to_first) AS double precision) / 1000 AS time_to_first_token_ms,
       CAST(coalesce(r.us_to_end, r.last_us) AS double precision) / 1000 AS duration_ms,
       CAST((r.stored - 1) * 1000000 AS double precision)
           / nullif(r.last_us - r.first_us, 0) AS tokens_per_second,
       (
           SELECT CAST(g.us AS double precision) / 1000
           FROM (SELECT d.us, row_number() OVER (ORDER BY d.us) AS nth, count(*) OVER () AS n
                 FROM (SELECT t.at_us - lag(t.at_us) OVER (ORDER BY t.seq) AS us
                       FROM tokens AS t WHERE t.run_id = r.id) AS d
                 WHERE d.us IS NOT NULL) AS g
           WHERE g.nth = (g.n * 50 + 99) / 100) AS gap_p50_ms,
       (
           SELECT CAST(g.us AS double precision) / 1000
           FROM (SELECT d.us, row_number() OVER (ORDER BY d.us) AS nth, count(*) OVER () AS n
                 FROM (SELECT t.at_us - lag(t.at_us) OVER (ORDER BY t.seq) AS us
                       FROM tokens AS t WHERE t.run_id = r.id) AS d
                 WHERE d.us IS NOT NULL) AS g
           WHERE g.nth = (g.n * 95 + 99) / 100) AS gap_p95_ms
FROM (SELECT o.*,
             (SELECT CAST(sum(s.count) AS bigint) FROM segments AS s WHERE s.run_id = o.id) AS stored,
             (SELECT CAST(s.deltas -> 0 ->> 0 AS bigint) FROM segments AS s
              WHERE s.run_id = o.id ORDER BY s.seq LIMIT 1) AS first_us,
             (SELECT CAST(s.deltas -> -1 ->> 0 AS bigint) FROM segments AS s
              WHERE s.run_id = o.id ORDER BY s.seq DESC LIMIT 1) AS last_us,
             CAST(extract(epoch FROM (o.first_token_at - o.started_at)) * 1000000 AS bigint) AS us_to_first,
             CAST(extract(epoch FROM (o.ended_at - o.started_at)) * 1000000 AS bigint) AS us_to_end
      FROM runs AS o) AS r
""",
}


def upgrade() -> None:
    """Create the tables and views."""
    create_records()
    create_streams()
    on_postgres = op.get_context().dialect.name == "postgresql"
    if on_postgres:
        store_as_they_are()
    views = VIEWS_POSTGRES if on_postgres else VIEWS_SQLITE
    for name, body in views.items():
        op.execute(f"CREATE VIEW {name} AS {body.strip()}")


def store_as_they_are() -> None:
    """Switch off compression: frames are compressed already; for segments it costs a quarter of the tokens a second.

    EXTERNAL: a row over 2 KB goes to the table's TOAST uncompressed. Shorter rows stay in the table.
    """
    op.execute("ALTER TABLE segments ALTER COLUMN deltas SET STORAGE EXTERNAL")
    op.execute("ALTER TABLE frames ALTER COLUMN data SET STORAGE EXTERNAL")


def downgrade() -> None:
    """Drop the views and tables."""
    for name in reversed(VIEWS_SQLITE):
        op.execute(f"DROP VIEW {name}")
    for name in (
        "conversations",
        "runs",
        "producers",
        "messages",
        "segments",
        "frames",
        "gaps",
        "annotations",
    ):
        op.drop_table(name)


def create_records() -> None:
    """Create the tables that get a few rows for each run."""
    op.create_table(
        "conversations",
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("user_id", TEXT),
        sa.Column("title", TEXT),
        sa.Column("metadata", JSON),
        sa.Column("created_at", TIME, nullable=False),
    )
    op.create_table(
        "runs",
        sa.Column("id", ID, primary_key=True),
        sa.Column("conversation_id", TEXT, nullable=False),
        sa.Column("parent_run_id", ID),
        sa.Column("attempt", INT, nullable=False, server_default=sa.text("1")),
        sa.Column("operation", TEXT, nullable=False),
        sa.Column("provider_name", TEXT),
        sa.Column("request_model", TEXT),
        sa.Column("response_model", TEXT),
        sa.Column("response_id", TEXT),
        sa.Column("wire", TEXT),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("first_token_at", TIME),
        sa.Column("ended_at", TIME),
        sa.Column("finish_reason", TEXT),
        sa.Column("error_type", TEXT),
        sa.Column("error_message", TEXT),
        sa.Column("input_tokens", INT),
        sa.Column("output_tokens", INT),
        sa.Column("total_tokens", INT),
        sa.Column("usage", JSON),
        sa.Column("usage_source", TEXT, nullable=False, server_default=sa.text("'none'")),
        sa.Column("token_count", INT, nullable=False, server_default=sa.text("0")),
        sa.Column("sha256", TEXT),
        sa.Column("frames_sha256", TEXT),
        sa.Column("request", JSON),
        sa.Column("input_hash", TEXT),
        sa.Column("tags", JSON),
        sa.Column("metadata", JSON),
        sa.Column("prompt_message_id", ID),
        sa.Column("response_message_id", ID),
        sa.Column("producer_id", ID),
        sa.Column("pruned_at", TIME),
    )
    op.create_index("runs_by_conversation", "runs", ["conversation_id", "started_at"])
    op.create_index("runs_by_input_hash", "runs", ["input_hash"])
    op.create_index("runs_by_started_at", "runs", ["started_at"])
    op.create_index(
        "runs_streaming", "runs", ["producer_id"], sqlite_where=STREAMING, postgresql_where=STREAMING
    )
    op.create_table(
        "producers",
        sa.Column("id", ID, primary_key=True),
        sa.Column("host", TEXT, nullable=False),
        sa.Column("pid", INT, nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("heartbeat_at", TIME, nullable=False),
    )
    op.create_table(
        "messages",
        sa.Column("conversation_id", TEXT, primary_key=True),
        sa.Column("id", ID, primary_key=True),
        sa.Column("parent_id", ID),
        sa.Column("position", INT, nullable=False),
        sa.Column("role", TEXT, nullable=False),
        sa.Column("content", TEXT, nullable=False),
        sa.Column("parts", JSON),
        sa.Column("run_id", ID),
        sa.Column("created_at", TIME, nullable=False),
    )
    op.create_index("messages_by_parent", "messages", ["conversation_id", "parent_id"])
    op.create_table(
        "annotations",
        sa.Column("run_id", ID, primary_key=True),
        sa.Column("id", ID, primary_key=True),
        sa.Column("message_id", ID),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("label", TEXT),
        sa.Column("score", sa.Double()),
        sa.Column("data", JSON),
        sa.Column("created_at", TIME, nullable=False),
    )


def create_streams() -> None:
    """Create the tables that get rows while tokens stream."""
    op.create_table(
        "segments",
        sa.Column("run_id", ID, primary_key=True),
        sa.Column("seq", INT, primary_key=True, autoincrement=False),
        sa.Column("count", INT, nullable=False),
        sa.Column("deltas", JSON, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "frames",
        sa.Column("run_id", ID, primary_key=True),
        sa.Column("seq", INT, primary_key=True, autoincrement=False),
        sa.Column("first_delta", INT, nullable=False),
        sa.Column("count", INT, nullable=False),
        sa.Column("at_us", INT, nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("dictionary", TEXT),
    )
    op.create_table(
        "gaps",
        sa.Column("run_id", ID, primary_key=True),
        sa.Column("seq", INT, primary_key=True, autoincrement=False),
        sa.Column("count", INT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sqlite_with_rowid=False,
    )
