"""Decodes compressed bodies in small pieces, so that a few bytes cannot fill the memory."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from recorder.errors import RecorderError

#: A piece of decoded bytes has at most this size.
_PIECE = 2**20
#: What zlib is told for gzip, and for deflate without its header.
_GZIP, _RAW = zlib.MAX_WBITS | 16, -zlib.MAX_WBITS

#: Yields the decoded bytes of some bytes of a body.
Decode = Callable[[bytes], Iterator[bytes]]


class UnreadableContent(RecorderError):
    """The content encoding of a response is unknown, or its bytes are damaged."""


def decoder_of(content_encoding: str | None) -> Decode:
    """The decoder for the value of the header `content-encoding`. It raises `UnreadableContent`."""
    names = [name.strip().lower() for name in (content_encoding or "").split(",")]
    decode: Decode = _identity
    for name in reversed([name for name in names if name not in ("", "identity")]):
        decode = _after(decode, _decoder(name))
    return decode


def _identity(data: bytes) -> Iterator[bytes]:
    yield data


def _after(first: Decode, second: Decode) -> Decode:
    def decode(data: bytes) -> Iterator[bytes]:
        for piece in first(data):
            yield from second(piece)

    return decode if first is not _identity else second


def _decoder(name: str) -> Decode:
    if name in ("gzip", "x-gzip"):
        return _zlib(zlib.decompressobj(_GZIP))
    if name == "deflate":
        return _deflate()
    if name == "zstd":
        return _checked(_zstd())
    if name == "br":
        return _brotli()
    raise UnreadableContent(
        f"The response has the content encoding {name[:40]!r}, which recorder cannot decode"
    )


def _zlib(inflate: Any) -> Decode:
    def decode(data: bytes) -> Iterator[bytes]:
        while data and not inflate.eof:
            try:
                piece = inflate.decompress(data, _PIECE)
            except zlib.error as error:
                raise UnreadableContent(f"The compressed response is damaged: {error}") from error
            yield piece
            data = inflate.unconsumed_tail

    return decode


def _zstd() -> Callable[[bytes], bytes]:
    """A body may consist of several frames, as servers make them that end one for each event."""
    new = import_module("zstandard").ZstdDecompressor().decompressobj
    frame = new()

    def decompress(data: bytes) -> bytes:
        nonlocal frame
        found = b""
        while data:
            if frame.eof:
                frame = new()
            found += frame.decompress(data)
            data = frame.unused_data if frame.eof else b""
        return found

    return decompress


def _deflate() -> Decode:
    """Some servers send deflate without its header; the first two bytes tell which one it is."""
    chosen: list[Decode] = []
    head = b""

    def decode(data: bytes) -> Iterator[bytes]:
        nonlocal head
        if not chosen:
            data, head = head + data, b""
            if len(data) < 2:
                head = data
                return
            has_header = data[0] & 0x0F == 8 and int.from_bytes(data[:2]) % 31 == 0
            chosen.append(_zlib(zlib.decompressobj(zlib.MAX_WBITS if has_header else _RAW)))
        yield from chosen[0](data)

    return decode


def _brotli() -> Decode:
    """The HTTP clients accept this encoding only where one of these two libraries is installed."""
    for library in ("brotli", "brotlicffi"):
        try:
            return _checked(import_module(library).Decompressor().process)
        except ImportError:
            continue
    raise UnreadableContent("The response is compressed with brotli; install the package brotli")


def _checked(decompress: Callable[[bytes], bytes]) -> Decode:
    def decode(data: bytes) -> Iterator[bytes]:
        # These libraries cannot limit their output. A few bytes at a time do: 256 bytes become at most some megabytes.
        for start in range(0, len(data), 256):
            try:
                piece = decompress(data[start : start + 256])
            except Exception as error:
                raise UnreadableContent(f"The compressed response is damaged: {error}") from error
            if piece:
                yield piece

    return decode
