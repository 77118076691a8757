"""Frames compressed with a dictionary for each wire format; its name goes into the row."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files

import zstandard

from recorder.errors import StoreError

#: wire format -> the dictionary that new frames of it are compressed with. A file, once released, never changes.
_NEWEST = {"openai.chat": "openai.chat.1"}
_LEVEL = 3
#: A damaged row may claim any size; no honest one is larger than this (bytes).
MAX_DECOMPRESSED = 256 * 2**20


def compress(blobs: Sequence[bytes], wires: Sequence[str | None]) -> list[tuple[bytes, str | None]]:
    """Each blob compressed, with the name of its dictionary; one call into C for each wire format."""
    found: list[tuple[bytes, str | None]] = [(b"", None)] * len(blobs)
    by_name: dict[str | None, list[int]] = {}
    for place, wire in enumerate(wires):
        by_name.setdefault(_NEWEST.get(wire or ""), []).append(place)
    for name, places in by_name.items():
        packed = _compressor(name).multi_compress_to_buffer([blobs[place] for place in places], threads=0)
        for place, segment in zip(places, packed, strict=True):
            found[place] = (segment.tobytes(), name)
    return found


def decompress(data: bytes, dictionary: str | None) -> bytes:
    """The frames joined, as they were. Raises `StoreError` when the data are damaged."""
    try:
        return _decompressor(dictionary).decompress(data, max_output_size=MAX_DECOMPRESSED)
    except zstandard.ZstdError as error:
        raise StoreError(f"Stored frames cannot be decompressed ({error}); the row is damaged") from error


@cache
def _dictionary(name: str) -> zstandard.ZstdCompressionDict:
    found = files("recorder.wire").joinpath("dictionaries", f"{name}.zdict")
    if not found.is_file():
        raise StoreError(
            f"Frames were stored with dictionary {name!r}, which this version does not have; "
            "run `pip install --upgrade chat-recorder`"
        )
    return zstandard.ZstdCompressionDict(found.read_bytes())


@cache
def _compressor(name: str | None) -> zstandard.ZstdCompressor:
    if name is None:
        return zstandard.ZstdCompressor(level=_LEVEL)
    # Without the dictionary's id, the checksum and the size: eight bytes less a row, and the row names it.
    parameters = zstandard.ZstdCompressionParameters.from_level(_LEVEL, write_dict_id=0, write_checksum=0)
    return zstandard.ZstdCompressor(dict_data=_dictionary(name), compression_params=parameters)


@cache
def _decompressor(name: str | None) -> zstandard.ZstdDecompressor:
    return zstandard.ZstdDecompressor(dict_data=_dictionary(name)) if name else zstandard.ZstdDecompressor()
