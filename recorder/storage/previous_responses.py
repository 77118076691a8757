"""Where the responses stand that requests of OpenAI's Responses API name, instead of sending their messages again.

Such a request goes below the reply of the response that it names, also if another process recorded that one. A request
that reads a response again goes below the same prompt as the first one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from recorder.storage.batch import RunRows
from recorder.storage.rows import PreviousResponse, RunStart
from recorder.storage.stored_messages import KnownMessage, StoredMessage

#: The wire format whose runs are found by the id of their response; the index has no other runs.
WIRE = "openai.responses"


class PreviousResponses:
    """The messages below which the requests of a batch go, by the responses that they name."""

    def __init__(self) -> None:
        self._messages: dict[PreviousResponse, KnownMessage] = {}

    def add(self, message: StoredMessage) -> None:
        """Add a message that was looked up."""
        if message.response is not None:
            self._messages[message.response] = message

    def add_run(self, rows: RunRows, prompt: KnownMessage | None, reply: KnownMessage | None) -> None:
        """Add a run that ends in this batch, with its prompt and its reply; None where it has none."""
        if (id := response_id_in(rows)) is None:
            return
        for message, is_read_again in ((prompt, True), (reply or prompt, False)):
            if message is not None:
                self._messages[PreviousResponse(id, is_read_again)] = message

    def place_of(self, start: RunStart) -> KnownMessage | None:
        """The message below which a request goes; None if it names no response, or one that is not known."""
        return self._messages.get(start.previous) if start.previous is not None else None


def response_id_in(rows: RunRows) -> str | None:
    """The id of the response that ends in this part, as a later request names it; None without one."""
    return rows.seal.end.response_id if rows.seal is not None and rows.start.wire == WIRE else None


def response_keys(starts: Iterable[RunStart]) -> Sequence[Sequence[Any]]:
    """The keys of a lookup of the responses that these requests name."""
    named = {start.previous for start in starts if start.previous is not None}
    return [[response.id, None, int(response.is_read_again)] for response in sorted(named)]
