"""Maps choices to answers: some proxies number the blocks of one answer as if they were choices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recorder.wire.deltas import TEXT
from recorder.wire.reply import MAX_CHOICES, Reply


def requested_choices(body: Mapping[str, Any] | None) -> int | None:
    """The number of answers that a request asks for; None if the request is not known."""
    if body is None:
        return None
    extra = body.get("extra_body")
    count = (extra.get("n") if isinstance(extra, Mapping) else None) or body.get("n")
    return count if isinstance(count, int) and count > 1 else 1


class Choices:
    """The numbers of the choices of one response."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        #: How many answers the request asked for; None if the request is not known.
        self.requested_count: int | None = None
        #: Index of a choice -> the number of its answer.
        self._numbers: dict[int, int] = {}

    def number(self, choice: Mapping[str, Any]) -> int:
        """The number of the answer that a choice belongs to.

        If the request asked for one answer, this is 0 unless the choice clearly is another answer.
        """
        index = choice.get("index")
        number = index if type(index) is int else int(index or 0)
        if number <= 0:
            return 0
        if self.requested_count != 1:
            return number
        assigned = self._numbers.get(number)
        return assigned if assigned is not None else self._assign(number, choice)

    def _assign(self, number: int, choice: Mapping[str, Any]) -> int:
        content = choice.get("delta") or choice.get("message") or choice
        if not any(value for key, value in content.items() if key not in ("role", "index", "finish_reason")):
            return 0  # no content yet that decides
        text = content.get("content") or content.get("text")
        # Each answer has its own text: a choice with text, while the first answer has text too, is another answer.
        assigned = number if text and self._reply.pieces("0", TEXT) else 0
        if len(self._numbers) < MAX_CHOICES:
            self._numbers[number] = assigned
        return assigned
