"""Legacy completions as OpenAI's API writes them: the events of a stream, and whole answers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import accumulate, zip_longest
from typing import Any

from recorder.testing.openai_chat import DONE, Pieces, chat_id, compact, each_choice, indented
from recorder.testing.song import pieces_of

#: What the API calls a model that was asked for by its short name.
SNAPSHOTS = {"gpt-3.5-turbo-instruct": "gpt-3.5-turbo-instruct:20230824-v2"}


def openai_completion_frames(
    pieces: Pieces,
    *,
    model: str = "gpt-3.5-turbo-instruct",
    id: str = "",
    usage: bool = True,
    logprobs: int | None = None,
    finish_reason: str = "stop",
    n: int = 1,
    created: int | None = None,
    prompt_tokens: int = 5,
) -> list[bytes]:
    """The events of one streamed completion, each as its bytes with the blank line.

    The text in pieces, an event with the finish reason for each choice, the usage if asked for, and `[DONE]`.
    `pieces` is one list for all `n` choices, or a list of lists, one for each. `logprobs` says how many of the
    likeliest tokens come beside each. The same arguments with the same id and `created` give the same bytes.
    """
    head = _head(model, id, created)
    said = each_choice(pieces, n)
    events = [*_in_turn(said, logprobs), *(_choice(index, "", finish_reason) for index in range(len(said)))]
    frames = [_frame(head, [choice], usage) for choice in events]
    if usage:
        frames.append(_frame(head, [], usage, _usage(prompt_tokens, said)))
    return [*frames, DONE]


def openai_completion_body(
    pieces: Pieces,
    *,
    model: str = "gpt-3.5-turbo-instruct",
    id: str = "",
    logprobs: int | None = None,
    finish_reason: str = "stop",
    n: int = 1,
    created: int | None = None,
    prompt_tokens: int = 5,
) -> bytes:
    """The same answer not streamed: one `text_completion`, indented as the API sends it."""
    said = each_choice(pieces, n)
    choices = [
        _choice(index, "".join(each), finish_reason, _logprobs(each, 0, logprobs))
        for index, each in enumerate(said)
    ]
    return indented({**_head(model, id, created), "choices": choices, "usage": _usage(prompt_tokens, said)})


def _head(model: str, id: str, created: int | None) -> dict[str, Any]:
    """The fields of every event."""
    return {
        "id": id or chat_id().replace("chatcmpl-", "cmpl-"),
        "object": "text_completion",
        "created": int(time.time()) if created is None else created,
        "model": SNAPSHOTS.get(model, model),
    }


def _in_turn(said: list[Sequence[str]], logprobs: int | None) -> Iterator[dict[str, Any]]:
    """The pieces of all choices by turns."""
    starts = [[0, *accumulate(map(len, each))] for each in said]
    for turn, pieces in enumerate(zip_longest(*said)):
        for index, piece in enumerate(pieces):
            if piece is not None:
                yield _choice(index, piece, None, _logprobs([piece], starts[index][turn], logprobs))


def _choice(
    index: int, text: str, finish_reason: str | None, logprobs: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {"text": text, "index": index, "logprobs": logprobs, "finish_reason": finish_reason}


def _logprobs(pieces: Sequence[str], start: int, likeliest: int | None) -> dict[str, Any] | None:
    """Made up, and the same for the same text."""
    if likeliest is None:
        return None
    likely = [-(len(piece) % 7) / 8 for piece in pieces]
    return {
        "tokens": list(pieces),
        "token_logprobs": likely,
        "top_logprobs": [{piece: one} for piece, one in zip(pieces, likely, strict=True)]
        if likeliest
        else None,
        "text_offset": [start + before for before in [0, *accumulate(map(len, pieces))][:-1]],
    }


def _frame(
    head: dict[str, Any], choices: list[dict[str, Any]], usage: bool, counts: dict[str, Any] | None = None
) -> bytes:
    """One event, its model after the choices; where the usage was asked for, the others have none."""
    event = {key: value for key, value in head.items() if key != "model"}
    event |= {"choices": choices, "model": head["model"]}
    if usage:
        event["usage"] = counts
    return b"data: " + compact(event) + b"\n\n"


def _usage(prompt_tokens: int, said: list[Sequence[str]]) -> dict[str, Any]:
    written = sum(map(len, said))
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": written,
        "total_tokens": prompt_tokens + written,
    }


def prompts_of(request: dict[str, Any]) -> list[Any]:
    """The prompts of a request: one or several texts or lists of token numbers."""
    prompt = request.get("prompt", "")
    return (
        prompt
        if isinstance(prompt, list) and not all(isinstance(token, int) for token in prompt)
        else [prompt]
    )


def prompt_tokens(prompts: list[Any]) -> int:
    """About what they count."""
    return sum(len(pieces_of(prompt) if isinstance(prompt, str) else prompt) for prompt in prompts)
