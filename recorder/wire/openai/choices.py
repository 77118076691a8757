"""Which answer a choice belongs to: some proxies number the blocks of one answer as if they were choices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recorder.wire.deltas import TEXT
from recorder.wire.reply import MAX_CHOICES, Reply


def choices_asked(body: Mapping[str, Any] | None) -> int | None:
    """How many answers a request asks for; None where the request is not known."""
    if body is None:
        return None
    more = body.get("extra_body")
    count = (more.get("n") if isinstance(more, Mapping) else None) or body.get("n")
    return count if isinstance(count, int) and count > 1 else 1


class Choices:
    """The numbers of the choices of one response."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        #: How many were asked for; None where nobody knows.
        self.asked: int | None = None
        self._places: dict[int, int] = {}

    def number(self, choice: Mapping[str, Any]) -> int:
        """The number of a choice. Where one answer was asked for, it is the first one's unless it is another answer."""
        index = choice.get("index")
        number = index if type(index) is int else int(index or 0)
        if number <= 0:
            return 0
        if self.asked != 1:
            return number
        found = self._places.get(number)
        return found if found is not None else self._placed(number, choice)

    def _placed(self, number: int, choice: Mapping[str, Any]) -> int:
        said = choice.get("delta") or choice.get("message") or choice
        if not any(value for key, value in said.items() if key not in ("role", "index", "finish_reason")):
            return 0  # nothing yet that tells what it is
        text = said.get("content") or said.get("text")
        # An answer has text: what has some while the first one has, too, is another answer.
        place = number if text and self._reply.pieces("0", TEXT) else 0
        if len(self._places) < MAX_CHOICES:
            self._places[number] = place
        return place
