"""What runs cost, what was redacted in them, and views over costs and evaluations.

Revision 0007, after 0006.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"

JSON = sa.Text().with_variant(postgresql.JSON(), "postgresql")

VIEWS_SQLITE = {
    "evaluations": """
SELECT a.run_id AS run_id,
       a.id AS annotation_id,
       r.conversation_id AS conversation_id,
       c.user_id AS user_id,
       coalesce(r.response_model, r.request_model) AS model,
       a.message_id AS message_id,
       CASE WHEN a.message_id IS NULL THEN 'assistant' ELSE m.role END AS role,
       a.name AS name,
       a.label AS label,
       a.score AS score,
       a.data AS data,
       coalesce(m.created_at, r.started_at) AS occurred_at,
       a.created_at AS created_at
FROM annotations AS a
     JOIN runs AS r ON r.id = a.run_id
     LEFT JOIN messages AS m ON m.conversation_id = r.conversation_id AND m.id = a.message_id
     LEFT JOIN conversations AS c ON c.id = r.conversation_id
WHERE a.conversation_id IS NULL
UNION ALL
SELECT a.run_id,
       a.id,
       a.conversation_id,
       c.user_id,
       NULL,
       a.message_id,
       m.role,
       a.name,
       a.label,
       a.score,
       a.data,
       coalesce(m.created_at, a.created_at),
       a.created_at
FROM annotations AS a
     LEFT JOIN messages AS m ON m.conversation_id = a.conversation_id AND m.id = a.message_id
     LEFT JOIN conversations AS c ON c.id = a.conversation_id
WHERE a.conversation_id IS NOT NULL
""",
    "evaluations_by_conversation": """
SELECT e.conversation_id AS conversation_id,
       e.name AS name,
       e.role AS role,
       count(*) AS count,
       avg(e.score) AS mean_score,
       min(e.score) AS min_score,
       max(e.score) AS max_score
FROM evaluations AS e
GROUP BY e.conversation_id, e.name, e.role
""",
    "evaluations_by_model": """
SELECT e.model AS model,
       e.name AS name,
       e.role AS role,
       count(*) AS count,
       avg(e.score) AS mean_score,
       min(e.score) AS min_score,
       max(e.score) AS max_score
FROM evaluations AS e
GROUP BY e.model, e.name, e.role
""",
    "evaluations_by_day": """
SELECT substr(e.occurred_at, 1, 10) AS day,
       e.name AS name,
       e.role AS role,
       count(*) AS count,
       avg(e.score) AS mean_score,
       min(e.score) AS min_score,
       max(e.score) AS max_score
FROM evaluations AS e
GROUP BY substr(e.occurred_at, 1, 10), e.name, e.role
""",
    "run_costs": """
SELECT r.id AS run_id,
       r.conversation_id AS conversation_id,
       c.user_id AS user_id,
       coalesce(r.response_model, r.request_model) AS model,
       r.provider_name AS provider_name,
       r.status AS status,
       r.started_at AS started_at,
       substr(r.started_at, 1, 10) AS day,
       r.input_tokens AS input_tokens,
       r.output_tokens AS output_tokens,
       r.total_tokens AS total_tokens,
       r.usage_source AS usage_source,
       r.input_cost AS input_cost,
       r.output_cost AS output_cost,
       r.cost AS cost
FROM runs AS r LEFT JOIN conversations AS c ON c.id = r.conversation_id
WHERE r.operation NOT IN ('chain', 'execute_tool', 'retrieval')
""",
    "costs_by_conversation": """
SELECT r.conversation_id AS conversation_id,
       count(*) AS runs,
       sum(CASE WHEN r.cost IS NULL THEN 1 ELSE 0 END) AS unpriced_runs,
       sum(CASE WHEN r.usage_source = 'estimated' THEN 1 ELSE 0 END) AS estimated_runs,
       CAST(sum(r.input_tokens) AS bigint) AS input_tokens,
       CAST(sum(r.output_tokens) AS bigint) AS output_tokens,
       sum(r.cost) AS cost
FROM run_costs AS r
GROUP BY r.conversation_id
""",
    "costs_by_user": """
SELECT r.user_id AS user_id,
       count(*) AS runs,
       sum(CASE WHEN r.cost IS NULL THEN 1 ELSE 0 END) AS unpriced_runs,
       sum(CASE WHEN r.usage_source = 'estimated' THEN 1 ELSE 0 END) AS estimated_runs,
       CAST(sum(r.input_tokens) AS bigint) AS input_tokens,
       CAST(sum(r.output_tokens) AS bigint) AS output_tokens,
       sum(r.cost) AS cost
FROM run_costs AS r
GROUP BY r.user_id
""",
    "costs_by_model": """
SELECT r.model AS model,
       count(*) AS runs,
       sum(CASE WHEN r.cost IS NULL THEN 1 ELSE 0 END) AS unpriced_runs,
       sum(CASE WHEN r.usage_source = 'estimated' THEN 1 ELSE 0 END) AS estimated_runs,
       CAST(sum(r.input_tokens) AS bigint) AS input_tokens,
       CAST(sum(r.output_tokens) AS bigint) AS output_tokens,
       sum(r.cost) AS cost
FROM run_costs AS r
GROUP BY r.model
""",
    "costs_by_day": """
SELECT r.day AS day,
       count(*) AS runs,
       sum(CASE WHEN r.cost IS NULL THEN 1 ELSE 0 END) AS unpriced_runs,
       sum(CASE WHEN r.usage_source = 'estimated' THEN 1 ELSE 0 END) AS estimated_runs,
       CAST(sum(r.input_tokens) AS bigint) AS input_tokens,
       CAST(sum(r.output_tokens) AS bigint) AS output_tokens,
       sum(r.cost) AS cost
FROM run_costs AS r
GROUP BY r.day
""",
}

VIEWS_POSTGRES = {
    "evaluations": """
SELECT a.run_id AS run_id,
       a.id AS annotation_id,
       r.conversation_id AS conversation_id,
       c.user_id AS user_id,
       coalesce(r.response_model, r.request_model) AS model,
       a.message_id AS message_id,
       CASE WHEN a.message_id IS NULL THEN 'assistant' ELSE m.role END AS role,
       a.name AS name,
       a.label AS label,
       a.score AS score,
       a.data AS data,
       coalesce(m.created_at, r.started_at) AS occurred_at,
       a.created_at AS created_at
FROM annotations AS a
     JOIN runs AS r ON r.id = a.run_id
     LEFT JOIN messages AS m ON m.conversation_id = r.conversation_id AND m.id = a.message_id
     LEFT JOIN conversations AS c ON c.id = r.conversation_id
WHERE a.conversation_id IS NULL
UNION ALL
SELECT a.run_id,
       a.id,
       a.conversation_id,
       c.user_id,
       NULL,
       a.message_id,
       m.role,
       a.name,
       a.label,
       a.score,
       a.data,
       coalesce(m.created_at, a.created_at),
       a.created_at
FROM annotations AS a
     LEFT JOIN messages AS m ON m.conversation_id = a.conversation_id AND m.id = a.message_id
     LEFT JOIN conversations AS c ON c.id = a.conversation_id
WHERE a.conversation_id IS NOT NULL
""",
    "evaluations_by_conversation": """
SELECT e.conversation_id AS conversation_id,
       e.name AS name,
       e.role AS role,
       count(*) AS count,
       avg(e.score) AS mean_score,
       min(e.score) AS min_score,
       max(e.score) AS max_score
FROM evaluations AS e
GROUP BY e.conversation_id, e.name, e.role
""",
    "evaluations_by_model": """
SELECT e.model AS model,
       e.name AS name,
       e.role AS role,
       count(*) AS count,
       avg(e.score) AS mean_score,
       min(e.score) AS min_score,
       max(e.score) AS max_score
FROM evaluations AS e
GROUP BY e.model, e.name, e.role
""",
    "evaluations_by_day": """
SELECT to_char(e.occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS day,
       e.name AS name,
       e.role AS role,
       count(*) AS count,
       avg(e.score) AS mean_score,
       min(e.score) AS min_score,
       max(e.score) AS max_score
FROM evaluations AS e
GROUP BY to_char(e.occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD'), e.name, e.role
""",
    "run_costs": """
SELECT r.id AS run_id,
       r.conversation_id AS conversation_id,
       c.user_id AS user_id,
       coalesce(r.response_model, r.request_model) AS model,
       r.provider_name AS provider_name,
       r.status AS status,
       r.started_at AS started_at,
       to_char(r.started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS day,
       r.input_tokens AS input_tokens,
       r.output_tokens AS output_tokens,
       r.total_tokens AS total_tokens,
       r.usage_source AS usage_source,
       r.input_cost AS input_cost,
       r.output_cost AS output_cost,
       r.cost AS cost
FROM runs AS r LEFT JOIN conversations AS c ON c.id = r.conversation_id
WHERE r.operation NOT IN ('chain', 'execute_tool', 'retrieval')
""",
    "costs_by_conversation": """
SELECT r.conversation_id AS conversation_id,
       count(*) AS runs,
       sum(CASE WHEN r.cost IS NULL THEN 1 ELSE 0 END) AS unpriced_runs,
       sum(CASE WHEN r.usage_source = 'estimated' THEN 1 ELSE 0 END) AS estimated_runs,
       CAST(sum(r.input_tokens) AS bigint) AS input_tokens,
       CAST(sum(r.output_tokens) AS bigint) AS output_tokens,
       sum(r.cost) AS cost
FROM run_costs AS r
GROUP BY r.conversation_id
""",
    "costs_by_user": """
SELECT r.user_id AS user_id,
       count(*) AS runs,
       sum(CASE WHEN r.cost IS NULL THEN 1 ELSE 0 END) AS unpriced_runs,
       sum(CASE WHEN r.usage_source = 'estimated' THEN 1 ELSE 0 END) AS estimated_runs,
       CAST(sum(r.input_tokens) AS bigint) AS input_tokens,
       CAST(sum(r.output_tokens) AS bigint) AS output_tokens,
       sum(r.cost) AS cost
FROM run_costs AS r
GROUP BY r.user_id
""",
    "costs_by_model": """
SELECT r.model AS model,
       count(*) AS runs,
       sum(CASE WHEN r.cost IS NULL THEN 1 ELSE 0 END) AS unpriced_runs,
       sum(CASE WHEN r.usage_source = 'estimated' THEN 1 ELSE 0 END) AS estimated_runs,
       CAST(sum(r.input_tokens) AS bigint) AS input_tokens,
       CAST(sum(r.output_tokens) AS bigint) AS output_tokens,
       sum(r.cost) AS cost
FROM run_costs AS r
GROUP BY r.model
""",
    "costs_by_day": """
SELECT r.day AS day,
       count(*) AS runs,
       sum(CASE WHEN r.cost IS NULL THEN 1 ELSE 0 END) AS unpriced_runs,
       sum(CASE WHEN r.usage_source = 'estimated' THEN 1 ELSE 0 END) AS estimated_runs,
       CAST(sum(r.input_tokens) AS bigint) AS input_tokens,
       CAST(sum(r.output_tokens) AS bigint) AS output_tokens,
       sum(r.cost) AS cost
FROM run_costs AS r
GROUP BY r.day
""",
}


def upgrade() -> None:
    """Add the columns, which are NULL in older rows, the indexes and the views."""
    for name in ("input_cost", "output_cost", "cost"):
        op.add_column("runs", sa.Column(name, sa.Double()))
    for name in ("price", "redaction"):
        op.add_column("runs", sa.Column(name, JSON))
    op.add_column("annotations", sa.Column("conversation_id", sa.Text()))
    create_index("conversations_by_user", "conversations", "user_id")
    create_index("annotations_by_conversation", "annotations", "conversation_id")
    for name, body in views().items():
        op.execute(f"CREATE VIEW {name} AS {body.strip()}")


def downgrade() -> None:
    """Drop the views, the indexes and the columns."""
    for name in reversed(list(views())):
        op.execute(f"DROP VIEW {name}")
    op.drop_index("annotations_by_conversation", "annotations")
    op.drop_index("conversations_by_user", "conversations")
    op.drop_column("annotations", "conversation_id")
    for name in ("redaction", "price", "cost", "output_cost", "input_cost"):
        op.drop_column("runs", name)


def views() -> dict[str, str]:
    """The new views of this database, in an order in which they can be created."""
    return VIEWS_POSTGRES if op.get_context().dialect.name == "postgresql" else VIEWS_SQLITE


def create_index(name: str, table: str, column: str) -> None:
    """An index of the rows that have a value in this column."""
    has_value = sa.column(column).is_not(None)
    op.create_index(name, table, [column], sqlite_where=has_value, postgresql_where=has_value)
