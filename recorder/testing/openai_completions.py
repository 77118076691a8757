"""Legacy completions in the form of OpenAI's API: streamed events, and responses that are not streamed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import accumulate, zip_longest
from typing import Any

from recorder.testing.json_bodies import compact, indented
from recorder.testing.openai_chat import DONE, Pieces, chat_id, each_choice
from recorder.testing.song import pieces_of

#: The name of a model in the API's responses, by its short name in requests.
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
    """The events of one streamed completion. Each is the bytes of one event with the blank line at its end.

    The order is: the text in pieces, an event with the finish reason for each choice, the usage if `usage` is true,
    and `[DONE]`. `pieces` is one list for all `n` choices, or a list of `n` lists. `logprobs` is the number of likely
    tokens to list for each piece. `created` is in Unix seconds. The same arguments with the same `id` and `created`
    give the same bytes. Raises `ValueError` when the number of lists is not `n`.
    """
    head = _head(model, id, created)
    texts = each_choice(pieces, n)
    events = [*_in_turn(texts, logprobs), *(_choice(index, "", finish_reason) for index in range(len(texts)))]
    frames = [_frame(head, [choice], usage) for choice in events]
    if usage:
        frames.append(_frame(head, [], usage, _usage(prompt_tokens, texts)))
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
    """The answer of `openai_completion_frames`, not streamed: one `text_completion`, indented as the API sends it."""
    texts = each_choice(pieces, n)
    choices = [
        _choice(index, "".join(each), finish_reason, _logprobs(each, 0, logprobs))
        for index, each in enumerate(texts)
    ]
    return indented({**_head(model, id, created), "choices": choices, "usage": _usage(prompt_tokens, texts)})


def _head(model: str, id: str, created: int | None) -> dict[str, Any]:
    """The fields that every event has."""
    return {
        "id": id or chat_id().replace("chatcmpl-", "cmpl-"),
        "object": "text_completion",
        "created": int(time.time()) if created is None else created,
        "model": SNAPSHOTS.get(model, model),
    }


def _in_turn(texts: list[Sequence[str]], logprobs: int | None) -> Iterator[dict[str, Any]]:
    """The pieces of all choices; the choices take turns."""
    starts = [[0, *accumulate(map(len, each))] for each in texts]
    for turn, pieces in enumerate(zip_longest(*texts)):
        for index, piece in enumerate(pieces):
            if piece is not None:
                yield _choice(index, piece, None, _logprobs([piece], starts[index][turn], logprobs))


def _choice(
    index: int, text: str, finish_reason: str | None, logprobs: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {"text": text, "index": index, "logprobs": logprobs, "finish_reason": finish_reason}


def _logprobs(pieces: Sequence[str], start: int, likeliest: int | None) -> dict[str, Any] | None:
    """Invented probabilities; the same text has the same ones."""
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
    """One event; the API sends `model` after `choices`. With `usage` it has that field, null if `counts` is None."""
    event = {key: value for key, value in head.items() if key != "model"}
    event |= {"choices": choices, "model": head["model"]}
    if usage:
        event["usage"] = counts
    return b"data: " + compact(event) + b"\n\n"


def _usage(prompt_tokens: int, texts: list[Sequence[str]]) -> dict[str, Any]:
    output_tokens = sum(map(len, texts))
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": prompt_tokens + output_tokens,
    }


def prompts_of(request: dict[str, Any]) -> list[Any]:
    """The prompts of a request; each is a text or a list of token numbers."""
    prompt = request.get("prompt", "")
    return (
        prompt
        if isinstance(prompt, list) and not all(isinstance(token, int) for token in prompt)
        else [prompt]
    )


def prompt_tokens(prompts: list[Any]) -> int:
    """An estimate of the tokens of prompts."""
    return sum(len(pieces_of(prompt) if isinstance(prompt, str) else prompt) for prompt in prompts)
