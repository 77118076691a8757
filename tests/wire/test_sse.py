"""`FrameSplitter` cuts a body into frames that join to the body, whatever pieces it comes in."""

from __future__ import annotations

import random
import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from recorder.wire import sse
from recorder.wire.sse import MAX_FRAME_BYTES, Event, FrameSplitter, encode, parse
from tests.genuine import Stream, all_streams
from tests.wires import at_random, by_one, crlf, frames_of, genuine, unhurried

#: Bytes of random bodies, mostly line ends and frame ends.
_BODIES = st.lists(
    st.sampled_from(
        [b"\n", b"\r", b"\n\n", b"\r\n", b"\r\n\r\n", b"\r\r", b"data: ", b"x", b":", b"\xf0\x9f"]
    )
    | st.binary(max_size=8),
    max_size=30,
).map(b"".join)


@st.composite
def _cut_bodies(draw: st.DrawFn) -> list[bytes]:
    """A body in pieces."""
    body = draw(_BODIES)
    cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=10)))
    return [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]


# -- frames of a body ----------------------------------------------------------------------------------------


@unhurried
@given(_cut_bodies())
@example([b"data: aaaaaaaa\n", b"\n", b"x: 1\r\n\r\ndata: 2\r\n\r\n"])
def test_frames_do_not_depend_on_the_pieces_of_the_body(pieces: list[bytes]) -> None:
    """The body comes in random pieces, byte by byte or at once."""
    body = b"".join(pieces)
    frames = frames_of(pieces)
    assert b"".join(frames) == body
    assert frames == frames_of([body]) == frames_of(by_one(body))


@unhurried
@given(_cut_bodies())
def test_the_cuts_of_too_long_frames_do_not_depend_on_the_pieces_of_the_body(pieces: list[bytes]) -> None:
    """This holds where the limit falls into the blank line at the frame's end, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sse, "MAX_FRAME_BYTES", 16)
        patch.setattr(sse, "_SMALL", 4)
        patch.setattr(sse, "_LARGE", 8)
        body = b"".join(pieces)
        frames = frames_of(pieces)
        assert b"".join(frames) == body
        assert frames == frames_of([body]) == frames_of(by_one(body))
        assert max(map(len, frames), default=0) <= 16 + 4


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_a_frame_ends_with_its_blank_line(ending: bytes) -> None:
    """The rest after the last blank line is returned by `end`."""
    first, second = b"event: a" + ending + b"data: 1" + ending * 2, b": comment" + ending * 2
    splitter = FrameSplitter()
    assert splitter.feed(first + second + b"data: 2" + ending) == [first, second]
    assert splitter.end() == b"data: 2" + ending
    assert splitter.end() == b""


def test_a_frame_that_ends_with_cr_waits_for_an_lf() -> None:
    """An LF may still follow and belong to it."""
    splitter = FrameSplitter()
    assert splitter.feed(b"data: 1\r\r") == []
    assert splitter.end() == b"data: 1\r\r"
    assert splitter.feed(b"data: 1\r\r") == []
    assert splitter.feed(b"\ndata: 2") == [b"data: 1\r\r\n"]


@genuine
def test_frames_of_genuine_bodies_join_to_the_body(stream: Stream) -> None:
    """The pieces of the body and its line ends make no difference."""
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    expected = frames_of([stream.body])
    assert b"".join(expected) == stream.body
    assert frames_of(by_one(stream.body)) == expected
    assert frames_of(at_random(stream.body, chance)) == expected
    other = frames_of(at_random(crlf(stream.body), chance))
    assert [frame.replace(b"\r\n", b"\n") for frame in other] == expected
    assert list(map(parse, other)) == list(map(parse, expected))


def test_each_frame_of_a_genuine_stream_is_one_event() -> None:
    """Each frame has data, or is a comment, in all wire formats."""
    if not all_streams():
        pytest.skip("no genuine provider streams")
    for stream in all_streams():
        frames = frames_of(at_random(stream.body, random.Random(stream.name)))
        assert b"".join(frames) == stream.body, stream.name
        assert all(frame.count(b"data:") >= 1 or frame.startswith(b":") for frame in frames), stream.name


def test_a_stream_without_line_breaks_takes_bounded_memory() -> None:
    """It is returned in pieces as it grows."""
    block = b"x" * 2**18
    splitter = FrameSplitter()
    count, found = 160, 0
    tracemalloc.start()
    try:
        for _ in range(count):
            pieces = splitter.feed(block)
            assert all(piece == b"x" * MAX_FRAME_BYTES for piece in pieces)
            found += sum(map(len, pieces))
        assert tracemalloc.get_traced_memory()[1] < 4 * MAX_FRAME_BYTES
    finally:
        tracemalloc.stop()
    assert found + len(splitter.end()) == count * len(block)


def test_a_frame_that_is_too_long_is_cut() -> None:
    """The next frame is complete again."""
    body = b"data: " + b"x" * (MAX_FRAME_BYTES + 10) + b"\n\ndata: 2\n\n"
    frames = frames_of([body])
    assert list(map(len, frames)) == [MAX_FRAME_BYTES, 18, 9]
    assert b"".join(frames) == body


# -- fields of a frame ---------------------------------------------------------------------------------------

_FIELDS = {
    "data": (b'data: {"a": 1}\n\n', Event(b'{"a": 1}')),
    "CRLF": (b"data: 1\r\n\r\n", Event(b"1")),
    "CR": (b"data: 1\r\r", Event(b"1")),
    "no space": (b"data:1\n\n", Event(b"1")),
    "one space of two": (b"data:  1\n\n", Event(b" 1")),
    "several lines": (b"data: {\ndata: }\ndata\n\n", Event(b"{\n}\n")),
    "empty": (b"data:\n\n", Event(b"")),
    "name": (b"event: error\ndata: 1\n\n", Event(b"1", "error")),
    "name after": (b"data: 1\nevent: ping\n\n", Event(b"1", "ping")),
    "id": (b"id: 7\ndata: 1\n\n", Event(b"1", None, "7")),
    "comment": (b": OPENROUTER PROCESSING\n\n", Event(None)),
    "comment beside data": (b": ping\ndata: 1\n\n", Event(b"1")),
    "retry": (b"retry: 3000\n\n", Event(None)),
    "unknown field": (b"datum: 1\nDATA: 2\n\n", Event(None)),
    "colon in the data": (b"data: a: b\n\n", Event(b"a: b")),
    "byte order mark": (b"\xef\xbb\xbfdata: 1\n\n", Event(b"1")),
    "NUL": (b"data: a\x00b\n\n", Event(b"a\x00b")),
    "invalid UTF-8": (b"event: \xff\ndata: \xff\n\n", Event(b"\xff", "\ufffd")),
    "blank lines": (b"\n\n", Event(None)),
    "cut off": (b"data: 1", Event(b"1")),
    "nothing": (b"", Event(None)),
    "other line breaks": ("data: a\u2028b\x0bc\x85d\n\n".encode(), Event("a\u2028b\x0bc\x85d".encode())),
}


@pytest.mark.parametrize(("frame", "fields"), _FIELDS.values(), ids=_FIELDS)
def test_fields_of_a_frame_are_read_as_the_standard_says(frame: bytes, fields: Event) -> None:
    """Order, line ends and comments make no difference."""
    assert parse(frame) == fields


@unhurried
@given(st.binary(max_size=60))
def test_any_frame_can_be_parsed(frame: bytes) -> None:
    """It has fields or none."""
    assert isinstance(parse(frame), Event)


# -- writing frames ------------------------------------------------------------------------------------------


def test_a_frame_has_one_data_line_for_each_line() -> None:
    """An event name comes first."""
    assert encode(b"1") == b"data: 1\n\n"
    assert encode(b"{}", "ping") == b"event: ping\ndata: {}\n\n"
    assert encode(b"a\nb") == b"data: a\ndata: b\n\n"


@unhurried
@given(st.binary(max_size=40), st.sampled_from([None, "error", "message_start"]))
def test_a_written_frame_is_read_back(data: bytes, name: str | None) -> None:
    """The data are the same, with LF for every line end."""
    frame = encode(data, name)
    assert frames_of([frame]) == [frame]
    assert parse(frame) == Event(data.replace(b"\r\n", b"\n").replace(b"\r", b"\n"), name)
