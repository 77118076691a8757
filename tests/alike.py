"""Collects all forms of one answer and compares them: live chunks, SQL rows, the stored message, replays."""

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
from recorder.storage.message_columns import message_of
from recorder.testing import Answer, LoopbackProvider
from tests import anthropics, chatting
from tests.chatting import CallStyle, runs
from tests.oracle import new_url, sql

#: Makes a model that sends its requests to a provider.
Make = Callable[..., Any]

openai, claude = chatting.chat, anthropics.chat


@dataclass(frozen=True, slots=True)
class Forms:
    """One run as the application, the database and each kind of replay show it."""

    #: The chunks that the application received, and the error that ended them.
    chunks: list[Any]
    error: Exception | None
    #: The row of the run, (kind, idx, text) of its tokens, and its stored reply or None.
    run: dict[str, Any]
    tokens: list[tuple[str, str, str]]
    message: AIMessage | None
    #: The chunks of a replay of the stored tokens, and those of a replayed model, which reads the stored frames.
    replayed: list[Any]
    replayed_error: Exception | None
    from_model: list[Any]
    from_model_error: Exception | None

    @property
    def live(self) -> AIMessageChunk:
        """Return the sum of the chunks that the application received."""
        return total(self.chunks)

    @property
    def end(self) -> tuple[Any, ...]:
        """Return status, finish reason, input tokens and output tokens as SQL returns them."""
        return tuple(self.run[key] for key in ("status", "finish_reason", "input_tokens", "output_tokens"))

    def tokens_of(self, *kinds: str) -> list[tuple[str, str]]:
        """Return (idx, text) of the stored tokens of these kinds."""
        return [(idx, text) for kind, idx, text in self.tokens if kind in kinds]


def total(chunks: list[Any]) -> AIMessageChunk:
    """Return the sum of all chunks."""
    found: AIMessageChunk = chunks[0] + chunks[1:]
    return found


def forms_of(make: Make, body: bytes, style: CallStyle, where: Path | str, **options: Any) -> Forms:
    """Let a model answer once with this body while it is recorded, and collect all forms of the answer.

    It is recorded into an empty database, or into a new file of a folder.
    """
    url = where if isinstance(where, str) else new_url(where, f"{len(list(where.iterdir()))}.db")
    with LoopbackProvider(Answer(frames=[body])) as provider:
        with ChatHistoryCallback(url, conversation_id="c") as history:
            model = make(provider, callbacks=[history], **options)
            chunks, error = _received(style, model)
        again = make(provider, **options)
        with Replay(url) as replay:
            replayed = _until_error(replay.stream(speed=None))
            from_model = _received(style, replay.model(like=again))
    (run,) = runs(url)
    tokens = sql(url, "SELECT kind, idx, text FROM tokens ORDER BY seq")
    replies = sql(url, "SELECT role, content, parts FROM messages WHERE role = 'assistant'")
    message: Any = message_of(*replies[0]) if replies else None
    return Forms(chunks, error, run, tokens, message, *replayed, *from_model)


def assert_alike(found: Forms) -> None:
    """Assert that all forms have the same content, and that both kinds of replay end as the live stream did."""
    assert [repr(error) for error in (found.replayed_error, found.from_model_error)] == [
        repr(found.error)
    ] * 2
    texts = "".join(text for _, text in found.tokens_of("text"))
    assert (
        message_fields(total(found.replayed))
        == message_fields(total(found.from_model))
        == message_fields(found.live)
    )
    assert texts == found.live.text
    if found.message is not None:
        assert message_fields(found.message) == {
            **message_fields(found.live),
            "usage": found.message.usage_metadata,
        }


def message_fields(message: AIMessage) -> dict[str, Any]:
    """Return the fields of a message, or of a sum of chunks, that the forms have in common."""
    return {
        "text": message.text,
        "blocks": sorted(dumps(block, sort_keys=True) for block in blocks_of(message.content)),
        "calls": message.tool_calls,
        "invalid calls": message.invalid_tool_calls,
        "more": message.additional_kwargs,
        "usage": message.usage_metadata,
    }


def blocks_of(content: Any) -> list[dict[str, Any]]:
    """Return content as blocks in one form: adjacent texts joined, tool input parsed, no indexes, no empty blocks."""
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


def _received(style: CallStyle, model: Any) -> tuple[list[Any], Exception | None]:
    """Return the chunks that a model yields before an error, and the error or None."""
    if style is not chatting.ON_LOOP:
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
            found.append(chunk)  # keeps the chunks before an error
    except Exception as error:
        return found, error
    return found, None
