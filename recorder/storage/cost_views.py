"""The views over what runs cost: each run, and sums by conversation, user, model and day."""

from __future__ import annotations

from string import Template

from sqlalchemy import BigInteger, Double, TableClause, Text, column, table

from recorder.storage.operations import STEPS
from recorder.storage.schema import Id, Time
from recorder.wire.usage import ESTIMATED_USAGE

# Each run of a model with what it used and cost. Costs are US dollars; NULL where no price is known.
_RUN_COSTS = """
SELECT r.id AS run_id,
       r.conversation_id AS conversation_id,
       c.user_id AS user_id,
       coalesce(r.response_model, r.request_model) AS model,
       r.provider_name AS provider_name,
       r.status AS status,
       r.started_at AS started_at,
       $run_day AS day,
       r.input_tokens AS input_tokens,
       r.output_tokens AS output_tokens,
       r.total_tokens AS total_tokens,
       r.usage_source AS usage_source,
       r.input_cost AS input_cost,
       r.output_cost AS output_cost,
       r.cost AS cost
FROM runs AS r LEFT JOIN conversations AS c ON c.id = r.conversation_id
WHERE r.operation NOT IN ($steps)
"""

# Runs that are unpriced are not in `cost`, so they are counted beside it.
_GROUPED = """
SELECT $key AS $column,
       count(*) AS runs,
       sum(CASE WHEN r.cost IS NULL THEN 1 ELSE 0 END) AS unpriced_runs,
       sum(CASE WHEN r.usage_source = '$estimated' THEN 1 ELSE 0 END) AS estimated_runs,
       CAST(sum(r.input_tokens) AS bigint) AS input_tokens,
       CAST(sum(r.output_tokens) AS bigint) AS output_tokens,
       sum(r.cost) AS cost
FROM run_costs AS r
GROUP BY $key
"""

_DAY = {
    "sqlite": "substr(r.started_at, 1, 10)",
    "postgresql": "to_char(r.started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
}
#: What costs are summed by: the end of the view's name, and its column.
_GROUPS = {"conversation": "conversation_id", "user": "user_id", "model": "model", "day": "day"}


def definitions(dialect: str) -> dict[str, str]:
    """The SELECT of each view by name; for "sqlite" or "postgresql"."""
    words = {"run_day": _DAY[dialect], "steps": ", ".join(f"'{name}'" for name in STEPS)}
    grouped = Template(_GROUPED).safe_substitute(estimated=ESTIMATED_USAGE)
    return {
        "run_costs": Template(_RUN_COSTS).substitute(words),
        **{
            f"costs_by_{group}": Template(grouped).substitute(column=key, key=f"r.{key}")
            for group, key in _GROUPS.items()
        },
    }


run_costs = table(
    "run_costs",
    column("run_id", Id),
    column("conversation_id", Text),
    column("user_id", Text),
    column("model", Text),
    column("provider_name", Text),
    column("status", Text),
    column("started_at", Time),
    column("day", Text),
    column("input_tokens", BigInteger),
    column("output_tokens", BigInteger),
    column("total_tokens", BigInteger),
    column("usage_source", Text),
    column("input_cost", Double),
    column("output_cost", Double),
    column("cost", Double),
)


def _grouped(group: str, key: str) -> TableClause:
    return table(
        f"costs_by_{group}",
        column(key, Text),
        column("runs", BigInteger),
        column("unpriced_runs", BigInteger),
        column("estimated_runs", BigInteger),
        column("input_tokens", BigInteger),
        column("output_tokens", BigInteger),
        column("cost", Double),
    )


VIEWS = (run_costs, *(_grouped(group, key) for group, key in _GROUPS.items()))
