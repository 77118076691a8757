"""A frame that no format can decode is a delta of kind `other`, and the recording goes on."""

from __future__ import annotations

from typing import Any

from recorder.core.json import loads
from recorder.wire.decoder import MAX_OTHER, Decoder
from recorder.wire.deltas import OTHER, TEXT, Delta
from recorder.wire.reply import Reply


class Broken(Decoder):
    """Fails after the first delta of an event."""

    def __init__(self) -> None:
        self.reply = Reply()

    def _decode_other(self, frame: bytes, deltas: list[Delta]) -> None:
        raise ValueError("not decodable")

    def _decode_event(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        deltas.append(Delta("kept"))
        raise KeyError("missing")


def test_what_was_decoded_before_an_error_is_kept() -> None:
    """The delta behind it holds the data of the event."""
    decoder = Broken()
    first, second = decoder._decode(b"event: x\ndata: some data\n\n", {})
    assert (first.text, first.kind) == ("kept", TEXT)
    assert (loads(second.text), second.kind) == ({"undecodable": "some data"}, OTHER)
    assert decoder.reply.text() == "kept"


def test_a_long_frame_is_cut() -> None:
    """The recorded frame holds all of it."""
    [delta] = Broken()._decode(b"\xff" * (MAX_OTHER + 10), None)
    assert len(loads(delta.text)["undecodable"]) == MAX_OTHER


def test_nothing_is_decoded_after_the_terminator() -> None:
    """Whatever a server sends behind its end is only a frame."""
    decoder = Broken()
    decoder.reply.terminated = True
    assert decoder._decode(b"data: more\n\n", None) == ()
