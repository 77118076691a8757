"""Compresses frames with zstd and a dictionary for each wire format. The row names its dictionary."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

import zstandard

from recorder.core.installation import UPGRADE
from recorder.errors import StoreError

#: The dictionary for new frames of each wire format. A released dictionary file never changes.
_NEWEST = {
    "anthropic.messages": "anthropic.messages.1",
    "openai.chat": "openai.chat.1",
    "openai.completions": "openai.completions.1",
}
_NAME = re.compile(r"[a-z0-9]+(\.[a-z0-9]+)*")
_LEVEL = 3
#: The largest decompressed size (bytes). A damaged row may claim any size; rows that recorder writes are smaller.
MAX_DECOMPRESSED = 256 * 2**20


class _ThreadLocal(threading.local):
    """The decompressors of this thread; two threads must not share one."""

    def __init__(self) -> None:
        self.decompressors: dict[str | None, zstandard.ZstdDecompressor] = {}


_thread_local = _ThreadLocal()


def compress(blobs: Sequence[bytes], wires: Sequence[str | None]) -> list[tuple[bytes, str | None]]:
    """Each blob compressed, with the name of its dictionary. Makes one call into C for each wire format."""
    found: list[tuple[bytes, str | None]] = [(b"", None)] * len(blobs)
    by_name: dict[str | None, list[int]] = {}
    for place, wire in enumerate(wires):
        if blobs[place]:  # zstandard refuses an empty blob
            by_name.setdefault(_NEWEST.get(wire or ""), []).append(place)
    for name, places in by_name.items():
        packed = _compressor(name).multi_compress_to_buffer([blobs[place] for place in places], threads=0)
        for number, place in enumerate(places):
            found[place] = (packed[number].tobytes(), name)
    return found


def decompress(data: bytes, dictionary: str | None) -> bytes:
    """The decompressed blob. Raises `StoreError` when the data are damaged or the dictionary is unknown."""
    if not data:
        return b""
    decompressor = _decompressor(dictionary)
    try:
        # zstandard allocates the size that the header claims before it decompresses anything.
        if zstandard.frame_content_size(data) > MAX_DECOMPRESSED:
            raise zstandard.ZstdError("the header claims a larger size")
        return decompressor.decompress(data, max_output_size=MAX_DECOMPRESSED, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise StoreError(
            f"Stored frames cannot be decompressed ({error}; at most {MAX_DECOMPRESSED} bytes are read); the row is "
            "damaged, restore it from a backup"
        ) from error


@cache
def _dictionary(name: str) -> zstandard.ZstdCompressionDict:
    found = files("recorder.storage").joinpath("dictionaries", f"{name}.zdict")
    # The name comes from a database that any program may have written, so it must not be a path.
    if not _NAME.fullmatch(name) or not found.is_file():
        raise StoreError(
            f"Frames were stored with dictionary {name!r}, which this version does not have; " + UPGRADE
        )
    return zstandard.ZstdCompressionDict(found.read_bytes())


@cache
def _compressor(name: str | None) -> zstandard.ZstdCompressor:
    if name is None:
        return zstandard.ZstdCompressor(level=_LEVEL)
    # Without the dictionary's id, which the row names, and without a checksum, because the run has a hash.
    parameters = zstandard.ZstdCompressionParameters.from_level(_LEVEL, write_dict_id=0, write_checksum=0)
    return zstandard.ZstdCompressor(dict_data=_dictionary(name), compression_params=parameters)


def _decompressor(name: str | None) -> zstandard.ZstdDecompressor:
    decompressors = _thread_local.decompressors
    if name not in decompressors:
        decompressors[name] = zstandard.ZstdDecompressor(dict_data=_dictionary(name) if name else None)
    return decompressors[name]
