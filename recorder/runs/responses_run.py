"""One run of a chat model over OpenAI's Responses format."""

from __future__ import annotations

from recorder.runs.chat_run import ChatRun
from recorder.runs.continued_responses import remember_root


class ResponsesRun(ChatRun):
    """A run whose conversation is found again by the id of the response."""

    def finish(self) -> None:
        """Report the reply and the end, after the id of the response is known to later requests."""
        self._remember()
        super().finish()

    def fail(self, error: BaseException) -> None:
        """Report the error. A later request may name the response nevertheless."""
        self._remember()
        super().fail(error)

    def _remember(self) -> None:
        root = self.request.conversation_of
        if root is not None and self.reply.response_id is not None:
            remember_root(self.reply.response_id, root)
