"""The export format: rows to lines and back, and the errors for invalid, newer and damaged files."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import json
import random
import tracemalloc
from collections.abc import Iterator
from dataclasses import astuple
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import openai
import orjson
import pytest
import sqlalchemy
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncConnection

from recorder import ChatHistoryCallback
from recorder.core.escaping import escape, escape_json
from recorder.core.json import dumps
from recorder.errors import ConfigError, StoreError
from recorder.export.format import VERSION, Row, read, write
from recorder.messages import HumanMessage, SystemMessage
from recorder.messages.identity import content_hash
from recorder.models import ChatOpenAI
from recorder.storage import schema
from recorder.storage.columns import names_of
from recorder.storage.compression import compress
from recorder.storage.dialects import Insert, dialect_of, parse_url
from recorder.storage.frame_block import join
from recorder.storage.rows import (
    AnnotationRow,
    ContextMessageRow,
    ConversationRow,
    FrameRow,
    GapRow,
    MessageRow,
    Producer,
    RunRow,
    SegmentRow,
)
from recorder.storage.stored_messages import hash_of_row
from recorder.testing import Answer, LoopbackProvider, openai_chat_frames, scripted
from tests.oracle import new_url
from tests.wires import unhurried

START = datetime(2026, 11, 21, 1, 2, 3, 456_789, UTC)
RUN_ID = str(UUID(int=1))


def run_row(**columns: Any) -> RunRow:
    """Return a run with the columns that every run has, and these."""
    known: dict[str, Any] = {
        "id": RUN_ID, "conversation_id": "c", "attempt": 1, "operation": "chat", "status": "complete",
        "started_at": START, "usage_source": "none", "token_count": 0,
    }  # fmt: skip
    return RunRow(**{**dict.fromkeys(RunRow._fields), **known, **columns})


def segment(seq: int, *items: tuple[Any, ...], run_id: str = RUN_ID) -> SegmentRow:
    """Return tokens as they are stored."""
    return SegmentRow(run_id, seq, len(items), orjson.dumps(items).decode())


def frame_row(
    seq: int, *frames: tuple[int, bytes], wire: str | None = "openai.chat", run_id: str = RUN_ID
) -> FrameRow:
    """Return frames as they are stored."""
    [(data, dictionary)] = compress([join([data for _, data in frames], [at for at, _ in frames])], [wire])
    return FrameRow(run_id, seq, seq, len(frames), frames[0][0], data, dictionary)


CONVERSATION = ConversationRow("c", "u-1", None, '{"a":1}', START)
PRODUCER = Producer(str(UUID(int=9)), "host", 7, START, START + timedelta(seconds=3))
MESSAGE = MessageRow(
    "c", str(UUID(int=2)), None, 0, "user", "Hello", None, None, START, content_hash(HumanMessage("Hello"))
)
CONTEXT = ContextMessageRow("c", str(UUID(int=7)), "system", "Be kind.", None, START)
RUN = run_row(
    ended_at=START + timedelta(seconds=2), wire="openai.chat", usage='{"prompt_tokens":1}', tags='["a"]',
    request='{"model":"gpt-4o"}', metadata='{"x":[1,2.5,null,"é"]}', finish_reason="stop", producer_id=PRODUCER.id,
)  # fmt: skip
TOKENS = segment(0, (308_610, "Hel"), (341_943, "lo"), (350_000, '{"id":"a"}', "tool_call", "0.0"))
FRAMES = frame_row(0, (308_610, b'data: {"a":"\xc3\xa9"}\n\n'), (341_943, b"\xff\xfe\n\n"))
GAP = GapRow(RUN_ID, 3, 2, "the queue was full")
ANNOTATION = AnnotationRow(
    RUN_ID, str(UUID(int=5)), MESSAGE.id, "toxicity", "low", 0.1, '{"why":"-"}', START + timedelta(seconds=9)
)
EVERYTHING: list[Row] = [CONVERSATION, PRODUCER, CONTEXT, MESSAGE, RUN, TOKENS, FRAMES, GAP, ANNOTATION]


def lines_of(rows: list[Row]) -> list[str]:
    """Return an export with a fixed time."""
    return list(write(rows, source="sqlite:///a.db", at=START))


def rows_of(lines: list[str]) -> list[Row]:
    """Return the rows that are read from these lines."""
    return list(read(lines)[1])


# -- writing and reading ---------------------------------------------------------------------------------------


def test_rows_of_every_table_are_equal_after_reading() -> None:
    """Writing the rows that were read gives the same lines."""
    lines = lines_of(EVERYTHING)
    assert rows_of(lines) == EVERYTHING
    assert lines_of(rows_of(lines)) == lines
    assert all(line.endswith("\n") and line.count("\n") == 1 for line in lines)


def test_the_format_is_as_documented() -> None:
    """The lines are a header, then `[offset, kind, ...]`; they change only with the version."""
    assert [json.loads(line) for line in lines_of(EVERYTHING)] == [
        {
            "format": "recorder",
            "version": 2,
            "exported_at": "2026-11-21T01:02:03.456789Z",
            "source": "sqlite:///a.db",
        },
        [None, "conversation", {"id": "c", "user_id": "u-1", "metadata": {"a": 1}, "created_at": _at(0)}],
        [
            None,
            "producer",
            {"id": PRODUCER.id, "host": "host", "pid": 7, "started_at": _at(0), "heartbeat_at": _at(3)},
        ],
        [
            None,
            "context",
            {
                "conversation_id": "c",
                "id": CONTEXT.id,
                "role": "system",
                "content": "Be kind.",
                "created_at": _at(0),
            },
        ],
        [
            None,
            "message",
            {
                "conversation_id": "c",
                "id": MESSAGE.id,
                "position": 0,
                "role": "user",
                "content": "Hello",
                "created_at": _at(0),
            },
        ],
        [
            0,
            "run",
            {
                "id": RUN_ID,
                "conversation_id": "c",
                "attempt": 1,
                "operation": "chat",
                "wire": "openai.chat",
                "status": "complete",
                "started_at": _at(0),
                "ended_at": _at(2),
                "finish_reason": "stop",
                "usage": {"prompt_tokens": 1},
                "usage_source": "none",
                "token_count": 0,
                "request": {"model": "gpt-4o"},
                "tags": ["a"],
                "metadata": {"x": [1, 2.5, None, "é"]},
                "producer_id": PRODUCER.id,
            },
        ],
        [308_610, "segment", 0, 3],
        [308_610, "text", "Hel"],
        [341_943, "text", "lo"],
        [350_000, "tool_call", '{"id":"a"}', "0.0"],
        [308_610, "frames", 0, 0, 2],
        [308_610, "frame", 'data: {"a":"é"}\n\n'],
        [341_943, "frame64", "//4KCg=="],
        [None, "gap", 3, 2, "the queue was full"],
        [
            9_000_000,
            "annotation",
            {
                "run_id": RUN_ID,
                "id": ANNOTATION.id,
                "message_id": MESSAGE.id,
                "name": "toxicity",
                "label": "low",
                "score": 0.1,
                "data": {"why": "-"},
                "created_at": _at(9),
            },
        ],
        [
            2_000_000,
            "end",
            {
                "tokens": 3,
                "sha256": hashlib.sha256(TOKENS.deltas[1:-1].encode()).hexdigest(),
                "frames": 2,
                "frames_sha256": hashlib.sha256(b'data: {"a":"\xc3\xa9"}\n\n\xff\xfe\n\n').hexdigest(),
            },
        ],
        [None, "eof", {"runs": 1}],
    ]


def _at(seconds: int) -> str:
    return f"2026-11-21T01:02:{3 + seconds:02}.456789Z"


_TEXT = st.text(st.characters(), max_size=20).map(escape)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)
#: JSON text as recorder writes it, and as other programs may write it.
_JSON_TEXT = (
    _JSON.map(escape_json)
    | _JSON.map(lambda value: json.dumps(value, indent=1))
    | st.sampled_from(["", "{", "1e5"])
)
_TIME = st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC))
_ID = st.uuids().map(str)
_COUNT = st.integers(0, 2**53)
_ITEM = st.tuples(_COUNT, _TEXT) | st.tuples(_COUNT, _TEXT, _TEXT, _TEXT)
_FRAME = st.tuples(_COUNT, st.binary(max_size=30) | _TEXT.map(lambda text: text.encode()))


def _rows(made: type[Any], **columns: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(made, **columns)


@st.composite
def exports(draw: st.DrawFn) -> list[Row]:
    """Rows in the order of an export, with any values that the columns can hold."""
    rows: list[Row] = []
    for _ in range(draw(st.integers(0, 2))):
        rows.append(
            draw(
                _rows(
                    ConversationRow, id=_TEXT, user_id=st.none() | _TEXT, title=st.none() | _TEXT,
                    metadata=st.none() | _JSON_TEXT, created_at=_TIME, tags=st.none() | _JSON_TEXT,
                )
            )
        )  # fmt: skip
        rows += draw(st.lists(_rows(
            MessageRow, conversation_id=_TEXT, id=_ID, parent_id=st.none() | _ID, position=_COUNT, role=_TEXT,
            content=_TEXT, parts=st.none() | _JSON_TEXT, run_id=st.none() | _ID, created_at=_TIME,
            thread_key=st.none() | st.integers(-(2**63), 2**63 - 1),
        ).map(lambda row: row._replace(content_hash=hash_of_row(row))), max_size=2))  # fmt: skip
        rows += draw(st.lists(_rows(
            ContextMessageRow, conversation_id=_TEXT, id=_ID, role=_TEXT, content=_TEXT,
            parts=st.none() | _JSON_TEXT, created_at=_TIME,
        ), max_size=1))  # fmt: skip
        for _ in range(draw(st.integers(0, 2))):
            rows += draw(_runs())
    return rows


@st.composite
def _runs(draw: st.DrawFn) -> list[Row]:
    id = draw(_ID)
    run = run_row(
        id=id, started_at=draw(_TIME), ended_at=draw(st.none() | _TIME), usage=draw(st.none() | _JSON_TEXT),
        error_message=draw(st.none() | _TEXT), wire=draw(st.sampled_from((None, "openai.chat"))),
        token_count=draw(_COUNT), sha256=draw(st.none() | _TEXT), tags=draw(st.none() | _JSON_TEXT),
    )  # fmt: skip
    rows: list[Row] = [run]
    for items in draw(st.lists(st.lists(_ITEM, max_size=4), max_size=2)):
        rows.append(segment(draw(_COUNT), *items, run_id=id))
    rows += draw(st.lists(st.builds(SegmentRow, st.just(id), _COUNT, _COUNT, _JSON_TEXT), max_size=1))
    for frames in draw(st.lists(st.lists(_FRAME, min_size=1, max_size=4), max_size=2)):
        rows.append(frame_row(draw(_COUNT), *frames, wire=run.wire, run_id=id))
    rows += draw(st.lists(st.builds(
        FrameRow, st.just(id), _COUNT, _COUNT, _COUNT, _COUNT, st.binary(max_size=9), st.none() | _TEXT
    ), max_size=1))  # fmt: skip
    rows += draw(st.lists(st.builds(GapRow, st.just(id), _COUNT, _COUNT, _TEXT), max_size=1))
    rows += draw(st.lists(_rows(
        AnnotationRow, run_id=st.just(id), id=_ID, message_id=st.none() | _ID, name=_TEXT, label=st.none() | _TEXT,
        score=st.none() | st.floats(allow_nan=False, allow_infinity=False), data=st.none() | _JSON_TEXT,
        created_at=_TIME,
    ), max_size=1))  # fmt: skip
    return rows


@unhurried
@given(exports())
def test_any_rows_are_equal_after_reading(rows: list[Row]) -> None:
    """Foreign JSON, damaged rows of frames and every text are written and read without a change."""
    lines = lines_of(rows)
    assert rows_of(lines) == rows
    assert lines_of(rows_of(lines)) == lines


@unhurried
@given(exports())
def test_lines_may_come_as_bytes(rows: list[Row]) -> None:
    """Lines may be bytes, with CRLF line ends and blank lines at the end."""
    lines = [line.replace("\n", "\r\n").encode() for line in lines_of(rows)]
    assert list(read([*lines, b"\r\n"])[1]) == rows


def test_the_header_is_read_before_any_row() -> None:
    """It has the version, the time and the source."""
    header, _ = read(lines_of([])[:1])
    assert header == (VERSION, START, "sqlite:///a.db")


def test_unknown_keys_are_ignored() -> None:
    """A later recorder may add keys without a new version."""
    lines = lines_of([CONVERSATION])
    lines[0] = lines[0].replace('"version"', '"more":1,"version"')
    lines[1] = lines[1].replace('"id"', '"more":{"a":1},"id"')
    assert rows_of(lines) == [CONVERSATION]


def test_a_run_is_written_and_read_in_bounded_memory() -> None:
    """Only one row is in memory at a time, not the whole run."""

    def rows() -> Iterator[Row]:
        yield RUN
        for number in itertools.count():
            yield segment(100 * number, *((number, f"token {number}") for _ in range(100)))

    lines = write(rows())
    for _ in itertools.islice(lines, 100):
        pass
    tracemalloc.start()
    try:
        for _ in itertools.islice(lines, 20_000):
            pass
        read_back = read(write(rows()))[1]
        for _ in itertools.islice(read_back, 200):
            pass
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()


def test_a_recording_is_equal_after_a_copy_to_postgres_and_back(tmp_path: Path, postgres_url: str) -> None:
    """A chat with a tool call and a failed run has the same rows and lines afterwards."""
    url = new_url(tmp_path)
    calls = [{"id": "call_1", "name": "weather", "arguments": '{"city": "Rome"}'}]
    answers = [Answer(frames=openai_chat_frames(["Hél", "lo\x00"], tool_calls=calls)), Answer.error(401)]
    with (
        LoopbackProvider(scripted(*answers)) as provider,
        ChatHistoryCallback(url, conversation_id="c") as history,
    ):
        chat = ChatOpenAI(
            base_url=provider.base_url, api_key="any", max_retries=0, callbacks=[history], streaming=True
        )
        chat.invoke(
            [SystemMessage("Be kind."), HumanMessage("Hello?")],
            config={"tags": ["a"], "metadata": {"half": "\ud800"}},
        )
        with pytest.raises(openai.AuthenticationError):
            chat.invoke("Once more?")
    rows = stored_rows(url)
    assert {type(row) for row in rows} == {
        ConversationRow,
        Producer,
        ContextMessageRow,
        MessageRow,
        RunRow,
        SegmentRow,
        FrameRow,
    }
    back = new_url(tmp_path, "back.db")
    for before, after in ((url, postgres_url), (postgres_url, back)):
        store_rows(after, rows_of(lines_of(stored_rows(before))))
        assert stored_rows(after) == rows
        assert lines_of(stored_rows(after)) == lines_of(rows)


TABLES: list[tuple[Any, Any]] = [
    (schema.segments, SegmentRow),
    (schema.frames, FrameRow),
    (schema.gaps, GapRow),
    (schema.annotations, AnnotationRow),
]
FIRST_TABLES: list[tuple[Any, Any]] = [
    (schema.conversations, ConversationRow),
    (schema.producers, Producer),
    (schema.context_messages, ContextMessageRow),
    (schema.messages, MessageRow),
]


def stored_rows(url: str) -> list[Row]:
    """Return all rows of a database in the order of an export."""

    async def rows(connection: AsyncConnection, table: Any, made: Any, *where: Any) -> list[Any]:
        query = sqlalchemy.select(*schema.row_columns(made)).where(*where)
        query = query.order_by(*table.primary_key.columns)
        return [made(*row) for row in await connection.execute(query)]

    async def everything() -> list[Row]:
        found: list[Row] = []
        async with dialect_of(parse_url(url)).engine().connect() as connection:
            for table, made in FIRST_TABLES:
                found += await rows(connection, table, made)
            for run in await rows(connection, schema.runs, RunRow):
                found.append(run)
                for table, made in TABLES:
                    found += await rows(connection, table, made, table.c.run_id == run.id)
        return found

    return asyncio.run(everything())


def store_rows(url: str, rows: list[Row]) -> None:
    """Insert rows into a database that has its tables."""
    dialect = dialect_of(parse_url(url))

    async def store() -> None:
        async with dialect.engine().begin() as connection:
            for table, made in (*FIRST_TABLES, (schema.runs, RunRow), *TABLES):
                values = [
                    astuple(row) if isinstance(row, Producer) else row
                    for row in rows
                    if isinstance(row, made)
                ]
                insert = Insert(table, names_of(made), values)
                await dialect.insert(connection, dialect.statements([insert]))

    asyncio.run(store())


# -- invalid files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first",
    [
        "hello\n",
        "{}\n",
        "[]\n",
        '{"version": 2, "width": 80}\n',
        '{"format":"recorder"}',
        "\x00\x01",
        '{"format":"recorder","version":"1"}',
    ],
)
def test_a_file_that_is_not_an_export_is_refused(first: str) -> None:
    """The error shows how the file begins."""
    with pytest.raises(ConfigError, match="not an export of recorder: it begins with"):
        read([first, "more"])


def test_a_database_file_is_not_an_export() -> None:
    """The error says that it is a SQLite database, and how to make an export."""
    with pytest.raises(ConfigError, match="it is a SQLite database; `recorder export` writes one"):
        read([b"SQLite format 3\0\x10\0", b"more"])


def test_an_empty_file_is_not_an_export() -> None:
    """The error says that the file is empty."""
    with pytest.raises(ConfigError, match="empty"):
        read([])


def test_a_newer_version_is_refused_with_the_remedy() -> None:
    """The error names both versions and the command that upgrades recorder."""
    with pytest.raises(ConfigError, match=r"version 99 .* up to 2; install a newer version of chat-recorder"):
        read(['{"format":"recorder","version":99}'])


@pytest.mark.parametrize(
    "header", ['{"format":"recorder","version":1}', '{"format":"recorder","version":1,"exported_at":"x"}']
)
def test_a_damaged_header_is_refused(header: str) -> None:
    """A header without a valid time is damaged."""
    with pytest.raises(ConfigError, match="header of the export is damaged"):
        read([header])


@pytest.mark.parametrize("last_line", range(1, len(lines_of(EVERYTHING))))
def test_a_file_that_was_cut_off_is_refused_with_its_last_line(last_line: int) -> None:
    """This holds for each line, and for a cut inside of a line."""
    with pytest.raises(StoreError, match=rf"cut off after line {last_line}: "):
        rows_of(lines_of(EVERYTHING)[:last_line])
    half = lines_of(EVERYTHING)[last_line]
    with pytest.raises(StoreError, match=rf"Line {last_line + 1} of the export is damaged \(not JSON"):
        rows_of([*lines_of(EVERYTHING)[:last_line], half[: len(half) // 2]])


def place(text: str) -> int:
    """Return the number, from 0, of the line that contains this text."""
    return next(number for number, line in enumerate(lines_of(EVERYTHING)) if text in line)


@pytest.mark.parametrize(
    ("at", "damaged", "why"),
    [
        ("conversation", '[null,"conversation",{"id":"c"}]', "a conversation needs created_at"),
        ("conversation", '[null,"conversation",[]]', "a conversation must be an object"),
        ("conversation", '[null,"dog",{}]', "there is no kind 'dog'"),
        ("conversation", '{"a":1}', r"it is not \[offset, kind, ...\]"),
        ("conversation", '[null]', r"it is not \[offset, kind, ...\]"),
        ("conversation", "", "not JSON"),
        ("conversation", '[null,"conversation"]', "index"),
        ('"message",', '[null,"gap",1,1,"x"]', "no run began before it"),
        ('"message",', '[null,"message",{"position":"1"}]', "a message needs conversation_id"),
        ('"run"', '[0,"run",{"id":1}]', "id of a run must be text"),
        ('"Hel"', '[1,"reasoning","Hel"]', "it is not a token"),
        ('"Hel"', '[1,"text",2]', "it is not a token"),
        ('"Hel"', '["1","text","Hel"]', "the offset of a token must be an integer"),
        ('"segment"', '[1,"segment",0,"3"]', "count of a segment must be an integer"),
        ('"segment"', '[1,"segment",0,4294967296]', "count of a segment must be an integer from 0 to 65536"),
        ('"segment"', '[1,"segment",-1,1]', "seq of a segment must be an integer from 0"),
        ('"Hel"', '[18446744073709551615,"text","Hel"]', "the offset of a token must be an integer of microseconds"),
        ('"Hel"', '[1,"text","Hel",7]', "it is not a token"),
        ('"gap"', '[null,"gap",1e30,1,"x"]', "seq of a gap must be an integer"),
        ('"gap"', '[null,"gap",3,2,{}]', "reason of a gap must be text"),
        ('"message",', '[null,"message",{"conversation_id":"c","id":"a","position":9223372036854775808}]',
         "position of a message must be an integer of 64 bits"),
        ("conversation", '[null,"conversation",{"id":"c","created_at":"0001-01-01T00:00:00+14:00"}]',
         "created_at of a conversation is not a time: date value out of range"),
        ("conversation", '[null,"conversation",{"id":"c","created_at":"2026-01-01T00:00:00"}]',
         "created_at of a conversation is not a time: it has no time zone"),
        ("conversation", f'[null,"conversation",{{"id":"c","metadata":{"[" * 600}1{"]" * 600}}}]',
         "metadata of a conversation is nested more than 500 levels deep"),
        ("conversation", f'[null,{"[" * 5000}]', "not JSON"),
        ("conversation", '[null,"conversation",{"id":"c","metadata":NaN}]', "not JSON"),
        ("conversation", f'[null,"{"x" * 5000}",{{}}]', "there is no kind 'xxx"),
        ('"segment"', '[1,"segment",0,3,4]', "its tokens must be text"),
        ('"frames",', '[1,"frames",0,0]', "unpack"),
        ("frame64", '[1,"frame64","?"]', "base64"),
        ("frame64", '[1,"picture","?"]', "it is not a frame"),
        ('"gap"', '[null,"run",{}]', "has not ended before it"),
        ('"annotation"', '[null,"annotation",{}]', "needs run_id"),
        ('"end"', '[0,"end",{}]', "sha256|tokens"),
        ('"end"', '[null,"eof",{"runs":1}]', "has not ended before it"),
        ('"eof"', '[null,"eof",{"runs":2}]', "1 runs came before it, and it says 2"),
    ],
)  # fmt: skip
def test_a_damaged_line_is_refused_with_its_number_and_the_reason(at: str, damaged: str, why: str) -> None:
    """The error says what is wrong with the line."""
    lines, number = lines_of(EVERYTHING), place(at)
    lines[number] = damaged + "\n"
    with pytest.raises(StoreError, match=rf"^Line {number + 1} of the export is damaged \(.*({why}).*\)"):
        rows_of(lines)


def test_a_changed_character_is_found_at_the_end_of_its_run() -> None:
    """Each line is valid, but the hash in the run's last line differs."""
    for old, new in (("Hel", "Hal"), ("//4KCg==", "//8KCg=="), ("é", "e")):
        lines = [
            line.replace(old, new) if line[1:2].isdigit() and '"run"' not in line else line
            for line in lines_of(EVERYTHING)
        ]
        end = place('"end"') + 1
        with pytest.raises(StoreError, match=rf"Line {end} .*run {RUN_ID} is not the same as when"):
            rows_of(lines)


def test_a_missing_or_additional_line_is_found() -> None:
    """A missing token, a repeated token, and a line after the end are refused."""
    lines, at = lines_of(EVERYTHING), place('"Hel"')
    for changed in (
        lines[:at] + lines[at + 1 :],
        [*lines[:at], lines[at], *lines[at:]],
        [*lines, lines[1]],
    ):
        with pytest.raises(StoreError, match="is damaged"):
            rows_of(changed)


def test_random_damage_never_raises_an_unexpected_error() -> None:
    """Reading changed bytes returns rows or raises StoreError or ConfigError."""
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    data = "".join(lines_of(EVERYTHING)).encode()
    damaged_files = 0
    for _ in range(500):
        damaged = bytearray(data)
        for _ in range(chance.randrange(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        try:
            list(read(bytes(damaged).splitlines(keepends=True))[1])
        except (StoreError, ConfigError):
            damaged_files += 1
    assert damaged_files > 250


def test_rows_that_are_not_grouped_by_run_are_refused() -> None:
    """A segment of another run, or without a run, is refused when it is written."""
    other = segment(0, run_id=str(UUID(int=77)))
    wrong: list[list[Row]] = [[TOKENS], [RUN, other], [RUN, CONVERSATION, TOKENS]]
    for rows in wrong:
        with pytest.raises(StoreError, match="rows are written run by run"):
            lines_of(rows)


def test_damaged_rows_are_exported_unchanged() -> None:
    """Invalid frames and invalid tokens are read back as they were stored."""
    frames = FRAMES._replace(data=FRAMES.data[:-3])
    tokens = TOKENS._replace(deltas="[[1,")
    lines = lines_of([RUN, tokens, frames])
    assert rows_of(lines) == [RUN, tokens, frames]
    [stored] = [json.loads(line) for line in lines if '"stored"' in line]
    assert base64.b64decode(stored[-1]) == frames.data


def test_foreign_json_is_exported_unchanged() -> None:
    """Spaces, the order of keys, and the form of numbers are kept."""
    run = RUN._replace(request='{ "b": 1, "a": 1e5 }', usage="null", tags=dumps(["a"]))
    lines = lines_of([run])
    assert rows_of(lines) == [run]
    fields = json.loads(lines[1])[2]
    assert (fields["request:text"], fields["usage:text"], fields["tags"]) == (run.request, "null", ["a"])
