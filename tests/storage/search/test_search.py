"""Both databases find the same messages in the same order, and those that a comparison with every message finds."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from recorder import ChatHistoryCallback
from recorder.core.clock import iso
from recorder.core.json import dumps
from recorder.errors import ConfigError, StoreError
from recorder.messages import AIMessage, HumanMessage
from recorder.replay import Replay
from recorder.storage import migrate
from recorder.storage.conversation_filter import ConversationFilter
from recorder.storage.search import candidates, search
from recorder.storage.search.hits import matches
from recorder.storage.search.query import parsed
from recorder.storage.search.search import SearchPage, search_page
from recorder.storage.store import SqlStore
from tests import postgres
from tests.oracle import new_url, sql
from tests.query_costs import fill
from tests.stores import execute, using

START = datetime(2026, 11, 20, tzinfo=UTC)
WORDS = (
    *(
        "refund",
        "order",
        "money",
        "café",
        "CAFE",
        "Straße",
        "strasse",
        "ﬁne",
        "fine",
        "don't",
        "snake_case",
        "4711",
    ),
    *(
        "退款",
        "手机",
        "便宜退款",
        "iPhone手机",
        "東京タワー",
        "ฉันไป",
        "น้ำ",
        "هذا",
        "كِتَاب",
        "من",
        "हिन्दी",
        "한국어",
    ),
    *("a", "b", "c"),
)
JOINTS = (" ", " ", " ", "", ", ", "\n", "。", '"', "-")


def text_of(chance: random.Random) -> str:
    return "".join(chance.choice(WORDS) + chance.choice(JOINTS) for _ in range(chance.choice((1, 3, 8, 30))))


def stored_rows(chance: random.Random, count: int) -> list[dict[str, Any]]:
    """Messages of some conversations; several of one microsecond, some with tool calls."""
    rows = []
    for _ in range(count):
        parts = None
        if chance.random() < 0.2:
            call = {"name": "f", "args": {"x": chance.choice(WORDS)}}
            parts = dumps({"role": "assistant", "tool_calls": [call]})
        rows.append(
            {
                "conversation_id": f"C{chance.randrange(9)}é"[: chance.choice((2, 3))],
                "id": str(uuid.UUID(int=chance.getrandbits(128))),
                "parent_id": None,
                "position": 0,
                "role": chance.choice(("user", "assistant", "tool")),
                "content": text_of(chance),
                "parts": parts,
                "created_at": START + timedelta(microseconds=chance.randrange(count)),
            }
        )
    return rows


@pytest.fixture(scope="module")
def seeded(pytestconfig: pytest.Config) -> random.Random:
    """Random numbers of the session's seed, which is printed."""
    print(f"seed {pytestconfig.option.seed}")
    return random.Random(pytestconfig.option.seed)


@pytest.fixture(scope="module")
def both(
    seeded: random.Random, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[list[str], list[dict[str, Any]]]]:
    """The same messages in both databases, all indexed by `recorder migrate`."""
    rows = stored_rows(seeded, 200)
    ids = sorted({row["conversation_id"] for row in rows})
    owners = [{"id": id, "created_at": START, "user_id": seeded.choice(("ada", "ben", None))} for id in ids]
    urls = [new_url(tmp_path_factory.mktemp("both")), postgres.new_database()]
    for url in urls:
        fill(url, "conversations", owners)
        fill(url, "messages", rows)
        assert migrate.upgrade(url) == []
        assert sql(url, "SELECT count(*) FROM messages WHERE words IS NULL") == [(0,)]
    users = {row["id"]: row["user_id"] for row in owners}
    yield urls, [{**row, "user": users[row["conversation_id"]]} for row in rows]
    postgres.drop(urls[1])


def pages(url: str, query: str, wanted: ConversationFilter, limit: int) -> list[SearchPage]:
    """All pages, one after the other."""

    async def story(store: SqlStore) -> list[SearchPage]:
        found = [await search_page(store, query, wanted, limit)]
        while found[-1].next is not None:
            found.append(await search_page(store, query, wanted, limit, found[-1].next))
        return found

    result: list[SearchPage] = using(url, story, read_only=True)
    return result


def expected(
    rows: Sequence[dict[str, Any]], text: str, wanted: ConversationFilter
) -> list[tuple[str, str, str]]:
    """The messages that a comparison of each of them finds, in the order of the search."""
    query, found = parsed(text), []
    for row in rows:
        texts = [
            row["content"],
            *([row["parts"].split('"x":"')[1].split('"')[0], "f x"] if row["parts"] else []),
        ]
        is_wanted = wanted.user in (None, row["user"])
        is_wanted = is_wanted and (wanted.since is None or row["created_at"] >= wanted.since)
        is_wanted = is_wanted and (wanted.until is None or row["created_at"] <= wanted.until)
        if query.words and is_wanted and matches(query, texts):
            found.append((iso(row["created_at"]), row["conversation_id"], row["id"]))
    return sorted(found, reverse=True)


def some_query(chance: random.Random) -> str:
    words = [chance.choice(WORDS) for _ in range(chance.choice((1, 1, 2, 3)))]
    if chance.random() < 0.3:  # two characters out of a word
        begin = chance.randrange(len(words[0]))
        words[0] = words[0][begin : begin + 2]
    text = " ".join(words)
    return f'"{text}"' if chance.random() < 0.3 else text


def test_both_databases_find_the_same(
    both: tuple[list[str], list[dict[str, Any]]], seeded: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random queries, filters and pages; also on the ways for large databases, with their limits made small."""
    urls, rows = both
    total = 0
    for number in range(24):
        if number == 8:
            monkeypatch.setattr(candidates, "_FEW", 0)
            monkeypatch.setattr(candidates, "_EXPECTED", 0)
            monkeypatch.setattr(candidates, "_WINDOWS", (20, 100))
        if number == 16:
            monkeypatch.setattr(candidates, "_ROWIDS", 3)
            monkeypatch.setattr(search, "MOST_COMPARED", 7)
        query, limit = some_query(seeded), seeded.choice((5, 20, 200))
        since = START + timedelta(microseconds=seeded.randrange(150)) if seeded.random() < 0.3 else None
        until = START + timedelta(microseconds=seeded.randrange(50, 200)) if seeded.random() < 0.3 else None
        wanted = ConversationFilter(user=seeded.choice(("ada", None)), since=since, until=until)
        hits = [[hit for page in pages(url, query, wanted, limit) for hit in page.hits] for url in urls]
        assert hits[0] == hits[1], (query, wanted, limit)
        keys = [(hit.created_at, hit.conversation_id, hit.message_id) for hit in hits[0]]
        assert keys == expected(rows, query, wanted), (query, wanted, limit)
        contents = {row["id"]: row["content"] for row in rows}
        total += len(keys)
        for hit in hits[0]:
            snippet = "".join(piece.text for piece in hit.snippet)
            assert any(piece.is_match for piece in hit.snippet)
            if hit.part == "text":
                text = contents[hit.message_id]
                assert hit.start is not None
                assert snippet in text
                assert text[hit.start : hit.end].strip()
    assert total > 50


def test_pages_are_full_unless_they_are_the_last(both: tuple[list[str], list[dict[str, Any]]]) -> None:
    """A page has as many hits as were asked for, and the last one has no `next`."""
    for url in both[0]:
        *full, last = pages(url, "refund", ConversationFilter(), 7)
        assert [len(page.hits) for page in full] == [7] * len(full)
        assert 0 < len(last.hits) <= 7
        assert all(page.is_complete for page in (*full, last))


@pytest.mark.parametrize(
    ("text", "query", "shown"),
    [
        ("您的退款已处理", "退款", "退款"),
        ("東京タワーです", "京タ", "京タ"),
        ("ฉันไปโรงเรียน", "ไป", "ไป"),
        ("هذا كِتَاب جيد", "تا", "تَا"),
        ("I want a REFUND.", "refund", "REFUND"),
        ("nul \0 and \ud800 there", "there", "there"),
    ],
)
def test_two_characters_find_their_place(database: str, text: str, query: str, shown: str) -> None:
    """In scripts without spaces, and where characters are escaped in the database."""
    with ChatHistoryCallback(database) as history:
        history.add_messages([HumanMessage(text)], conversation_id="c")
        history.flush().wait()
        with Replay(database) as replay:
            [hit] = replay.search(query).hits
    assert hit.start is not None
    assert text[hit.start : hit.end] == shown
    assert [piece.text for piece in hit.snippet if piece.is_match] == [shown]


def test_any_text_is_safe(database: str) -> None:
    """Operators, quotes, NUL, lone surrogates and long texts find nothing else and raise nothing."""
    with ChatHistoryCallback(database) as history:
        history.add_messages([HumanMessage("plain")], conversation_id="c")
    texts = (
        "'; DROP TABLE messages; --",
        '"' * 99,
        "a:* & !b | (c <-> d)",
        "NEAR(a b) OR plain* NOT x",
        "\0\ud800",
    )
    with Replay(database) as replay:
        for text in (*texts, "x" * 10_000, "退" * 10_000, "é " * 5_000, "%_\\"):
            assert replay.search(text).hits == ()
        assert len(replay.search("\0plain\ud800 ☃").hits) == 1


def test_conversations_are_filtered(database: str) -> None:
    """By the user, and by what else a list of conversations is filtered by."""
    with ChatHistoryCallback(database) as history:
        for user, tag in (("ada", "a"), ("ben", "b")):
            with history.user(user):
                history.add_messages([HumanMessage(f"hello from {user}")], conversation_id=user)
                history.update_conversation(user, tags=[tag])
    with Replay(database) as replay:
        assert [hit.conversation_id for hit in replay.search("hello", user="ben").hits] == ["ben"]
        assert [hit.conversation_id for hit in replay.search("hello", tag="a").hits] == ["ada"]
        assert replay.search("hello", status="complete").hits == ()
        assert replay.search("hello", until="2000-01-01").hits == ()
        with pytest.raises(ConfigError, match="limit is 0"):
            replay.search("hello", limit=0)
        with pytest.raises(ConfigError, match="send `next` of the page before"):
            replay.search("hello", after="x")


def test_on_an_event_loop(database: str) -> None:
    """`asearch` finds what `search` finds."""

    async def story() -> None:
        async with ChatHistoryCallback(database) as history:
            history.add_messages([AIMessage("hello")], conversation_id="c")
            await history.flush()
            async with Replay(database) as replay:
                found = await replay.asearch("hello")
                assert len(found.hits) == 1
                assert found == await asyncio.to_thread(replay.search, "hello")

    asyncio.run(story())


def test_messages_that_are_not_indexed_are_found_too(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few are compared one by one, in their place between the others. With more the page says that it is not
    complete."""
    with ChatHistoryCallback(database) as history:
        for number in range(6):
            history.add_messages([HumanMessage(f"hello {number}")], conversation_id="c")
            history.flush().wait()
    execute(database, "UPDATE messages SET words = NULL WHERE position IN (1, 2, 5)")
    found = pages(database, "hello", ConversationFilter(), 2)
    assert [hit.snippet[-1].text for page in found for hit in page.hits] == [
        f" {n}" for n in (5, 4, 3, 2, 1, 0)
    ]
    assert [page.is_complete for page in found] == [True] * 3
    monkeypatch.setattr(candidates, "MOST_NOT_INDEXED", 2)
    found = pages(database, "hello", ConversationFilter(), 2)
    assert [page.is_complete for page in found] == [False] * len(found)


def test_a_query_without_a_word_finds_nothing(database: str) -> None:
    """Also among messages that are not indexed yet, which are compared with it."""
    with ChatHistoryCallback(database) as history:
        history.add_messages([HumanMessage("Hi!")], conversation_id="c")
    execute(database, "UPDATE messages SET words = NULL")
    for query in ("", " ", "!?", '""', "\u200b"):
        assert pages(database, query, ConversationFilter(), 2) == [SearchPage((), None, True)]


def test_a_file_without_an_index_records_and_says_so(tmp_path: Path) -> None:
    """As where SQLite was built without FTS5. `recorder migrate` creates the index where SQLite has it."""
    url = new_url(tmp_path)
    execute(url, "DROP TABLE message_words")
    with ChatHistoryCallback(url) as history:
        history.add_messages([HumanMessage("hello")], conversation_id="c")
    with Replay(url) as replay, pytest.raises(StoreError, match="no index for the search"):
        replay.search("hello")
    assert migrate.upgrade(url) == []
    with Replay(url) as replay:
        assert len(replay.search("hello").hits) == 1
