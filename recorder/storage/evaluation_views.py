"""The views over annotations: each evaluation with its message and run, and sums by conversation, model and day."""

from __future__ import annotations

from string import Template

from sqlalchemy import BigInteger, Double, TableClause, Text, column, table

from recorder.storage.schema import Id, Json, Time

# Evaluations of runs, then those of messages without a run. They are two parts, so that indexes find those of one
# conversation. `occurred_at` is the time of the message or run, not of its evaluation: an old stream that is evaluated
# today counts for its own day.
_EVALUATIONS = """
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
"""

_GROUPED = """
SELECT $key AS $column,
       e.name AS name,
       e.role AS role,
       count(*) AS count,
       avg(e.score) AS mean_score,
       min(e.score) AS min_score,
       max(e.score) AS max_score
FROM evaluations AS e
GROUP BY $key, e.name, e.role
"""

_DAY = {
    "sqlite": "substr(e.occurred_at, 1, 10)",
    "postgresql": "to_char(e.occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
}


def definitions(dialect: str) -> dict[str, str]:
    """The SELECT of each view by name; for "sqlite" or "postgresql"."""
    groups = {
        "conversation": {"column": "conversation_id", "key": "e.conversation_id"},
        "model": {"column": "model", "key": "e.model"},
        "day": {"column": "day", "key": _DAY[dialect]},
    }
    grouped = Template(_GROUPED)
    return {
        "evaluations": _EVALUATIONS,
        **{f"evaluations_by_{group}": grouped.substitute(words) for group, words in groups.items()},
    }


evaluations = table(
    "evaluations",
    column("run_id", Id),
    column("annotation_id", Id),
    column("conversation_id", Text),
    column("user_id", Text),
    column("model", Text),
    column("message_id", Id),
    column("role", Text),
    column("name", Text),
    column("label", Text),
    column("score", Double),
    column("data", Json),
    column("occurred_at", Time),
    column("created_at", Time),
)


def _grouped(group: str, key: str) -> TableClause:
    return table(
        f"evaluations_by_{group}",
        column(key, Text),
        column("name", Text),
        column("role", Text),
        column("count", BigInteger),
        column("mean_score", Double),
        column("min_score", Double),
        column("max_score", Double),
    )


evaluations_by_conversation = _grouped("conversation", "conversation_id")
evaluations_by_model = _grouped("model", "model")
evaluations_by_day = _grouped("day", "day")

VIEWS = (evaluations, evaluations_by_conversation, evaluations_by_model, evaluations_by_day)
