"""What a chain with `verbose=True` prints: LangChain's lines."""

from __future__ import annotations

from typing import Any

from recorder.callbacks import BaseCallbackHandler
from recorder.callbacks.dispatch import buffer_string

_BOLD, _GREEN, _END = "\033[1m", "\033[32;1m\033[1;3m", "\033[0m"


class VerboseHandler(BaseCallbackHandler):
    """Prints the begin of a chain, the prompt that its model gets, and the end of the chain."""

    def on_chain_start(self, serialized: Any, inputs: Any, *, name: str = "", **kwargs: Any) -> None:
        """Print that the chain begins."""
        print(f"\n\n{_BOLD}> Entering new {name} chain...{_END}")

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        """Print the messages that are sent."""
        self.on_llm_start(serialized, [buffer_string(each) for each in messages])

    def on_llm_start(self, serialized: Any, prompts: Any, **kwargs: Any) -> None:
        """Print the text that is sent."""
        for prompt in prompts:
            print(f"Prompt after formatting:\n{_GREEN}{prompt}{_END}\n")

    def on_chain_end(self, outputs: Any, **kwargs: Any) -> None:
        """Print that the chain has ended."""
        print(f"\n{_BOLD}> Finished chain.{_END}")
