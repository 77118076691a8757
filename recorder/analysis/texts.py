"""What an analyzer gets: one message or one sentence, and where it stands."""

from __future__ import annotations

from typing import NamedTuple


class AnalyzedText(NamedTuple):
    """A message or one of its sentences."""

    text: str
    #: "user" or "assistant".
    role: str
    conversation_id: str
    #: The run that produced it; None for a message that no run produced, such as a user's.
    run_id: str | None
    #: None for a sentence of a reply: the id of the message is known when the run has ended.
    message_id: str | None
    is_sentence: bool = False
    #: Which reply of the run it belongs to, from 0.
    choice: int = 0
    #: The first character of a sentence in its message, and the one after its last. Counted in code points.
    start: int = 0
    end: int = 0

    @property
    def owner_id(self) -> str:
        """The `run_id` of its annotations: that of its run, else the id of its message."""
        return self.run_id or self.message_id or ""

    @property
    def place(self) -> str:
        """What distinguishes it from all other texts with the same owner."""
        if not self.is_sentence:
            return f"message {self.message_id}"
        return f"sentence {self.choice} {self.start}-{self.end}"

    @property
    def size(self) -> int:
        """About how many bytes it takes while it waits."""
        return 500 + 4 * len(self.text)
