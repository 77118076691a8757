"""What chains, tools and retrievers returned; the views show the runs of models only.

Revision 0006, after 0005.
"""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"

JSON = sa.Text().with_variant(postgresql.JSON(), "postgresql")

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
              AND o.operation NOT IN ('chain', 'execute_tool', 'retrieval')
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
WHERE r.response_message_id IS NULL AND r.operation NOT IN ('chain', 'execute_tool', 'retrieval')
UNION ALL
SELECT r.conversation_id, c.id, NULL, 1, i.key - json_array_length(r.instructions),
       c.role, c.content, 'complete', NULL, NULL, c.created_at, NULL
FROM runs AS r CROSS JOIN json_each(r.instructions) AS i
     JOIN context_messages AS c ON c.conversation_id = r.conversation_id AND c.id = i.value
WHERE r.id = (SELECT n.id FROM runs AS n
              WHERE n.conversation_id = r.conversation_id AND n.operation NOT IN ('chain', 'execute_tool', 'retrieval')
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
      FROM runs AS o WHERE o.operation NOT IN ('chain', 'execute_tool', 'retrieval')) AS r
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
              AND o.operation NOT IN ('chain', 'execute_tool', 'retrieval')
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
WHERE r.response_message_id IS NULL AND r.operation NOT IN ('chain', 'execute_tool', 'retrieval')
UNION ALL
SELECT r.conversation_id, c.id, NULL, 1, i.nth - 1 - json_array_length(r.instructions),
       c.role, c.content, 'complete', NULL, NULL, c.created_at, NULL
FROM runs AS r CROSS JOIN LATERAL json_array_elements_text(r.instructions) WITH ORDINALITY AS i(id, nth)
     JOIN context_messages AS c ON c.conversation_id = r.conversation_id AND c.id = CAST(i.id AS uuid)
WHERE r.id = (SELECT n.id FROM runs AS n
              WHERE n.conversation_id = r.conversation_id AND n.operation NOT IN ('chain', 'execute_tool', 'retrieval')
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
      FROM runs AS o WHERE o.operation NOT IN ('chain', 'execute_tool', 'retrieval')) AS r
""",
}

# The views of revision 0003.
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
    """Add the column, and replace the views."""
    op.add_column("runs", sa.Column("output", JSON))
    make_views(VIEWS_POSTGRES if on_postgres() else VIEWS_SQLITE)


def downgrade() -> None:
    """Restore the views of revision 0003, and drop the column."""
    make_views(OLDER_POSTGRES if on_postgres() else OLDER_SQLITE)
    op.drop_column("runs", "output")


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
