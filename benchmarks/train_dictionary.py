"""Trains the compression dictionary of a wire format from made-up streams in the dialects of many providers.

    python -m benchmarks.train_dictionary recorder/storage/dictionaries/openai.chat.1.zdict
    python -m benchmarks.train_dictionary recorder/storage/dictionaries/openai.completions.1.zdict
    python -m benchmarks.train_dictionary recorder/storage/dictionaries/anthropic.messages.1.zdict

A dictionary that was released never changes, for rows name it: train a new one under the next number instead.
The streams are invented here, so that nobody's conversation is in the file; the seed makes it the same each time.
"""

from __future__ import annotations

import json
import random
import string
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zstandard

SIZE = 8 * 1024
STREAMS = 3_000
SEED = 20261121

_TEXT = """
    the of and to in a is that for it as with on be by this are or an from at which you can not have
    was but they we one all will use more time has if would so what up out about who get when make
    like no just him know take people into year your good some could them see other than then now
    look only come its over think also data code file function value return class list string error
    example first following number result user
"""
WORDS = ["", *_TEXT.split()]
MODELS = (
    "gpt-4o-2024-08-06", "gpt-4o-mini-2024-07-18", "gpt-4.1-2025-04-14", "gpt-5-2025-08-07", "o4-mini-2025-04-16",
    "deepseek-chat", "deepseek-reasoner", "llama-3.3-70b-versatile", "openai/gpt-oss-120b", "anthropic/claude-sonnet-4",
    "mistral-large-latest", "glm-4.6", "meta-llama/Llama-3.3-70B-Instruct", "qwen3-max",
)  # fmt: skip


def main(target: str) -> None:
    """Train and write the dictionary of the wire format that the file is named after."""
    chance = random.Random(SEED)
    made = MADE[Path(target).name.rsplit(".", 2)[0]]
    samples = [b"".join(made(chance)) for _ in range(STREAMS)]
    trained = zstandard.train_dictionary(SIZE, samples, k=256, d=8)
    Path(target).write_bytes(trained.as_bytes())
    print(
        f"{target}: {len(trained.as_bytes())} bytes from {sum(map(len, samples)):,} bytes of frames, seed {SEED}"
    )


def stream(chance: random.Random) -> Iterator[bytes]:
    """A few consecutive frames, as one row holds them."""
    head, padded, delta_key, extras = dialect(chance)
    kind = chance.choice(("text", "text", "text", "tool", "reasoning"))
    if chance.random() < 0.3:
        role = {"role": "assistant", "content": "", **chance.choice(({}, {"refusal": None}))}
        yield frame(head, role, extras, None, chance, padded)
    if kind == "tool" and chance.random() < 0.5:
        function = {"name": chance.choice(("get_weather", "search", "final_result")), "arguments": ""}
        call = {"index": 0, "id": "call_" + name(chance, 24), "type": "function", "function": function}
        yield frame(head, {"tool_calls": [call]}, extras, None, chance, padded)
    for _ in range(chance.randint(3, 8)):
        yield frame(head, delta(kind, delta_key, chance), extras, None, chance, padded)
    if chance.random() < 0.2:
        yield frame(head, {}, extras, chance.choice(("stop", "tool_calls", "length")), chance, padded)
        yield usage(head, chance, padded)
        yield b"data: [DONE]\n\n"


def dialect(chance: random.Random) -> tuple[dict[str, Any], bool, str, dict[str, Any]]:
    """The head of the events, whether they are padded, the key of reasoning, and what stands beside a delta."""
    made = {
        "id": "chatcmpl-" + name(chance, 29),
        "object": "chat.completion.chunk",
        "created": chance.randint(1_740_000_000, 1_800_000_000),
        "model": chance.choice(MODELS),
    }
    kind = chance.choice(("openai", "openai", "openai", "openrouter", "groq", "deepseek", "plain"))
    if kind == "openai":
        made |= {
            "service_tier": "default",
            "system_fingerprint": "fp_" + name(chance, 10, string.hexdigits[:16]),
        }
        return made, chance.random() < 0.7, "reasoning_content", {"logprobs": None}
    if kind == "openrouter":
        made = {"id": f"gen-{made['created']}-{name(chance, 20)}", "provider": "OpenAI", **made}
        return made, False, "reasoning", {"native_finish_reason": None, "logprobs": None}
    if kind in ("groq", "deepseek"):
        made |= {"system_fingerprint": "fp_" + name(chance, 10, string.hexdigits[:16])}
        return made, False, "reasoning" if kind == "groq" else "reasoning_content", {"logprobs": None}
    return made, False, "reasoning_content", {}


def delta(kind: str, reasoning_key: str, chance: random.Random) -> dict[str, Any]:
    """One piece of an answer."""
    piece = chance.choice(("", " ")) + chance.choice(WORDS) + chance.choice(("", "", "", ",", ".", "\n"))
    if kind == "tool":
        return {
            "tool_calls": [{"index": 0, "function": {"arguments": chance.choice(('{"', '":"', '"}', piece))}}]
        }
    if kind == "reasoning":
        return {"content": None, reasoning_key: piece} if chance.random() < 0.5 else {reasoning_key: piece}
    return {"content": piece}


def frame(
    head: dict[str, Any], piece: dict[str, Any], extras: dict[str, Any], finish: str | None, chance: random.Random,
    padded: bool,
) -> bytes:  # fmt: skip
    """One event in the provider's spelling."""
    choice = {"index": 0, "delta": piece, **extras, "finish_reason": finish}
    event = {**head, "choices": [choice]}
    if padded:
        event |= {"usage": None, "obfuscation": name(chance, chance.randint(1, 14))}
    return spelled(event)


def usage(head: dict[str, Any], chance: random.Random, padded: bool) -> bytes:
    """The event that counts the tokens."""
    prompt, answer = chance.randint(5, 5_000), chance.randint(1, 2_000)
    counts = {
        "prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
        },
    }  # fmt: skip
    return spelled({**head, "choices": [], "usage": counts})


def completion_stream(chance: random.Random) -> Iterator[bytes]:
    """A few consecutive frames of legacy completions, in the spelling of one of those who serve them."""
    head = {
        "id": chance.choice(("cmpl-", "cmpl-", "gen-")) + name(chance, chance.choice((29, 32))),
        "object": "text_completion",
        "created": chance.randint(1_740_000_000, 1_800_000_000),
    }
    model = chance.choice(("gpt-3.5-turbo-instruct:20230824-v2", "davinci-002", "babbage-002", *MODELS))
    kind = chance.choice(("openai", "openai", "vllm", "ollama", "plain"))
    for _ in range(chance.randint(3, 8)):
        piece = chance.choice(("", " ")) + chance.choice(WORDS) + chance.choice(("", "", "", ",", ".", "\n"))
        yield completion_frame(head, model, kind, piece, None, chance)
    if chance.random() < 0.2:
        yield completion_frame(head, model, kind, "", chance.choice(("stop", "length")), chance)
        counts = {"prompt_tokens": chance.randint(5, 5_000), "completion_tokens": chance.randint(1, 2_000)}
        yield spelled(
            {**head, "choices": [], "model": model, "usage": {**counts, "total_tokens": sum(counts.values())}}
        )
        yield b"data: [DONE]\n\n"


def completion_frame(
    head: dict[str, Any], model: str, kind: str, piece: str, finish: str | None, chance: random.Random
) -> bytes:
    """One event: OpenAI writes the choices before the model, others after it."""
    shown = None
    if kind == "openai" and chance.random() < 0.1:
        likely = -round(chance.random() * 5, 6)
        shown = {
            "tokens": [piece], "token_logprobs": [likely], "top_logprobs": [{piece: likely}],
            "text_offset": [chance.randint(0, 2_000)],
        }  # fmt: skip
    if kind == "openai":
        choice = {"text": piece, "index": 0, "logprobs": shown, "finish_reason": finish}
        return spelled({**head, "choices": [choice], "model": model, "usage": None})
    choice = {"index": 0, "text": piece, "logprobs": None, "finish_reason": finish}
    if kind == "vllm":
        return spelled({**head, "model": model, "choices": [{**choice, "stop_reason": None}], "usage": None})
    if kind == "ollama":
        choice = {"text": piece, "index": 0, "finish_reason": finish}
        return spelled({**head, "model": model, "system_fingerprint": "fp_ollama", "choices": [choice]})
    return spelled({**head, "model": model, "choices": [choice]})


def spelled(event: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode() + b"\n\n"


# -- Anthropic's messages ------------------------------------------------------------------------------------------

CLAUDES = (
    "claude-haiku-4-5-20251001", "claude-sonnet-4-5-20250929", "claude-opus-4-5-20251101", "claude-sonnet-4-6",
    "claude-opus-4-8", "claude-sonnet-5", "claude-opus-5", "claude-opus-5-5", "claude-haiku-5-5",
)  # fmt: skip
BASE64 = string.ascii_letters + string.digits + "+/"


def anthropic_stream(chance: random.Random) -> Iterator[bytes]:
    """A few consecutive frames, as one row holds them."""
    index = chance.choice((0, 0, 0, 1, 1, 2, 3, 4))
    kind = chance.choice(("text", "text", "text", "text", "thinking", "tool", "server", "cited"))
    if chance.random() < 0.3:
        yield message_start(chance)
    if chance.random() < 0.4:
        yield named("content_block_start", chance, index=index, content_block=block_start(kind, chance))
        if index == 0:
            yield b'event: ping\ndata: {"type": "ping"}\n\n'
    for _ in range(chance.randint(3, 8)):
        yield named("content_block_delta", chance, index=index, delta=block_delta(kind, chance))
    if chance.random() < 0.4:
        yield named("content_block_stop", chance, index=index)
        if kind == "server" and chance.random() < 0.5:
            result = {
                "type": chance.choice(RESULTS),
                "tool_use_id": "srvtoolu_01" + name(chance, 22),
                "content": [],
            }
            yield named("content_block_start", chance, index=index + 1, content_block=result)
            yield named("content_block_stop", chance, index=index + 1)
    if chance.random() < 0.25:
        yield from message_end(chance)


RESULTS = (
    "web_search_tool_result",
    "bash_code_execution_tool_result",
    "mcp_tool_result",
    "tool_search_tool_result",
)


def message_start(chance: random.Random) -> bytes:
    """The event that begins an answer."""
    message = {
        "model": chance.choice(CLAUDES), "id": "msg_01" + name(chance, 22), "type": "message", "role": "assistant",
        "content": [], "stop_reason": None, "stop_sequence": None,
    }  # fmt: skip
    if chance.random() < 0.6:
        message["stop_details"] = None
    counts = {
        **input_counts(chance), "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": chance.randint(1, 9), "service_tier": "standard",
        "inference_geo": chance.choice(("not_available", "global")),
    }  # fmt: skip
    return named("message_start", chance, message={**message, "usage": counts})


def input_counts(chance: random.Random) -> dict[str, Any]:
    """The usage of the prompt."""
    cached = chance.choice((0, 0, chance.randint(1000, 50_000)))
    return {
        "input_tokens": chance.randint(5, 5_000), "cache_creation_input_tokens": 0, "cache_read_input_tokens": cached
    }  # fmt: skip


def message_end(chance: random.Random) -> Iterator[bytes]:
    """The two events that end it."""
    stopped: dict[str, Any] = {
        "stop_reason": chance.choice(("end_turn", "end_turn", "tool_use", "max_tokens")), "stop_sequence": None
    }  # fmt: skip
    if chance.random() < 0.6:
        stopped["stop_details"] = None
    counts: dict[str, Any] = {**input_counts(chance), "output_tokens": chance.randint(1, 2_000)}
    if chance.random() < 0.4:
        counts["output_tokens_details"] = {"thinking_tokens": chance.randint(0, 500)}
    if chance.random() < 0.4:
        counts["server_tool_use"] = {"web_search_requests": chance.randint(0, 5), "web_fetch_requests": 0}
    yield named("message_delta", chance, delta=stopped, usage=counts)
    yield named("message_stop", chance)


def block_start(kind: str, chance: random.Random) -> dict[str, Any]:
    """How a block begins."""
    if kind == "text":
        return {"type": "text", "text": ""}
    if kind == "cited":
        return {"citations": [], "type": "text", "text": ""}
    if kind == "thinking":
        return {"type": "thinking", "thinking": "", "signature": ""}
    if kind == "tool":
        call = {"type": "tool_use", "id": "toolu_01" + name(chance, 22), "name": "get_weather", "input": {}}
        return {**call, "caller": {"type": "direct"}} if chance.random() < 0.5 else call
    used = chance.choice(
        ("web_search", "bash_code_execution", "text_editor_code_execution", "tool_search_tool_bm25")
    )
    return {"type": "server_tool_use", "id": "srvtoolu_01" + name(chance, 22), "name": used, "input": {}}


def block_delta(kind: str, chance: random.Random) -> dict[str, Any]:
    """One piece of a block."""
    words = [chance.choice(("", " ")) + chance.choice(WORDS) for _ in range(chance.choice((1, 1, 2, 4)))]
    piece = "".join(words) + chance.choice(("", "", "", ",", ".", "\n\n"))
    if kind in ("tool", "server"):
        return {"type": "input_json_delta", "partial_json": chance.choice(('{"', '": "', '"}', "", piece))}
    if kind == "thinking":
        if chance.random() < 0.1:
            return {
                "type": "signature_delta",
                "signature": "E" + name(chance, chance.randint(200, 400), BASE64) + "==",
            }
        return {"type": "thinking_delta", "thinking": piece}
    if kind == "cited" and chance.random() < 0.3:
        cited = {
            "type": "web_search_result_location",
            "cited_text": piece,
            "url": "https://www." + name(chance, 8) + ".com/",
            "title": piece,
            "encrypted_index": "E" + name(chance, 80, BASE64) + "==",
        }
        return {"type": "citations_delta", "citation": cited}
    return {"type": "text_delta", "text": piece}


def named(type: str, chance: random.Random, **fields: Any) -> bytes:
    """One event with its name, and the blanks that pad it."""
    data = json.dumps({"type": type, **fields}, separators=(",", ":"), ensure_ascii=False)
    padded = data[:-1] + " " * chance.randrange(16) + "}" if chance.random() < 0.8 else data
    return f"event: {type}\ndata: {padded}\n\n".encode()


def name(chance: random.Random, length: int, letters: str = string.ascii_letters + string.digits) -> str:
    return "".join(chance.choices(letters, k=length))


#: wire format -> what makes its streams.
MADE = {
    "anthropic.messages": anthropic_stream,
    "openai.chat": stream,
    "openai.completions": completion_stream,
}


if __name__ == "__main__":
    main(sys.argv[1])
