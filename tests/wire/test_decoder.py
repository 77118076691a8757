"""A frame that a translator cannot decode becomes a delta of kind `other`, and later frames are decoded."""

from __future__ import annotations

from typing import Any

from recorder.core.json import loads
from recorder.wire.decoder import MAX_OTHER, Decoder
from recorder.wire.deltas import OTHER, TEXT, Delta
from recorder.wire.reply import Reply


class FailingDecoder(Decoder):
    """A decoder that fails after the first delta of an event."""

    def __init__(self) -> None:
        self.reply = Reply()

    def _decode_other(self, frame: bytes, deltas: list[Delta]) -> None:
        raise ValueError("not decodable")

    def _decode_event(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        deltas.append(Delta("kept"))
        raise KeyError("missing")


def test_deltas_before_a_decoding_error_are_kept() -> None:
    """A delta with the data of the event follows them."""
    decoder = FailingDecoder()
    first, second = decoder._decode(b"event: x\ndata: some data\n\n", {})
    assert (first.text, first.kind) == ("kept", TEXT)
    assert (loads(second.text), second.kind) == ({"undecodable": "some data"}, OTHER)
    assert decoder.reply.text() == "kept"


def test_a_long_undecodable_frame_is_cut() -> None:
    """The recorded frame has all of it."""
    [delta] = FailingDecoder()._decode(b"\xff" * (MAX_OTHER + 10), None)
    assert len(loads(delta.text)["undecodable"]) == MAX_OTHER


def test_nothing_is_decoded_after_the_terminator() -> None:
    """Bytes after it are only frames."""
    decoder = FailingDecoder()
    decoder.reply.terminated = True
    assert decoder._decode(b"data: more\n\n", None) == ()
