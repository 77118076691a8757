"""Chat models with LangChain's names, arguments and shapes, over the providers' own SDKs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recorder.models.anthropic import ChatAnthropic
    from recorder.models.base import BaseChatModel
    from recorder.models.openai import ChatOpenAI

_HOMES = {
    "BaseChatModel": "recorder.models.base",
    "ChatAnthropic": "recorder.models.anthropic",
    "ChatOpenAI": "recorder.models.openai",
}

__all__ = ["BaseChatModel", "ChatAnthropic", "ChatOpenAI"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'recorder.models' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
