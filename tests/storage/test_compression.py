"""Compressed frames are small, are read back byte for byte, and a damaged row is an error."""

from __future__ import annotations

import hashlib
import random
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from recorder.errors import StoreError
from recorder.storage.compression import MAX_DECOMPRESSED, compress, decompress
from recorder.testing import (
    anthropic_messages_frames,
    openai_chat_frames,
    openai_completion_frames,
    song_pieces,
)
from tests.genuine import Stream
from tests.wires import frames_of, genuine, genuine_anthropic, unhurried

#: Rows name their dictionary, so a released dictionary never changes; a new one gets a new number, and both stay.
RELEASED = {
    "anthropic.messages.1": "371ca25341cbb8e3e7a5b2852a90a136e05105854ddfb9d7a37d8fa74647cca9",
    "openai.chat.1": "2f3a61bea86f5e3affc867420ef8fc16ef720a7d25f302bace2c4648856e8499",
    "openai.completions.1": "798633783ca5501518879aaa059bc0b9b011d5e065ddfda3836c40d4bf0ee25a",
}
WIRE, CLAUDE = "openai.chat", "anthropic.messages"


def test_released_dictionaries_do_not_change() -> None:
    """Every dictionary that is shipped is listed here with its hash."""
    folder = files("recorder.storage").joinpath("dictionaries")
    found = {
        file.name.removesuffix(".zdict"): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.iterdir()
        if file.name.endswith(".zdict")
    }
    assert found == RELEASED


@unhurried
@given(
    st.lists(
        st.tuples(st.binary(max_size=300), st.sampled_from([WIRE, CLAUDE, "another.wire", None])), max_size=8
    )
)
def test_decompressed_frames_equal_the_compressed_ones(rows: list[tuple[bytes, str | None]]) -> None:
    """They stay in order, each with the dictionary of its wire format or with none; empty ones need none."""
    packed = compress([blob for blob, _ in rows], [wire for _, wire in rows])
    assert [decompress(*row) for row in packed] == [blob for blob, _ in rows]
    names = {WIRE: "openai.chat.1", CLAUDE: "anthropic.messages.1"}
    assert [name for _, name in packed] == [names.get(wire or "") if blob else None for blob, wire in rows]


@genuine
def test_frames_of_real_responses_are_decompressed_unchanged(stream: Stream) -> None:
    """Five frames make a row, about as many as are stored in one."""
    frames = frames_of([stream.body])
    rows = [b"".join(frames[at : at + 5]) for at in range(0, len(frames), 5)]
    assert [decompress(*row) for row in compress(rows, [WIRE] * len(rows))] == rows


@genuine_anthropic
def test_frames_of_real_anthropic_responses_are_decompressed_unchanged(stream: Stream) -> None:
    """They are smaller than without a dictionary."""
    frames = frames_of([stream.body])
    rows = [b"".join(frames[at : at + 5]) for at in range(0, len(frames), 5)]
    packed, plain = compress(rows, [CLAUDE] * len(rows)), compress(rows, [None] * len(rows))
    assert [decompress(*row) for row in packed] == rows
    assert sum(len(data) for data, _ in packed) < sum(len(data) for data, _ in plain)


@pytest.mark.parametrize(
    ("wire", "frames", "share"),
    [(WIRE, openai_chat_frames, 0.5), ("openai.completions", openai_completion_frames, 0.52),
     (CLAUDE, anthropic_messages_frames, 0.6)],
    ids=["chat", "completions", "anthropic"],
)  # fmt: skip
def test_a_dictionary_makes_short_rows_small(
    wire: str, frames: Callable[..., list[bytes]], share: float
) -> None:
    """Rows of five events take at most 50 to 60 % of their size without a dictionary."""
    events = frames(song_pieces(150))
    # The sizes of single rows vary too much, because of their ids, times and padding.
    rows = [b"".join(events[at : at + 5]) for at in range(5, 145, 5)]
    with_one, without = (
        sum(len(data) for data, _ in compress(rows, [name] * len(rows))) for name in (wire, None)
    )
    assert with_one < share * without < sum(map(len, rows))


def test_threads_can_compress_and_decompress_at_once() -> None:
    """Six threads use the same dictionaries."""
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    blobs = [b'data: {"n": %d}\n\n' % n * chance.randrange(2_000, 40_000) for n in range(8)]
    packed = compress(blobs, [WIRE, None] * 4)

    def work(start: int) -> bool:
        same = compress(blobs, [WIRE, None] * 4) == packed
        return same and all(decompress(*packed[n % 8]) == blobs[n % 8] for n in range(start, start + 40))

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(6)))


def test_an_unknown_dictionary_raises_what_to_install() -> None:
    """A newer version wrote the row."""
    with pytest.raises(StoreError, match=r"'openai\.chat\.999'.*install a newer version of chat-recorder"):
        decompress(b"\x28\xb5\x2f\xfd", "openai.chat.999")


_DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda data: data[:-3],
    "only its head": lambda data: data[:4],
    "another beginning": lambda data: b"\x00" + data[1:],
    "more behind it": lambda data: data + b"more",
    "twice": lambda data: data + data,
    "never compressed": lambda data: b'data: {"plain": true}\n\n',
}


@pytest.mark.parametrize("damage", _DAMAGES.values(), ids=_DAMAGES)
@pytest.mark.parametrize("wire", [WIRE, None])
def test_a_damaged_row_raises_a_store_error(damage: Callable[[bytes], bytes], wire: str | None) -> None:
    """It is never decompressed to other bytes."""
    [(data, name)] = compress([b"".join(openai_chat_frames(["Hello"]))], [wire])
    with pytest.raises(StoreError, match="the row is damaged"):
        decompress(damage(data), name)


def test_a_row_with_any_byte_changed_raises_nothing_but_a_store_error() -> None:
    """Where the row still decompresses, the hash of the run finds the damage."""
    frames = b"".join(openai_chat_frames(song_pieces(5)))
    [(data, name)] = compress([frames], [WIRE])
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 0xFF
        try:
            decompress(bytes(damaged), name)
        except StoreError:
            continue


@pytest.mark.parametrize("says_its_size", [True, False])
def test_a_row_that_decompresses_beyond_the_limit_is_refused(says_its_size: bool) -> None:
    """The memory that is used stays below the limit, whether or not the row names its size."""
    packer = zstandard.ZstdCompressor(write_content_size=says_its_size).compressobj(
        size=MAX_DECOMPRESSED + 2**20 if says_its_size else -1
    )
    block = bytes(2**20)
    bomb = b"".join(packer.compress(block) for _ in range(MAX_DECOMPRESSED // 2**20 + 1)) + packer.flush()
    assert len(bomb) < 100_000
    tracemalloc.start()
    try:
        with pytest.raises(StoreError, match="the row is damaged"):
            decompress(bomb, None)
        assert tracemalloc.get_traced_memory()[1] < (1_000_000 if says_its_size else MAX_DECOMPRESSED + 2**20)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "name", ["../../../../tmp/x", "/tmp/x", "a/../b", "", "x\x1b[31m", "openai.chat.1\n"]
)
def test_the_name_of_a_dictionary_is_no_path(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name comes from a database that any program may have written, so no file is opened by it."""
    opened: list[str] = []

    def read_bytes(path: Path) -> bytes:
        opened.append(str(path))
        return b""

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    with pytest.raises(StoreError) as raised:
        decompress(b"\x28\xb5\x2f\xfd", name or "..")
    assert opened == []
    assert "\x1b" not in str(raised.value)


def test_the_error_for_a_row_beyond_the_limit_names_the_limit() -> None:
    """The error says how many bytes are read at most."""
    with pytest.raises(StoreError, match=f"at most {MAX_DECOMPRESSED} bytes are read"):
        decompress(zstandard.compress(b"a") * 1_000, None)
