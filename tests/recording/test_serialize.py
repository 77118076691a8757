"""Drained runs become rows; however a run is split into batches, its rows have the same tokens, frames and hashes."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.core.escaping import unescape
from recorder.recording.buffer import OpenRun
from recorder.recording.queue import RecordingQueue
from recorder.recording.serialize import MAX_ROW_FRAMES, MAX_ROW_TOKENS, encode_deltas, serialize
from recorder.storage.batch import RunRows
from recorder.storage.compression import decompress
from recorder.storage.frame_block import split
from recorder.storage.rows import FrameRow, SegmentRow
from recorder.testing import openai_chat_frames, song_pieces
from recorder.wire.deltas import TOOL_ARGS, Delta
from tests.oracle import run_end, run_start, started, token

ALL = 2**40
#: Any text, with halves of surrogate pairs too.
ANY_TEXT = st.text(st.characters(exclude_categories=()))


def joined(rows: Iterable[SegmentRow]) -> str:
    """The items of the stored rows joined by commas, as they are hashed."""
    return ",".join(row.deltas[1:-1] for row in rows)


def texts(rows: Iterable[SegmentRow]) -> list[str]:
    """The texts of the tokens, without the escaping."""
    return [unescape(item[1]) for row in rows for item in json.loads(row.deltas)]


def one(queue: RecordingQueue) -> RunRows:
    """The rows of the only run that is drained."""
    [rows] = serialize(queue.drain(ALL).runs)
    return rows


def recorded(parts: Sequence[Sequence[str]]) -> tuple[list[SegmentRow], RunRows]:
    """Drain a run after each part; return all its segments, and the rows with its seal."""
    queue = RecordingQueue(ALL)
    run = started(queue, run_start(), 0)
    segments: list[SegmentRow] = []
    for part in parts:
        for text in part:
            queue.put(run, text, 5)
        segments += [row for rows in serialize(queue.drain(ALL).runs) for row in rows.segments]
    queue.end(run, run_end())
    last = one(queue)
    return [*segments, *last.segments], last


def cut(texts_in: Sequence[str], seed: int) -> list[Sequence[str]]:
    """The tokens in six parts of random sizes."""
    places = sorted(random.Random(seed).choices(range(len(texts_in) + 1), k=5))
    return [texts_in[start:end] for start, end in zip([0, *places], [*places, len(texts_in)], strict=True)]


# -- tokens --------------------------------------------------------------------------------------------------


def test_a_row_has_its_number_its_count_and_compact_json() -> None:
    """An item has kind and index only where they differ from `text` and 0."""
    queue = RecordingQueue(ALL)
    run = started(queue, run_start(7), 0)
    queue.put(run, "Hel", 10)
    queue.put_frame(run, None, [Delta("lo"), Delta('{"a":1}', TOOL_ARGS, "0.1")], 20)
    rows = one(queue)
    assert rows.segments == [
        SegmentRow(run.start.run_id, 0, 3, r'[[10,"Hel"],[20,"lo"],[20,"{\"a\":1}","tool_args","0.1"]]')
    ]
    assert (rows.tokens, rows.opens, rows.seal, rows.frames, rows.gaps) == (3, True, None, (), ())
    assert rows.bytes == queue.bytes


def test_a_long_run_is_cut_into_short_rows() -> None:
    """100,000 tokens in one batch become rows of at most `MAX_ROW_TOKENS` each, in order."""
    texts_in = [str(number) for number in range(100_000)]
    segments, last = recorded([texts_in])
    assert max(row.count for row in segments) <= MAX_ROW_TOKENS
    assert [row.seq for row in segments] == list(range(0, 100_000, MAX_ROW_TOKENS))
    assert texts(segments) == texts_in
    assert last.seal is not None
    assert last.seal.token_count == 100_000


@pytest.mark.parametrize("seed", range(3))
def test_the_hash_does_not_depend_on_the_batches(seed: int) -> None:
    """100,000 tokens in one batch and in six have the same hash, that of the joined rows."""
    texts_in = [token(1, number) for number in range(5_000)] * 20
    at_once, first = recorded([texts_in])
    in_parts, second = recorded(cut(texts_in, seed))
    assert joined(at_once) == joined(in_parts)
    assert first.seal is not None
    assert second.seal is not None
    expected = hashlib.sha256(joined(at_once).encode()).hexdigest()
    assert (first.seal.sha256, second.seal.sha256) == (expected, expected), f"seed {seed}"


def test_a_run_without_tokens_has_a_hash_too() -> None:
    """It is the hash of no bytes."""
    _, rows = recorded([])
    assert rows.seal is not None
    assert (rows.seal.token_count, rows.seal.sha256) == (0, hashlib.sha256().hexdigest())


@given(st.lists(ANY_TEXT))
def test_every_text_comes_back_equal(texts_in: list[str]) -> None:
    """NUL, halves of surrogate pairs and the escape character become UTF-8 that every database stores."""
    [segments] = [recorded([texts_in])[0]]
    assert texts(segments) == texts_in
    for row in segments:
        row.deltas.encode()
        assert "\\u0000" not in row.deltas.replace("\\\\", "")


@pytest.mark.parametrize(
    "text",
    [
        "\x00",
        chr(0xD83C),
        chr(0xDF88),
        "\ud83c\udf88",
        "\ufdd0",
        "\ufdd00000",
        "\\u0000",
        "\\\\u0000",
        "\u2028",
        "🎈",
        "",
    ],
    ids=ascii,
)
def test_escaping_one_text_does_not_change_its_neighbours(text: str) -> None:
    """The other items of the row are written as usual."""
    [row] = recorded([["before", text, "after"]])[0]
    assert texts([row]) == ["before", text, "after"]
    assert row.deltas.startswith('[[5,"before"],[5,"')
    assert row.deltas.endswith('],[5,"after"]]')


def test_a_token_of_a_megabyte_stays_one_token() -> None:
    """It is neither split nor shortened."""
    long = "é\x00" * 2**19
    [row] = recorded([[long]])[0]
    assert (row.count, texts([row])) == (1, [long])


def test_escaping_keeps_kind_and_index() -> None:
    """The arguments of a tool call have a NUL in them."""
    assert encode_deltas([(1, "\x00", TOOL_ARGS, "0.2")]).decode() == '[[1,"\ufdd00000","tool_args","0.2"]]'


# -- frames --------------------------------------------------------------------------------------------------


def test_frames_join_to_the_body() -> None:
    """Frames of several batches are the body byte for byte, compressed with the dictionary of their wire format."""
    body = openai_chat_frames([song_pieces(3_000)])
    queue = RecordingQueue(ALL)
    run = started(queue, run_start(wire="openai.chat"), 0)
    found: list[FrameRow] = []
    for number, frame in enumerate(body):
        queue.put_frame(run, frame, [Delta("x")], number)
        if number % 700 == 0:
            found += one(queue).frames
    queue.end(run, run_end())
    last = one(queue)
    found += last.frames
    frames = [frame for row in found for frame in split(decompress(row.data, row.dictionary))]
    assert frames == list(enumerate(body))
    assert {row.dictionary for row in found} == {"openai.chat.1"}
    assert [row.at_us for row in found] == [row.seq for row in found]
    assert last.seal is not None
    assert last.seal.frames_sha256 == hashlib.sha256(b"".join(body)).hexdigest()


def test_frames_are_cut_into_short_rows() -> None:
    """Rows are numbered, and their `first_delta` is not after their first token, so that a reader can seek."""
    queue = RecordingQueue(ALL)
    run = started(queue, run_start(), 0)
    total = 2 * MAX_ROW_FRAMES + 1
    for number in range(total):
        queue.put_frame(run, b"%d" % number, [Delta("a"), Delta("b")], number)
    found = one(queue).frames
    assert [(row.seq, row.count) for row in found] == [
        (0, MAX_ROW_FRAMES), (MAX_ROW_FRAMES, MAX_ROW_FRAMES), (2 * MAX_ROW_FRAMES, 1)
    ]  # fmt: skip
    assert all(row.first_delta <= 2 * row.seq for row in found)
    queue.put_frame(run, b"later", [Delta("c")], total)
    assert [(row.seq, row.first_delta) for row in one(queue).frames] == [(total, 2 * total)]


def test_frames_of_an_unknown_wire_format_are_compressed_without_a_dictionary() -> None:
    """The column `dictionary` is None."""
    queue = RecordingQueue(ALL)
    run = started(queue, run_start(wire="someone.else"), 0)
    queue.put_frame(run, b"x" * 1_000, [], 0)
    [row] = one(queue).frames
    assert (row.dictionary, split(decompress(row.data, None))) == (None, [(0, b"x" * 1_000)])


def test_a_run_without_frames_has_no_hash_of_frames() -> None:
    """The hash of no bytes would be that of a run with one empty frame."""
    assert (seal := recorded([["a"]])[1].seal) is not None
    assert seal.frames_sha256 is None


def test_a_run_with_dropped_frames_has_no_hash_of_frames() -> None:
    """The hash of some frames would claim that they are all; the numbers go on after the dropped ones."""
    queue = RecordingQueue(5_000, overflow="drop_newest")
    run = started(queue, run_start(), 0)
    for _ in range(20):
        queue.put_frame(run, b"x" * 200, [], 0)
    first = one(queue)
    queue.release(first.bytes)
    queue.put_frame(run, b"after", [], 0)
    queue.end(run, run_end())
    last = one(queue)
    assert [(row.seq, row.count) for row in [*first.frames, *last.frames]] == [(0, 10), (20, 1)]
    assert last.seal is not None
    assert last.seal.frames_sha256 is None


# -- a batch -------------------------------------------------------------------------------------------------


def test_the_runs_of_a_batch_are_sorted_by_id() -> None:
    """Two writers lock rows in the same order."""
    queue = RecordingQueue(ALL)
    runs = [started(queue, run_start(number), 0) for number in (3, 1, 2)]
    for run in runs:
        queue.put_frame(run, run.start.run_id.encode(), [Delta(run.start.run_id)], 0)
    rows = serialize(queue.drain(ALL).runs)
    assert [row.start.run_id for row in rows] == sorted(run.start.run_id for run in runs)
    for row in rows:
        assert texts(row.segments) == [row.start.run_id]
        [block] = row.frames
        assert split(decompress(block.data, block.dictionary)) == [(0, row.start.run_id.encode())]


def test_a_run_opens_once_and_is_sealed_once() -> None:
    """Its row comes with its first batch and its seal with its last."""
    queue = RecordingQueue(ALL)
    run = started(queue, run_start(), 0)
    first = one(queue)
    queue.put(run, "a", 0)
    second = one(queue)
    queue.end(run, run_end())
    third = one(queue)
    assert [(rows.opens, rows.seal is not None) for rows in (first, second, third)] == [
        (True, False), (False, False), (False, True)
    ]  # fmt: skip


def test_the_seal_has_the_time_of_the_first_token() -> None:
    """It is the token's offset after the start, in whichever batch the token came; a run without tokens has none."""
    start = datetime(2026, 11, 21, tzinfo=UTC)
    ends = []
    for offsets in ([], [1_500_000, 2_000_000]):
        queue = RecordingQueue(ALL)
        run = started(queue, run_start(started_at=start), 0)
        for offset in offsets:
            queue.put(run, "a", offset)
            serialize(queue.drain(ALL).runs)
        queue.end(run, run_end())
        ends.append(one(queue).seal)
    assert [seal and seal.end.first_token_at for seal in ends] == [None, start + timedelta(seconds=1.5)]


def test_dropped_tokens_become_a_gap_row() -> None:
    """The numbers go on after the gap; count and hash are those of the stored tokens."""
    queue = RecordingQueue(10_000, overflow="drop_newest")
    run: OpenRun = started(queue, run_start(), 0)
    for number in range(100):
        queue.put(run, str(number), 0)
    rows = [one(queue)]
    queue.release(rows[0].bytes)
    queue.put(run, "100", 0)
    queue.end(run, run_end())
    rows.append(one(queue))
    [gap] = rows[1].gaps
    kept = rows[0].tokens
    assert (gap.seq, gap.count, gap.reason) == (kept, 100 - kept, "the queue was full")
    segments = [segment for row in rows for segment in row.segments]
    assert [(segment.seq, segment.count) for segment in segments] == [(0, kept), (100, 1)]
    assert (seal := rows[1].seal) is not None
    assert (seal.token_count, seal.sha256) == (
        kept + 1,
        hashlib.sha256(joined(segments).encode()).hexdigest(),
    )
