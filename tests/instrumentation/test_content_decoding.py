"""Compressed bodies are decoded in pieces of bounded size, however they are cut."""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Callable

import pytest
import zstandard

from recorder.instrumentation.content_decoding import UnreadableContent, decoder_of

BODY = b"data: Hello there!\n\n" * 500


def raw_deflate(data: bytes) -> bytes:
    """Return the data compressed without the header of zlib."""
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    " Deflate ": raw_deflate,
    "zstd": zstandard.compress,
    "zstd ": lambda data: zstandard.compress(data[:99]) + zstandard.compress(data[99:]),
    "identity": bytes,
    "": bytes,
    "zstd, gzip": lambda data: gzip.compress(zstandard.compress(data)),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_body_is_decoded_however_it_is_cut(encoding: str) -> None:
    """In one piece, and in pieces of random sizes from a printed seed."""
    data = ENCODINGS[encoding](BODY)
    assert b"".join(decoder_of(encoding)(data)) == BODY
    seed = random.randrange(10**6)
    print("seed", seed)
    chance, decode, found, start = random.Random(seed), decoder_of(encoding), b"", 0
    while start < len(data):
        size = chance.randrange(1, 40)
        found += b"".join(decode(data[start : start + size]))
        start += size
    assert found == BODY


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_body_is_decoded_byte_by_byte(encoding: str) -> None:
    """The first bytes may come alone."""
    data, decode = ENCODINGS[encoding](BODY), decoder_of(encoding)
    assert b"".join(b"".join(decode(data[place : place + 1])) for place in range(len(data))) == BODY


def test_no_header_means_no_encoding() -> None:
    """The bytes are passed on."""
    assert list(decoder_of(None)(b"abc")) == [b"abc"]


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
def test_a_bomb_is_decoded_in_small_pieces(encoding: str) -> None:
    """A few kilobytes that become 64 megabytes never fill the memory at once."""
    bomb = ENCODINGS[encoding](bytes(64 * 2**20))
    sizes = [len(piece) for piece in decoder_of(encoding)(bomb)]
    assert sum(sizes) == 64 * 2**20
    assert max(sizes) <= 40 * 2**20


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
def test_damaged_bytes_are_an_error(encoding: str) -> None:
    """It names the damage."""
    with pytest.raises(UnreadableContent, match="damaged"):
        list(decoder_of(encoding)(b"\x78\x9cno compressed bytes at all"))


def test_an_unknown_encoding_is_named() -> None:
    """It is not guessed."""
    with pytest.raises(UnreadableContent, match="'compress'"):
        decoder_of("compress")
