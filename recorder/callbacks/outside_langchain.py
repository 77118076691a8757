"""A handler that LangChain cannot use tells so, instead of doing nothing there."""

from __future__ import annotations

import sys
from typing import Any

from recorder.callbacks.handlers import BaseCallbackHandler
from recorder.errors import ConfigError


class _Refusal:
    """In place of a flag that LangChain's callback manager reads before it calls a handler."""

    def __bool__(self) -> bool:
        raise ConfigError(
            "recorder.ChatHistoryCallback records recorder's own models; for LangChain's and LangGraph's use "
            "recorder.integrations.langchain.ChatHistoryCallback, which has the same arguments"
        )


class _True:
    """True for LangChain, which tests it. Recorder's own models ask whether it `is True`, and log errors."""

    def __bool__(self) -> bool:
        return True


class OutsideLangChain(BaseCallbackHandler):
    """A handler of recorder's models. Given to LangChain, the first call raises one clear error."""

    raise_error: Any = _True()
    ignore_llm: Any = _Refusal()
    ignore_chat_model = ignore_chain = ignore_agent = ignore_llm
    ignore_retriever = ignore_retry = ignore_custom_event = ignore_llm

    def __repr__(self) -> str:
        """For the error of LangChain's constructors, which show the first 50 characters of what they refuse."""
        is_refused = "langchain_core" in sys.modules and self.raise_error is OutsideLangChain.raise_error
        return "<LangChain needs recorder.integrations.langchain>" if is_refused else super().__repr__()
