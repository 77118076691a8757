"""For tests of your own application: a provider on loopback, scripted answers, a fake clock.

    with LoopbackProvider(Answer.error(429)) as provider:
        chat = ChatOpenAI(base_url=provider.base_url, api_key="any", max_retries=0)

`python -m recorder.testing --port 8080` serves the same provider from a process of its own.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# At once: the function has its module's name.
from recorder.testing.song import pieces_of, song, song_pieces

if TYPE_CHECKING:
    from recorder.testing.answers import (
        Answer,
        Script,
        scripted,
    )
    from recorder.testing.anthropic_messages import (
        anthropic_error_frame,
        anthropic_messages_body,
        anthropic_messages_frames,
    )
    from recorder.testing.azure import azure_chat_body, azure_chat_frames
    from recorder.testing.fakes import FakeClock
    from recorder.testing.memory_store import MemoryStore
    from recorder.testing.openai_chat import (
        openai_chat_body,
        openai_chat_frames,
        openai_error_frame,
    )
    from recorder.testing.openai_completions import openai_completion_body, openai_completion_frames
    from recorder.testing.provider import (
        LoopbackProvider,
        answer_anthropic_messages,
        answer_azure_chat,
        answer_openai_chat,
        answer_openai_completion,
    )

_HOMES = {
    "Answer": "recorder.testing.answers",
    "FakeClock": "recorder.testing.fakes",
    "LoopbackProvider": "recorder.testing.provider",
    "MemoryStore": "recorder.testing.memory_store",
    "Script": "recorder.testing.answers",
    "answer_anthropic_messages": "recorder.testing.provider",
    "answer_azure_chat": "recorder.testing.provider",
    "answer_openai_chat": "recorder.testing.provider",
    "answer_openai_completion": "recorder.testing.provider",
    "anthropic_error_frame": "recorder.testing.anthropic_messages",
    "anthropic_messages_body": "recorder.testing.anthropic_messages",
    "anthropic_messages_frames": "recorder.testing.anthropic_messages",
    "azure_chat_body": "recorder.testing.azure",
    "azure_chat_frames": "recorder.testing.azure",
    "openai_chat_body": "recorder.testing.openai_chat",
    "openai_chat_frames": "recorder.testing.openai_chat",
    "openai_completion_body": "recorder.testing.openai_completions",
    "openai_completion_frames": "recorder.testing.openai_completions",
    "openai_error_frame": "recorder.testing.openai_chat",
    "scripted": "recorder.testing.answers",
}

__all__ = [
    "Answer",
    "FakeClock",
    "LoopbackProvider",
    "MemoryStore",
    "Script",
    "answer_anthropic_messages",
    "answer_azure_chat",
    "answer_openai_chat",
    "answer_openai_completion",
    "anthropic_error_frame",
    "anthropic_messages_body",
    "anthropic_messages_frames",
    "azure_chat_body",
    "azure_chat_frames",
    "openai_chat_body",
    "openai_chat_frames",
    "openai_completion_body",
    "openai_completion_frames",
    "openai_error_frame",
    "pieces_of",
    "scripted",
    "song",
    "song_pieces",
]


# On first use: pytest imports this package wherever it is installed, for the plugin.
def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'recorder.testing' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
