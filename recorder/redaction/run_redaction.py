"""The redaction of what one run stores beside its tokens."""

from __future__ import annotations

from collections.abc import Sequence

from recorder.core.json import dumps
from recorder.redaction.message_redaction import Message, redacted_message
from recorder.redaction.redaction import MatchCounts, Redaction


class RunRedaction:
    """Redacts the texts and messages of one run, and counts what it replaces."""

    __slots__ = ("counts", "redaction")

    def __init__(self, redaction: Redaction) -> None:
        self.redaction = redaction
        #: What was replaced in the request, in the tokens and at the end. A reply repeats its tokens, and does not
        #: count.
        self.counts = MatchCounts(redaction)

    @property
    def counted(self) -> str:
        """The counts as JSON."""
        return dumps(dict(sorted(self.counts.items())))

    def text(self, text: str | None) -> str | None:
        """A text with its matches replaced."""
        return self.redaction.text(text, self.counts) if text else text

    def json(self, text: str | None) -> str | None:
        """JSON with its matches replaced."""
        return self.redaction.json(text, self.counts) if text else text

    def messages(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The messages of the request with their matches replaced."""
        return [redacted_message(each, self.redaction, self.counts) for each in messages]

    def replies(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The replies with their matches replaced."""
        counts = MatchCounts(self.redaction)
        return [redacted_message(each, self.redaction, counts) for each in messages]
