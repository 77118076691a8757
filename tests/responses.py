"""Helpers for the tests of OpenAI's Responses format: they make events and decode them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

import httpx2
import openai
from hypothesis import strategies as st

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.messages import ChatGeneration, LLMResult
from recorder.wire.deltas import Delta
from recorder.wire.errors import error_text
from recorder.wire.openai.responses import OpenAIResponses
from recorder.wire.openai.responses_items import is_call
from recorder.wire.openai.responses_request import responses_messages
from recorder.wire.recorded_run import json_bytes
from recorder.wire.reply import Reply
from recorder.wire.request_hash import CONTENT_KEYS, input_hash
from tests.streams import indexes, odd, texts
from tests.wires import frames_of, translated

USAGE = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}


def sent(kind: str, **fields: Any) -> bytes:
    """Return one event of the type `response.<kind>`, under its name, as the API sends it."""
    name = f"response.{kind}"
    return f"event: {name}\ndata: ".encode() + json_bytes({"type": name, **fields}) + b"\n\n"


def created(**fields: Any) -> bytes:
    """Return the first event."""
    return sent(
        "created",
        response={"id": "resp_1", "model": "gpt-5", "status": "in_progress", "output": [], **fields},
    )


def ended(word: str = "completed", *output: Any, **fields: Any) -> bytes:
    """Return the last event, whose response has these items."""
    response = {
        "id": "resp_1",
        "model": "gpt-5",
        "status": word,
        "usage": USAGE,
        "output": list(output),
        **fields,
    }
    return sent(word, response=response)


def at(index: int = 0, content: int = 0) -> dict[str, Any]:
    """Return the place of a piece of text."""
    return {"output_index": index, "content_index": content, "item_id": f"item_{index}"}


def text(*pieces: str, index: int = 0, content: int = 0) -> bytes:
    """Return the events with pieces of text."""
    return b"".join(
        sent("output_text.delta", **at(index, content), delta=piece, logprobs=[]) for piece in pieces
    )


def message(*parts: Any, index: int = 0, **fields: Any) -> dict[str, Any]:
    """Return a message; a part that is a text becomes a part with this text."""
    content = [
        {"type": "output_text", "text": part, "annotations": []} if isinstance(part, str) else part
        for part in parts
    ]
    return {
        "type": "message",
        "id": f"item_{index}",
        "role": "assistant",
        "status": "completed",
        "content": content,
        **fields,
    }


def function_call(arguments: str = "", index: int = 0, **fields: Any) -> dict[str, Any]:
    """Return a call of the function `find`."""
    call = {"type": "function_call", "id": f"item_{index}", "call_id": f"call_{index}", "name": "find"}
    return {**call, "arguments": arguments, "status": "completed", **fields}


def added(item: Any, index: int = 0) -> bytes:
    """Return the event that announces an item."""
    return sent("output_item.added", output_index=index, item=item)


def done(item: Any, index: int = 0) -> bytes:
    """Return the event with a complete item."""
    return sent("output_item.done", output_index=index, item=item)


def decoded(*frames: bytes) -> tuple[list[Delta], Reply]:
    """Return the deltas and the reply of a stream or of a body."""
    return translated(frames_of([b"".join(frames)]), OpenAIResponses)


def reply_of(*frames: bytes) -> Reply:
    """Return the reply of a stream or of a body."""
    return decoded(*frames)[1]


def joined(deltas: Iterable[Delta], kind: str) -> str:
    """Return the text of the deltas of one kind."""
    return "".join(delta.text for delta in deltas if delta.kind == kind)


def fields_of_response(response: Any) -> dict[str, Any]:
    """Return the content of the SDK's response, in the terms of a reply."""
    items = [item.model_dump(mode="json", exclude_unset=True) for item in response.output]
    parts = [part for item in items if item["type"] == "message" for part in item["content"]]
    thoughts = [
        text["text"]
        for item in items
        if item["type"] == "reasoning"
        for text in [*(item.get("summary") or ()), *(item.get("content") or ())]
    ]
    calls = [
        (item["call_id"], item["name"], item["arguments"])
        for item in items
        if is_call(item) and "name" in item
    ]
    return {
        "text": response.output_text,
        "reasoning": "\n\n".join(thoughts),
        "calls": calls,
        "citations": [citation for part in parts for citation in part.get("annotations") or ()],
        "other": [item["type"] for item in items if item["type"] not in ("message", "reasoning", "function_call")
                  and not is_call(item)],
        "usage": response.usage.model_dump(mode="json", exclude_unset=True),
        "id": response.id,
        "model": response.model,
        "status": response.status,
    }  # fmt: skip


def record(history: ChatHistoryCallback, request: dict[str, Any], body: bytes) -> str:
    """Record a run whose request and response have these bytes, and return its id."""
    run_id, translator = uuid.uuid4(), OpenAIResponses()
    parameters = {key: request[key] for key in request if key not in CONTENT_KEYS}
    history.on_chat_model_start(
        None, [responses_messages(request)], run_id=run_id, wire=translator.wire, input_hash=input_hash(request),
        invocation_params=parameters,
    )  # fmt: skip
    for at_us, frame in enumerate(frames_of([body])):
        history.on_stream_frame(frame, at_us, translator.decode(frame), run_id=run_id)
    reply = translator.reply
    generation = ChatGeneration(reply.message(), generation_info={"id": reply.response_id})
    output = {"token_usage": reply.raw_usage, "interrupted": not reply.has_ended}
    result = LLMResult([[generation]], llm_output=output)
    if (error := reply.failure()) is not None:
        response = httpx2.Response(200, request=httpx2.Request("POST", "https://a/v1/responses"))
        raised = openai.APIError(error_text(error), response.request, body=error)
        history.on_llm_error(raised, response=result, run_id=run_id)
    else:
        history.on_llm_end(result, run_id=run_id)
    history.flush().wait()
    return str(run_id)


# -- any stream ------------------------------------------------------------------------------------------------

_TYPES = ("message", "reasoning", "function_call", "custom_tool_call", "mcp_call", "web_search_call", "computer_call",
          "tool_search_call", "shell_call_output", "code_interpreter_call")  # fmt: skip
_WORDS = (
    "created", "in_progress", "queued", "output_item.added", "output_item.done", "content_part.added",
    "content_part.done", "output_text.delta", "output_text.delta", "output_text.done", "refusal.delta", "refusal.done",
    "reasoning_summary_text.delta", "reasoning_summary_text.done", "reasoning_summary_part.done",
    "reasoning_text.delta", "reasoning_text.done", "function_call_arguments.delta", "function_call_arguments.done",
    "custom_tool_call_input.delta", "mcp_call_arguments.delta", "output_text.annotation.added",
    "code_interpreter_call_code.delta", "code_interpreter_call_code.done", "audio.delta", "web_search_call.completed",
)  # fmt: skip
_ids = st.sampled_from((None, "a", "b", ""))
_parts = st.one_of(
    st.fixed_dictionaries(
        {"type": st.sampled_from(("output_text", "refusal", "reasoning_text", "summary_text", "picture"))},
        optional={"text": st.one_of(texts, odd), "refusal": texts, "annotations": odd, "logprobs": odd},
    ),
    odd,
)
_items = st.one_of(
    st.fixed_dictionaries(
        {"type": st.sampled_from(_TYPES)},
        optional={
            "id": _ids, "call_id": _ids, "name": st.one_of(texts, odd), "arguments": st.one_of(texts, odd),
            "input": texts, "action": odd, "status": texts, "content": st.one_of(st.lists(_parts, max_size=2), odd),
            "summary": st.one_of(st.lists(_parts, max_size=2), odd), "encrypted_content": st.one_of(texts, odd),
            "phase": texts, "code": texts, "execution": st.sampled_from(("client", "server")), "mood": odd,
        },
    ),
    odd,
)  # fmt: skip
_responses = st.one_of(
    st.fixed_dictionaries(
        {},
        optional={
            "id": _ids, "model": texts, "status": st.sampled_from(("completed", "in_progress", "incomplete", [], None)),
            "output": st.one_of(st.lists(_items, max_size=3), odd), "usage": odd, "error": odd,
            "incomplete_details": st.one_of(st.just({"reason": "max_output_tokens"}), odd), "metadata": odd,
        },
    ),
    odd,
)  # fmt: skip
_events = st.builds(
    lambda word, fields: sent(word, **fields),
    st.sampled_from(_WORDS),
    st.fixed_dictionaries(
        {},
        optional={
            "output_index": indexes, "content_index": indexes, "summary_index": indexes, "item_id": _ids,
            "delta": st.one_of(texts, texts, odd), "text": st.one_of(texts, odd), "arguments": texts, "refusal": texts,
            "code": texts, "item": _items, "part": _parts, "response": _responses, "annotation": odd, "logprobs": odd,
        },
    ),
)  # fmt: skip
_ends = st.one_of(
    st.builds(
        lambda word, response: sent(word, response=response),
        st.sampled_from(("completed", "incomplete", "failed", "done")),
        _responses,
    ),
    st.just(b"data: [DONE]\n\n"),
    st.just(b""),
)
#: The frames of a stream with any values at any place.
any_streams = st.builds(lambda frames, end: [*frames, end], st.lists(_events, max_size=12), _ends)
