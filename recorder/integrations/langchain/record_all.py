"""Records every run of LangChain and LangGraph in the process, without a change of the program."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from recorder.errors import ConfigError
from recorder.integrations.langchain.handler import ChatHistoryCallback


def record_all(history: Any) -> None:
    """Give this handler to every run of LangChain and LangGraph that begins from now on, in the whole process.

    `history` is a `ChatHistoryCallback` of this package. Closing it ends the recording. Calling it again with the same
    handler changes nothing. Raises `ConfigError` for anything else.
    """
    if not isinstance(history, ChatHistoryCallback):
        raise ConfigError(
            f"record_all got an object of type {type(history).__name__}; pass a ChatHistoryCallback of "
            "recorder.integrations.langchain"
        )
    if history.records_all:
        return
    from langchain_core.tracers.context import register_configure_hook

    history.records_all = True
    register_configure_hook(ContextVar(f"recorder {id(history)}", default=history), inheritable=True)
