"""The views for users' SQL. They have the same columns and results on both databases.

The views show text as it is stored: NUL, lone surrogates and U+FDD0 are escaped. Recorder itself does not read the
views but seeks segments by key, because a view unfolds all tokens of a run even with a LIMIT. Each figure of
`run_stats` and each partial text is a correlated subquery, so that a query of one run takes milliseconds however many
runs are stored.
"""

from __future__ import annotations

from string import Template

from sqlalchemy import BigInteger, Connection, Double, Text, column, table

from recorder.storage import cost_views, evaluation_views
from recorder.storage.operations import STEPS
from recorder.storage.schema import Id, Time

_TOKENS_SQLITE = """
SELECT s.run_id AS run_id,
       s.seq + d.key AS seq,
       json_extract(d.value, '$[0]') AS at_us,
       coalesce(json_extract(d.value, '$[2]'), 'text') AS kind,
       coalesce(json_extract(d.value, '$[3]'), '0') AS idx,
       json_extract(d.value, '$[1]') AS text
FROM segments AS s, json_each(s.deltas) AS d
"""

_TOKENS_POSTGRES = """
SELECT s.run_id AS run_id,
       s.seq + d.nth - 1 AS seq,
       CAST(d.value ->> 0 AS bigint) AS at_us,
       coalesce(d.value ->> 2, 'text') AS kind,
       coalesce(d.value ->> 3, '0') AS idx,
       d.value ->> 1 AS text
FROM segments AS s CROSS JOIN LATERAL json_array_elements(s.deltas) WITH ORDINALITY AS d(value, nth)
"""

# Every message; then every run of a model without a message: it streams, was interrupted, or ended without any text;
# then the instructions of the conversation's newest run, at positions below 0.
_TRANSCRIPTS = """
SELECT m.conversation_id AS conversation_id,
       m.id AS message_id,
       m.parent_id AS parent_id,
       CASE WHEN m.parent_id IS NULL
            THEN (SELECT count(*) FROM messages AS s
                  WHERE s.conversation_id = m.conversation_id AND s.parent_id IS NULL
                    AND ($created, s.id) <= (m.created_at, m.id))
            ELSE (SELECT count(*) FROM messages AS s
                  WHERE s.conversation_id = m.conversation_id AND s.parent_id = m.parent_id
                    AND ($created, s.id) <= (m.created_at, m.id))
       END AS branch,
       m.position AS position,
       m.role AS role,
       m.content AS content,
       coalesce(r.status, 'complete') AS status,
       coalesce(r.response_model, r.request_model) AS model,
       m.run_id AS run_id,
       m.created_at AS created_at,
       $error AS error
FROM messages AS m LEFT JOIN runs AS r ON r.id = m.run_id
UNION ALL
SELECT r.conversation_id,
       NULL,
       r.prompt_message_id,
       1 + (SELECT count(*) FROM messages AS s
            WHERE s.conversation_id = r.conversation_id
              AND s.parent_id $same r.prompt_message_id)
         + (SELECT count(*) FROM runs AS o
            WHERE o.conversation_id = r.conversation_id
              AND o.prompt_message_id $same r.prompt_message_id
              AND o.response_message_id IS NULL
              AND o.operation NOT IN ($steps)
              AND (o.started_at, o.id) < (r.started_at, r.id)),
       coalesce(p.position + 1, 0),
       'assistant',
       (SELECT $joined
        FROM (SELECT t.seq, t.text FROM tokens AS t
              WHERE t.run_id = r.id
                AND t.kind = 'text' AND (t.idx = '0' OR t.idx LIKE '0.%')
              ORDER BY t.seq) AS a),
       r.status,
       coalesce(r.response_model, r.request_model),
       r.id,
       coalesce(r.first_token_at, r.started_at),
       $error
FROM runs AS r
     LEFT JOIN messages AS p ON p.conversation_id = r.conversation_id AND p.id = r.prompt_message_id
WHERE r.response_message_id IS NULL AND r.operation NOT IN ($steps)
UNION ALL
SELECT r.conversation_id, c.id, NULL, 1, $place - json_array_length(r.instructions),
       c.role, c.content, 'complete', NULL, NULL, c.created_at, NULL
FROM runs AS r CROSS JOIN $instructions
     JOIN context_messages AS c ON c.conversation_id = r.conversation_id AND c.id = $instruction
WHERE r.id = (SELECT n.id FROM runs AS n
              WHERE n.conversation_id = r.conversation_id AND n.operation NOT IN ($steps)
              ORDER BY n.started_at DESC, n.id DESC LIMIT 1)
"""

# The class and the message, as Python prints an exception.
_ERROR = """CASE WHEN r.error_type IS NULL THEN r.error_message
            WHEN coalesce(r.error_message, '') = '' THEN r.error_type
            ELSE r.error_type || ': ' || r.error_message
       END"""

# The three columns that chat programs often have: what was said, and the text of each instruction once. Runs without
# text are left out.
_CHATHISTORY = """
SELECT row_number() OVER (ORDER BY t.created_at, t.conversation_id $bytewise, t.position, t.id) AS id,
       t.role AS role,
       t.content AS content
FROM (SELECT s.created_at, s.conversation_id, s.position, coalesce(s.message_id, s.run_id) AS id, s.role, s.content
      FROM transcripts AS s
      WHERE s.position >= 0 AND (s.message_id IS NOT NULL OR s.content <> '')
      UNION ALL
      SELECT c.created_at, c.conversation_id, -1, c.id, c.role, c.content
      FROM context_messages AS c WHERE c.role IN ('system', 'developer')) AS t
"""

# time_to_first_token_ms starts just before the request is sent. duration_ms ends with the run, or with the newest
# token of an open run. tokens_per_second is from the first token to the last. Percentiles are by nearest rank.
_RUN_STATS = """
SELECT r.id AS run_id,
       r.conversation_id AS conversation_id,
       coalesce(r.response_model, r.request_model) AS model,
       r.status AS status,
       CASE WHEN r.sha256 IS NULL THEN coalesce(r.stored, 0) ELSE r.token_count END AS token_count,
       CAST(coalesce(r.first_us, r.us_to_first) AS double precision) / 1000 AS time_to_first_token_ms,
       CAST(coalesce(r.us_to_end, r.last_us) AS double precision) / 1000 AS duration_ms,
       CAST((r.stored - 1) * 1000000 AS double precision)
           / nullif(r.last_us - r.first_us, 0) AS tokens_per_second,
       $gap_p50 AS gap_p50_ms,
       $gap_p95 AS gap_p95_ms
FROM (SELECT o.*,
             (SELECT CAST(sum(s.count) AS bigint) FROM segments AS s WHERE s.run_id = o.id) AS stored,
             (SELECT $first FROM segments AS s
              WHERE s.run_id = o.id ORDER BY s.seq LIMIT 1) AS first_us,
             (SELECT $last FROM segments AS s
              WHERE s.run_id = o.id ORDER BY s.seq DESC LIMIT 1) AS last_us,
             $us_to_first AS us_to_first,
             $us_to_end AS us_to_end
      FROM runs AS o WHERE o.operation NOT IN ($steps)) AS r
"""

_GAP = """(
           SELECT CAST(g.us AS double precision) / 1000
           FROM (SELECT d.us, row_number() OVER (ORDER BY d.us) AS nth, count(*) OVER () AS n
                 FROM (SELECT t.at_us - lag(t.at_us) OVER (ORDER BY t.seq) AS us
                       FROM tokens AS t WHERE t.run_id = r.id) AS d
                 WHERE d.us IS NOT NULL) AS g
           WHERE g.nth = (g.n * $percent + 99) / 100)"""

# SQLite's date functions round to milliseconds, so the microseconds are taken from the text.
_SINCE_SQLITE = """(CAST(strftime('%s', substr($moment, 1, 19)) AS integer)
                 - CAST(strftime('%s', substr(o.started_at, 1, 19)) AS integer)) * 1000000
                 + CAST(substr($moment, 21, 6) AS integer)
                 - CAST(substr(o.started_at, 21, 6) AS integer)"""
_SINCE_POSTGRES = "CAST(extract(epoch FROM ($moment - o.started_at)) * 1000000 AS bigint)"

_WORDS = {
    "sqlite": {
        # The plus stops SQLite from using the index by time, with which each message would read all messages before it.
        "created": "+s.created_at",
        "same": "IS",
        "bytewise": "",
        "joined": "group_concat(a.text, '')",
        "first": "json_extract(s.deltas, '$[0][0]')",
        "last": "json_extract(s.deltas, '$[#-1][0]')",
        "instructions": "json_each(r.instructions) AS i",
        "instruction": "i.value",
        "place": "i.key",
    },
    "postgresql": {
        "created": "s.created_at",
        "same": "IS NOT DISTINCT FROM",
        "bytewise": 'COLLATE "C"',
        "joined": "string_agg(a.text, '' ORDER BY a.seq)",
        "first": "CAST(s.deltas -> 0 ->> 0 AS bigint)",
        "last": "CAST(s.deltas -> -1 ->> 0 AS bigint)",
        "instructions": "LATERAL json_array_elements_text(r.instructions) WITH ORDINALITY AS i(id, nth)",
        "instruction": "CAST(i.id AS uuid)",
        "place": "i.nth - 1",
    },
}


def definitions(dialect: str) -> dict[str, str]:
    """The SELECT of each view by name, in an order in which they can be created; for "sqlite" or "postgresql"."""
    since = Template(_SINCE_SQLITE if dialect == "sqlite" else _SINCE_POSTGRES)
    words = {
        **_WORDS[dialect],
        "error": _ERROR,
        "steps": ", ".join(f"'{name}'" for name in STEPS),
        "us_to_first": since.substitute(moment="o.first_token_at"),
        "us_to_end": since.substitute(moment="o.ended_at"),
        "gap_p50": Template(_GAP).substitute(percent=50),
        "gap_p95": Template(_GAP).substitute(percent=95),
    }
    selects = {
        "tokens": _TOKENS_SQLITE if dialect == "sqlite" else _TOKENS_POSTGRES,
        "transcripts": Template(_TRANSCRIPTS).substitute(words),
        "chathistory": Template(_CHATHISTORY).substitute(words),
        "run_stats": Template(_RUN_STATS).substitute(words),
        **evaluation_views.definitions(dialect),
        **cost_views.definitions(dialect),
    }
    return {name: body.strip() for name, body in selects.items()}


def create(connection: Connection) -> None:
    """Create the views. The tables exist already."""
    for name, body in definitions(connection.dialect.name).items():
        connection.exec_driver_sql(f"CREATE VIEW {name} AS {body}")


tokens = table(
    "tokens",
    column("run_id", Id),
    column("seq", BigInteger),
    column("at_us", BigInteger),
    column("kind", Text),
    column("idx", Text),
    column("text", Text),
)

transcripts = table(
    "transcripts",
    column("conversation_id", Text),
    column("message_id", Id),
    column("parent_id", Id),
    column("branch", BigInteger),
    column("position", BigInteger),
    column("role", Text),
    column("content", Text),
    column("status", Text),
    column("model", Text),
    column("run_id", Id),
    column("created_at", Time),
    column("error", Text),
)

chathistory = table("chathistory", column("id", BigInteger), column("role", Text), column("content", Text))

run_stats = table(
    "run_stats",
    column("run_id", Id),
    column("conversation_id", Text),
    column("model", Text),
    column("status", Text),
    column("token_count", BigInteger),
    column("time_to_first_token_ms", Double),
    column("duration_ms", Double),
    column("tokens_per_second", Double),
    column("gap_p50_ms", Double),
    column("gap_p95_ms", Double),
)

#: Each view, as SQLAlchemy needs it for queries.
VIEWS = (tokens, transcripts, chathistory, run_stats, *evaluation_views.VIEWS, *cost_views.VIEWS)
