"""One stream in all its forms: heard live, in SQL, as a message, played from its tokens, and from its frames."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.core.json import dumps
from recorder.messages import AIMessage, AIMessageChunk
from recorder.messages.merge import parse_args
from recorder.replay import Replay
from recorder.storage.reader import message_of
from recorder.testing import Answer, LoopbackProvider
from tests import anthropics, chatting
from tests.chatting import Road, runs
from tests.oracle import new_url, sql

#: Makes a model that asks a provider.
Make = Callable[..., Any]

openai, claude = chatting.chat, anthropics.chat


@dataclass(frozen=True, slots=True)
class Forms:
    """What one run was, wherever one may look."""

    #: The chunks as the application got them, and the error that ended them.
    chunks: list[Any]
    error: Exception | None
    #: The row of the run, (kind, idx, text) of its tokens, and the reply as it is stored; None without one.
    run: dict[str, Any]
    tokens: list[tuple[str, str, str]]
    message: AIMessage | None
    #: The recording again: chunk by chunk of its tokens, and by a model from its frames.
    replayed: list[Any]
    replayed_error: Exception | None
    modelled: list[Any]
    modelled_error: Exception | None

    @property
    def heard(self) -> AIMessageChunk:
        """The chunks added up."""
        return total(self.chunks)

    @property
    def end(self) -> tuple[Any, ...]:
        """Status, finish reason, input and output tokens in SQL."""
        return tuple(self.run[key] for key in ("status", "finish_reason", "input_tokens", "output_tokens"))

    def tokens_of(self, *kinds: str) -> list[tuple[str, str]]:
        """(idx, text) of the tokens of these kinds."""
        return [(idx, text) for kind, idx, text in self.tokens if kind in kinds]


def total(chunks: list[Any]) -> AIMessageChunk:
    """All chunks in one."""
    found: AIMessageChunk = chunks[0] + chunks[1:]
    return found


def forms_of(make: Make, body: bytes, road: Road, folder: Path, **options: Any) -> Forms:
    """Have a model answer once with these bytes, and look at everything that is left of it."""
    url = new_url(folder, f"{len(list(folder.iterdir()))}.db")
    with LoopbackProvider(Answer(frames=[body])) as provider:
        with ChatHistoryCallback(url, conversation_id="c") as history:
            model = make(provider, callbacks=[history], **options)
            chunks, error = _heard(road, model)
        again = make(provider, **options)
        with Replay(url) as replay:
            replayed = _until_error(replay.stream(speed=None))
            modelled = _heard(road, replay.model(like=again))
    (run,) = runs(url)
    tokens = sql(url, "SELECT kind, idx, text FROM tokens ORDER BY seq")
    replies = sql(url, "SELECT role, content, parts FROM messages WHERE role = 'assistant'")
    message: Any = message_of(*replies[0]) if replies else None
    return Forms(chunks, error, run, tokens, message, *replayed, *modelled)


def assert_alike(found: Forms) -> None:
    """All forms say the same; live, a replay of the tokens and one of the frames end the same way."""
    assert [repr(error) for error in (found.replayed_error, found.modelled_error)] == [repr(found.error)] * 2
    texts = "".join(text for _, text in found.tokens_of("text"))
    assert (
        message_fields(total(found.replayed))
        == message_fields(total(found.modelled))
        == message_fields(found.heard)
    )
    assert texts == found.heard.text
    if found.message is not None:
        assert message_fields(found.message) == {
            **message_fields(found.heard),
            "usage": found.message.usage_metadata,
        }


def message_fields(message: AIMessage) -> dict[str, Any]:
    """What a message, or a sum of chunks, says."""
    return {
        "text": message.text,
        "blocks": sorted(dumps(block, sort_keys=True) for block in blocks_of(message.content)),
        "calls": message.tool_calls,
        "invalid calls": message.invalid_tool_calls,
        "more": message.additional_kwargs,
        "usage": message.usage_metadata,
    }


def blocks_of(content: Any) -> list[dict[str, Any]]:
    """Content in one form: neighbouring texts as one, input as it is read, no numbers, nothing that is empty."""
    found: list[dict[str, Any]] = []
    for each in content if isinstance(content, list) else [content]:
        block = {"type": "text", "text": each} if isinstance(each, str) else dict(each)
        block.pop("index", None)
        if (pieces := block.pop("partial_json", None)) is not None:
            read = parse_args(pieces)
            block["input"] = read if read is not None else pieces
        if block.get("type") == "text":
            block.setdefault("text", "")
        if not block.get("signature", "S"):
            del block["signature"]
        plain = block.keys() == {"type", "text"} and block["type"] == "text"
        if plain and found and found[-1].keys() == {"type", "text"} and found[-1]["type"] == "text":
            found[-1] = {**found[-1], "text": found[-1]["text"] + block["text"]}
        elif not plain or block["text"]:
            found.append(block)
    return found


def _heard(road: Road, model: Any) -> tuple[list[Any], Exception | None]:
    """The chunks up to an error, and the error."""
    if road is not chatting.ON_LOOP:
        return _until_error(model.stream("Hi"))
    found: list[Any] = []

    async def main() -> None:
        async for chunk in model.astream("Hi"):
            found.append(chunk)

    try:
        asyncio.run(main())
    except Exception as error:
        return found, error
    return found, None


def _until_error(chunks: Iterable[Any]) -> tuple[list[Any], Exception | None]:
    found: list[Any] = []
    try:
        for chunk in chunks:
            found.append(chunk)  # those before an error count
    except Exception as error:
        return found, error
    return found, None
