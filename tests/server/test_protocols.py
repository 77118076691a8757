"""Each protocol writes the same pieces as a function of tokens, gaps and the end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from recorder.replay.playback import GapStep, TokensStep
from recorder.server.cursor import PlayedStep
from recorder.server.piece import Piece
from recorder.server.protocols import sse, websocket
from tests.server.serving import Events, parse

RUN = "0197a2c4-0000-7000-8000-000000000001"
ITEMS = st.tuples(st.integers(0, 10**9), st.text(), st.sampled_from(["text", "reasoning"]), st.just("0"))


@st.composite
def steps(draw: st.DrawFn) -> Sequence[PlayedStep]:
    """Draw consecutive tokens and gaps."""
    found: list[PlayedStep] = []
    seq = draw(st.integers(0, 1000))
    for items in draw(st.lists(st.lists(ITEMS, max_size=4), min_size=1, max_size=5)):
        if items:
            found.append(TokensStep(seq, [list(item) for item in items]))
            seq += len(items)
        else:
            found.append(GapStep(0, seq, 3, "lost\n\ndata: {}"))
            seq += 3
    return found


def over_http(piece: Piece) -> Events:
    """Read a piece as a client of server-sent events does."""
    events = Events()
    text: bytes = piece.encoded(sse.encode)
    for block in text.decode().split("\n\n"):
        if (found := parse(block)) is not None:
            events.add(*found)
    return events


def over_websocket(piece: Piece) -> Events:
    """Read a piece as a client of the WebSocket does."""
    events = Events()
    events.add_message(piece.encoded(websocket.encode))
    return events


def start_of(played: Sequence[PlayedStep]) -> int:
    """Return the number of the first token."""
    first: Any = played[0]
    return int(first.seq)


@given(steps())
def test_both_protocols_give_the_same_events(played: Sequence[PlayedStep]) -> None:
    """No text ends an event, and both end with the same cursor."""
    piece = Piece(RUN, start_of(played), played)
    assert over_http(piece) == over_websocket(piece)
    assert over_http(piece).texts == [
        item[1] for step in played if isinstance(step, TokensStep) for item in step.items
    ]
    assert over_http(piece).id == f"{RUN}:{piece.next}"


@given(steps(), st.integers(0, 1100))
def test_the_rest_of_a_piece_is_the_end_of_its_events(played: Sequence[PlayedStep], place: int) -> None:
    """A reader that joins at any token gets exactly the events behind it."""
    piece = Piece(RUN, start_of(played), played)
    whole, rest = over_http(piece), over_http(piece.rest_from(place))
    assert rest.seqs == [seq for seq in whole.seqs if seq >= place]
    assert rest.texts == whole.texts[len(whole.texts) - len(rest.texts) :]


def test_a_piece_is_encoded_once() -> None:
    """Further readers get the same object."""
    piece = Piece(RUN, 0, [TokensStep(0, [[5, "a"]])])
    assert piece.encoded(sse.encode) is piece.encoded(sse.encode)
    assert json.loads(piece.encoded(websocket.encode))["events"][0]["text"] == "a"
