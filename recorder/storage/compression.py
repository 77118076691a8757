"""Frames compressed with a dictionary for each wire format; its name goes into the row."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

import zstandard

from recorder.errors import StoreError

#: wire format -> the dictionary that new frames of it are compressed with. A file, once released, never changes.
_NEWEST = {
    "anthropic.messages": "anthropic.messages.1",
    "openai.chat": "openai.chat.1",
    "openai.completions": "openai.completions.1",
}
_NAME = re.compile(r"[a-z0-9]+(\.[a-z0-9]+)*")
_LEVEL = 3
#: A damaged row may claim any size; no honest one is larger than this (bytes).
MAX_DECOMPRESSED = 256 * 2**20


class _OfThread(threading.local):
    """The decompressors of each thread: one must not be used by two at once."""

    def __init__(self) -> None:
        self.decompressors: dict[str | None, zstandard.ZstdDecompressor] = {}


_of_thread = _OfThread()


def compress(blobs: Sequence[bytes], wires: Sequence[str | None]) -> list[tuple[bytes, str | None]]:
    """Each blob compressed, with the name of its dictionary; one call into C for each wire format."""
    found: list[tuple[bytes, str | None]] = [(b"", None)] * len(blobs)
    by_name: dict[str | None, list[int]] = {}
    for place, wire in enumerate(wires):
        if blobs[place]:  # C refuses a call with nothing to compress
            by_name.setdefault(_NEWEST.get(wire or ""), []).append(place)
    for name, places in by_name.items():
        packed = _compressor(name).multi_compress_to_buffer([blobs[place] for place in places], threads=0)
        for number, place in enumerate(places):
            found[place] = (packed[number].tobytes(), name)
    return found


def decompress(data: bytes, dictionary: str | None) -> bytes:
    """A blob as it was. Raises `StoreError` when the data are damaged or the dictionary unknown."""
    if not data:
        return b""
    decompressor = _decompressor(dictionary)
    try:
        # The size that the data claim is believed before the first byte is read.
        if zstandard.frame_content_size(data) > MAX_DECOMPRESSED:
            raise zstandard.ZstdError("they claim to be larger")
        return decompressor.decompress(data, max_output_size=MAX_DECOMPRESSED, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise StoreError(
            f"Stored frames cannot be decompressed ({error}; at most {MAX_DECOMPRESSED} bytes are read); the row is "
            "damaged, restore it from a backup"
        ) from error


@cache
def _dictionary(name: str) -> zstandard.ZstdCompressionDict:
    found = files("recorder.storage").joinpath("dictionaries", f"{name}.zdict")
    # The name comes out of a database, perhaps a stranger's, and is no path.
    if not _NAME.fullmatch(name) or not found.is_file():
        raise StoreError(
            f"Frames were stored with dictionary {name!r}, which this version does not have; "
            "run `pip install --upgrade chat-recorder`"
        )
    return zstandard.ZstdCompressionDict(found.read_bytes())


@cache
def _compressor(name: str | None) -> zstandard.ZstdCompressor:
    if name is None:
        return zstandard.ZstdCompressor(level=_LEVEL)
    # Without the dictionary's id and the checksum: the row names the one, and a run's hash is the other.
    parameters = zstandard.ZstdCompressionParameters.from_level(_LEVEL, write_dict_id=0, write_checksum=0)
    return zstandard.ZstdCompressor(dict_data=_dictionary(name), compression_params=parameters)


def _decompressor(name: str | None) -> zstandard.ZstdDecompressor:
    mine = _of_thread.decompressors
    if name not in mine:
        mine[name] = zstandard.ZstdDecompressor(dict_data=_dictionary(name) if name else None)
    return mine[name]
