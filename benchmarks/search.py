"""The search among a million messages, what its index takes, and what recording takes with it."""

from __future__ import annotations

import random
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from typing import Any

from benchmarks.harness import Measured, Settings, Side, best, compare, values
from benchmarks.peers import expect
from benchmarks.table import Row, each
from recorder import ChatHistoryCallback
from recorder.cli import queries
from recorder.messages import AIMessage, ChatGeneration, HumanMessage, LLMResult
from recorder.storage import inserts, migrate
from recorder.storage.conversation_filter import ConversationFilter
from recorder.storage.conversation_list import page
from recorder.storage.dialects import parse_url
from recorder.storage.search.search import SearchPage, search_page
from tests import postgres

TITLE = "The search"
KINDS = ("sqlite", "postgres")
#: Different words, the first ones far more frequent; and words of a message.
_VOCABULARY, _LENGTH = 5_000, 15
#: Messages of a conversation, and conversations of a user.
_MESSAGES, _CONVERSATIONS = 10, 100
#: Hits of a page, and conversations of a page of the list, which is measured in the same database.
_PAGE, _LISTED = 20, 50
#: What is searched for: name -> query, and whether one user's messages are.
_QUERIES = {
    "a word of most messages": ("w1", False),
    "a word of 1 % of them": ("w130", False),
    "a word of 0.1 %": ("w1500", False),
    "a word of three messages": ("needle", False),
    "a word that nobody wrote": ("nobody", False),
    "two frequent words": ("w2 w3", False),
    "two rare words": ("w1500 w1700", False),
    "a phrase": ('"w1 w2"', False),
    "a frequent word of one user": ("w1", True),
    "a rare word of one user": ("w1500", True),
}
_ROWS_POSTGRES = f"""
INSERT INTO messages (conversation_id, id, position, role, content, created_at)
SELECT 'c' || n / {_MESSAGES}, ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, n % {_MESSAGES}, 'user',
    t.words || CASE WHEN n % 333333 = 100 THEN ' needle' ELSE '' END, to_timestamp(1700000000 + n)
FROM generate_series(0, {{count}} - 1) AS s(n) CROSS JOIN LATERAL (
    SELECT string_agg('w' || floor(exp(random() * ln({_VOCABULARY})))::int, ' ') AS words
    FROM generate_series(1, {_LENGTH}) WHERE n = n) AS t
"""
_FILL_POSTGRES = (
    "DROP INDEX messages_by_words, messages_without_words",
    _ROWS_POSTGRES,
    "UPDATE messages SET words = strip(to_tsvector('simple', content))",
    "CREATE INDEX messages_by_words ON messages USING gin (words)",
    "CREATE INDEX messages_without_words ON messages (created_at) WHERE words IS NULL",
    f"""INSERT INTO conversations (id, user_id, created_at)
    SELECT 'c' || n, 'u' || n / {_CONVERSATIONS}, now() FROM generate_series(0, {{count}} / {_MESSAGES} - 1) AS s(n)""",
    "VACUUM ANALYZE",
)  # fmt: skip
_BYTES = {
    "sqlite": "SELECT sum(length(block)) AS bytes FROM message_words_data",
    "postgres": "SELECT pg_relation_size('messages_by_words') + sum(pg_column_size(words)) AS bytes FROM messages",
}


def rows(settings: Settings) -> list[Row]:
    """On both databases; recording on SQLite."""
    count, size = settings.size(1_000_000, 50_000), settings.size(400, 50)
    sides = {
        kind: Side("benchmarks.search:searched", {"kind": kind, "count": count}, folder=True)
        for kind in KINDS
    }
    found = compare(sides, 1)
    lines = [row for kind in KINDS for row in _search_rows(kind, found[kind], count)]
    works = ("stream", "add")
    recording = compare(
        {
            f"{work} {on}": Side(
                "benchmarks.search:recorded", {"work": work, "size": size, "is_indexed": on}, folder=True
            )
            for work in works
            for on in (True, False)
        },
        max(settings.rounds, 3),
    )
    names = {"stream": "runs of 150 words", "add": "messages that are added"}
    return lines + [_recording_row(names[work], work, recording) for work in works]


def _search_rows(kind: str, found: list[Measured], count: int) -> list[Row]:
    among = f"among {count:,} messages, {kind}"
    slowest = max(best(found, name) for name in _QUERIES)
    lines = [
        Row(f"{name} {among}", f"{best(found, name):.1f} ms", each(values(found, name))) for name in _QUERIES
    ]
    listed = best(found, "list")
    return [
        Row(f"the slowest first page of {len(_QUERIES)} {among}", f"{slowest:.1f} ms", "", "", "under 50 ms",
            slowest < 50),
        *lines,
        Row(f"the first {_LISTED} of {count // _MESSAGES:,} conversations, {kind}", f"{listed:.1f} ms",
            each(values(found, "list")), "", "under 50 ms", listed < 50),
        Row(f"the index, a message of {_LENGTH} words, {kind}", f"{best(found, 'bytes'):.0f} bytes"),
    ]  # fmt: skip


def _recording_row(name: str, work: str, found: dict[str, list[Measured]]) -> Row:
    on, off = (best(found[f"{work} {is_indexed}"], "seconds") for is_indexed in (True, False))
    ratio = on / off
    figures = each([run["seconds"] * 1000 for run in found[f"{work} True"]])
    return Row(f"recording with the index, {name}", f"{ratio:.2f} x of without", f"{figures} ms", "",
               "under 1.15 x", ratio < 1.15)  # fmt: skip


def searched(kind: str, count: int, folder: str) -> Measured:
    """Fill a database, and search in it."""
    url = f"sqlite:///{folder}/search.db" if kind == "sqlite" else postgres.new_database()
    try:
        _fill(kind, url, count)
        return queries.read(url, lambda store: _timed(store, kind, count))
    finally:
        if kind == "postgres":
            postgres.drop(url)


async def _timed(store: Any, kind: str, count: int) -> Measured:
    """The shortest time of five of each query (milliseconds), and the bytes of the index for a message."""
    found: Measured = {}
    for name, (query, of_user) in _QUERIES.items():
        wanted = ConversationFilter(user="u7" if of_user else None)
        times = []
        for _ in range(5):
            began = time.perf_counter()
            result: SearchPage = await search_page(store, query, wanted, _PAGE)
            times.append((time.perf_counter() - began) * 1000)
        expect(result.is_complete, True)
        found[name] = min(times)
        if query in ("w1", "needle"):
            expect(len(result.hits), _PAGE if query == "w1" else min(3, count // 333_333 + 1))
    times = []
    for _ in range(5):
        began = time.perf_counter()
        listed = await page(store, _LISTED + 1, ConversationFilter())
        times.append((time.perf_counter() - began) * 1000)
    expect(len(listed), _LISTED + 1)
    [row] = await store.rows(_BYTES[kind])
    return {**found, "list": min(times), "bytes": float(row["bytes"]) / count}


def _fill(kind: str, url: str, count: int) -> None:
    if kind == "postgres":
        for statement in _FILL_POSTGRES:
            postgres.fetch(url, statement.format(count=count))
        return
    migrate.upgrade(url)
    with closing(sqlite3.connect(parse_url(url).database or "")) as connection:
        connection.executemany(
            "INSERT INTO conversations (id, user_id, created_at) VALUES (?, ?, ?)",
            ((f"c{n}", f"u{n // _CONVERSATIONS}", _at(n)) for n in range(count // _MESSAGES)),
        )
        made = _messages(count)
        while part := list(islice(made, 10_000)):
            connection.executemany(
                "INSERT INTO messages (conversation_id, id, position, role, content, created_at, words) "
                "VALUES (?, ?, ?, 'user', ?, ?, '')",
                [row[1:] for row in part],
            )
            connection.executemany(
                "INSERT INTO message_words (rowid, words) VALUES (?, ?)", [(row[0], row[4]) for row in part]
            )
        connection.commit()


def _messages(count: int) -> Iterator[tuple[Any, ...]]:
    chance = random.Random(7).random
    words = [f"w{number}" for number in range(_VOCABULARY + 1)]
    for n in range(count):
        text = " ".join([words[int(_VOCABULARY ** chance())] for _ in range(_LENGTH)])
        text += " needle" if n % 333_333 == 100 else ""
        yield (
            (1_700_000_000 + n) * 1_000_000,
            f"c{n // _MESSAGES}",
            str(uuid.UUID(int=n)),
            n % _MESSAGES,
            text,
            _at(n),
        )


def _at(n: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime(1_700_000_000 + n))


def recorded(work: str, size: int, is_indexed: bool, folder: str) -> Measured:
    """Record runs or messages; the seconds until they are stored."""
    if not is_indexed:
        inserts.words_of_row = lambda *_: ""
    chance = random.Random(7)
    words = [f"word{number}" for number in range(8_000)]
    texts = [" ".join(words[int(8_000 ** chance.random())] for _ in range(150)) for _ in range(size)]
    url = f"sqlite:///{folder}/recorded.db"
    with ChatHistoryCallback(url) as history:
        history.opened().wait()
        began = time.perf_counter()
        for number, text in enumerate(texts if work == "stream" else texts * 10):
            if work == "stream":
                _record(history, text)
            else:
                history.add_messages([HumanMessage(text)], conversation_id=f"c{number // 10}")
        history.flush().wait()
        return {"seconds": time.perf_counter() - began}


def _record(history: ChatHistoryCallback, text: str) -> None:
    run_id = uuid.uuid4()
    history.on_chat_model_start({}, [[HumanMessage(text[:100])]], run_id=run_id)
    for token in text.split(" "):
        history.on_llm_new_token(token, run_id=run_id)
    history.on_llm_end(LLMResult(generations=[[ChatGeneration(message=AIMessage(text))]]), run_id=run_id)
