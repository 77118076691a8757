"""Lines and objects are cut out of a body, whatever pieces it comes in."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.wire import json_frames
from recorder.wire.framing import EVENTS, Splitter
from recorder.wire.gemini.framing import GeminiSplitter
from recorder.wire.json_frames import LineSplitter, ObjectSplitter
from tests.wires import unhurried

SPLITTERS: list[Callable[[], Splitter]] = [LineSplitter, ObjectSplitter, GeminiSplitter]
every_splitter = pytest.mark.parametrize("make", SPLITTERS)


def split(make: Callable[[], Splitter], *pieces: bytes) -> list[bytes]:
    """Return the frames of a body that comes in these pieces, and the bytes after the last one."""
    splitter = make()
    return [frame for piece in pieces for frame in splitter.feed(piece)] + [splitter.end()]


def test_a_line_is_a_frame() -> None:
    """A blank line belongs to the next line; the last line may have no end."""
    assert split(LineSplitter, b'{"a":1}\n\r\n\n{"b":2}\r\n{"c"') == [
        b'{"a":1}\n',
        b'\r\n\n{"b":2}\r\n',
        b'{"c"',
    ]
    assert split(LineSplitter, b"{}\n\n") == [b"{}\n", b"\n"]


def test_an_object_of_an_array_is_a_frame() -> None:
    """With what stands before it. Brackets in texts do not count."""
    assert split(ObjectSplitter, b'[{"a":{"b":[{}]}}\n,\r\n{"c":"]}\\"{"}]\n') == [
        b'[{"a":{"b":[{}]}}',
        b'\n,\r\n{"c":"]}\\"{"}',
        b"]\n",
    ]


def test_objects_without_an_array_are_frames() -> None:
    """An error is one object on several lines."""
    assert split(ObjectSplitter, b'\n{"a":\n{}}\n{}') == [b'\n{"a":\n{}}', b"\n{}", b""]


def test_a_stream_of_gemini_is_an_array_or_events() -> None:
    """The first character tells."""
    assert split(GeminiSplitter, b"\r\n", b"[{}", b",{}]") == [b"\r\n[{}", b",{}", b"]"]
    assert split(GeminiSplitter, b"\r\n", b"data: {}\r\n\r\n", b"x")[-1] == b"x"
    assert split(GeminiSplitter, b" \n") == [b" \n"]


@every_splitter
@given(
    st.text('{}[]",:\\\n\r \u00e9a', max_size=60),
    st.lists(st.integers(0, 5), max_size=40),
    st.integers(3, 40),
)
@unhurried
def test_frames_do_not_depend_on_the_pieces(
    make: Callable[[], Splitter], body: str, sizes: list[int], most: int
) -> None:
    """And they join to the body, also where frames are longer than the limit."""
    data, at, cut = body.encode(), 0, []
    for size in sizes:
        cut.append(data[at : at + size])
        at += size
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_frames, "MAX_FRAME_BYTES", most)
        together, apart = split(make, data), split(make, *cut, data[at:])
        assert b"".join(apart) == data
        assert max(map(len, apart)) <= most or make is GeminiSplitter
        assert apart == together


@every_splitter
def test_an_endless_frame_needs_bounded_memory(
    make: Callable[[], Splitter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is returned in pieces."""
    monkeypatch.setattr(json_frames, "MAX_FRAME_BYTES", 100)
    splitter = make()
    given = [frame for _ in range(50) for frame in splitter.feed(b'{"a' * 10)]
    assert all(len(frame) <= 100 for frame in given)
    assert len(splitter.end()) <= 100


def test_a_body_is_a_stream_by_its_type_or_by_the_request() -> None:
    """OpenAI's and Anthropic's streams have their type; other bodies are looked at."""
    assert EVENTS.is_stream("text/event-stream; charset=utf-8", requested=False)
    assert not EVENTS.is_stream("application/json", requested=True)
    assert json_frames.FIRST.search(b"\xef\xbb\xbf \n{") is not None
