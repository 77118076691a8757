"""A copy of a LangChain model whose HTTP clients answer from a recording.

So the model's own code reads the recorded bytes, and its messages are the same as those of the recording. It works for
models over the SDKs of OpenAI and Anthropic.
"""

from __future__ import annotations

from typing import Any

from recorder.replay import Replay
from recorder.replay.pace import Options


def wire_copy(like: Any, replay: Replay, options: Options) -> Any:
    """The copy; None for a model over another SDK, or without one."""
    speed, max_gap = options.speed, options.max_gap
    sync = replay.http_client(speed=speed, max_gap=max_gap)
    later = replay.http_async_client(speed=speed, max_gap=max_gap)
    if _has(like, "root_client", "root_async_client"):
        return _of_openai(like, sync, later)
    return _of_anthropic(like, sync, later) if _has(like, "_client", "_async_client") else None


def _has(like: Any, *names: str) -> bool:
    """Whether the model has clients of an SDK under these names."""
    return all(hasattr(getattr(like, name, None), "with_options") for name in names)


def _of_openai(like: Any, sync: Any, later: Any) -> Any:
    found = like.model_copy()
    found.root_client = _over(like.root_client, sync)
    found.root_async_client = _over(like.root_async_client, later)
    found.client = found.root_client.chat.completions
    found.async_client = found.root_async_client.chat.completions
    return found


def _of_anthropic(like: Any, sync: Any, later: Any) -> Any:
    found = like.model_copy()
    # They are cached properties, whose values are in the dict of the instance.
    found.__dict__ |= {
        "_client": _over(like._client, sync),
        "_async_client": _over(like._async_client, later),
    }
    return found


def _over(client: Any, http_client: Any) -> Any:
    """The SDK's client with another HTTP client. A recorded error is not asked for again."""
    return client.with_options(http_client=http_client, max_retries=0)
