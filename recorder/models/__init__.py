"""Models with LangChain's names, arguments and shapes, over the providers' own SDKs, and a base for your own."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recorder.models.anthropic import ChatAnthropic
    from recorder.models.azure import AzureChatOpenAI
    from recorder.models.base import BaseChatModel
    from recorder.models.completions import OpenAI
    from recorder.models.openai import ChatOpenAI
    from recorder.models.simple_model import SimpleChatModel

_HOMES = {
    "AzureChatOpenAI": "recorder.models.azure",
    "BaseChatModel": "recorder.models.base",
    "ChatAnthropic": "recorder.models.anthropic",
    "ChatOpenAI": "recorder.models.openai",
    "OpenAI": "recorder.models.completions",
    "SimpleChatModel": "recorder.models.simple_model",
}

__all__ = ["AzureChatOpenAI", "BaseChatModel", "ChatAnthropic", "ChatOpenAI", "OpenAI", "SimpleChatModel"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'recorder.models' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
