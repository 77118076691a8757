"""Strategies for Hypothesis: valid and invalid streams as any provider or proxy might send them."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

Strategy = st.SearchStrategy[Any]

#: Texts of deltas: few, so that one occurs twice in a stream, and some that are hard to encode.
TEXTS = (
    "",
    "a",
    "Hello",
    " there",
    "ha",
    "haha",
    "Hello there",
    '{"x":',
    "1}",
    "{}",
    "\n\n",
    "é",
    "\ud83d",
    "😀",
    "\x00",
    "0",
)
ODD: tuple[Any, ...] = (
    None,
    "",
    0,
    7,
    True,
    [],
    {},
    "x",
    ["x"],
    {"k": "v"},
    [{"index": 0, "k": "v"}],
    [None],
    {"index": None},
)
texts = st.sampled_from(TEXTS)
odd = st.sampled_from(ODD)
indexes = st.sampled_from((0, 0, 0, 1, 2, None, "1", -1))
ids = st.sampled_from((None, None, "", "a", "b"))
names = st.sampled_from((None, None, "", "find", "look"))
reasons = st.sampled_from(("stop", "tool_calls", "length", "content_filter", "abort", "null", "", None))
counts = st.sampled_from((0, 1, 5, 7, None, -1, "3"))


def dicts(**values: Strategy) -> Strategy:
    """Return a strategy of dicts that have any of these keys."""
    return st.fixed_dictionaries({}, optional=values)


def written(fields: Any, name: str | None = None, field: str = "data") -> bytes:
    """Return one event as bytes."""
    head = f"event: {name}\n".encode() if name else b""
    return head + field.encode() + b": " + json.dumps(fields).encode() + b"\n\n"


details = st.lists(
    dicts(
        type=st.sampled_from(("reasoning.text", "reasoning.summary", "reasoning.encrypted")), text=texts, summary=texts,
        signature=st.sampled_from((None, "S")), data=st.sampled_from(("QQ==", None)), index=indexes, id=ids,
    ),
    max_size=2,
)  # fmt: skip
usages = dicts(
    prompt_tokens=counts, completion_tokens=counts, total_tokens=counts, input_tokens=counts, output_tokens=counts,
    prompt_tokens_details=dicts(cached_tokens=counts), completion_tokens_details=dicts(reasoning_tokens=counts),
    promptTokenCount=counts, candidatesTokenCount=counts, cache_read_input_tokens=counts,
    cache_creation_input_tokens=counts,
)  # fmt: skip
errors = st.sampled_from((
    {"error": {"message": "no memory", "type": "server_error"}}, {"error": "no memory"}, {"error_message": "no memory"},
    {"object": "error", "message": "no memory", "code": 500}, {"type": "error", "error": {"type": "overloaded_error"}},
))  # fmt: skip

# -- OpenAI ---------------------------------------------------------------------------------------------------

blocks = st.one_of(
    st.builds(lambda text: {"type": "text", "text": text}, texts),
    st.builds(lambda text: {"type": "thinking", "thinking": text}, texts),
    st.builds(lambda text: {"type": "thinking", "thinking": [{"type": "text", "text": text}]}, texts),
    st.just({"type": "image_url", "image_url": {"url": "u"}}),
    texts,
    odd,
)
functions = dicts(name=names, arguments=st.one_of(texts, texts, odd))
pieces = dicts(
    index=indexes, id=ids, type=st.just("function"), function=st.one_of(functions, functions, odd),
    extra_content=st.sampled_from((None, {"google": {"thought_signature": "S"}})),
)  # fmt: skip
delta_fields = st.one_of(
    dicts(content=texts),
    dicts(content=texts),
    dicts(reasoning_content=texts, reasoning=texts, thinking=texts, reasoning_details=details),
    dicts(tool_calls=st.lists(pieces, max_size=2)),
    dicts(
        role=st.sampled_from(("assistant", "", None)), content=st.one_of(texts, st.lists(blocks, max_size=2), odd),
        refusal=st.one_of(texts, odd), reasoning_content=st.one_of(texts, odd), reasoning=odd, thought=odd,
        reasoning_details=st.one_of(details, odd), tool_calls=st.one_of(st.lists(pieces, max_size=2), odd),
        annotations=odd, function_call=odd, audio=odd, mood=odd, extra_content=odd, error=st.just(None), name=texts,
    ),
)  # fmt: skip
_beside: dict[str, Strategy] = {
    "finish_reason": st.one_of(st.none(), st.none(), reasons), "usage": usages, "logprobs": odd,
    "content_filter_results": odd, "native_finish_reason": reasons,
}  # fmt: skip
choices = st.builds(
    lambda index, one, more: {**more, **one, **({} if index is None else {"index": index})},
    st.sampled_from((0, 0, 0, 0, 1, 2, None)),
    st.one_of(
        st.builds(lambda delta: {"delta": delta}, delta_fields),
        st.builds(lambda delta: {"delta": delta}, delta_fields),
        st.builds(
            lambda delta, message: {"delta": delta, "message": message},
            st.one_of(delta_fields, odd),
            delta_fields,
        ),
        st.builds(lambda message: {"message": message}, delta_fields),
        st.just({"delta": None}),
        st.just({}),
    ),
    st.one_of(st.just({}), dicts(finish_reason=_beside["finish_reason"]), dicts(**_beside)),
)
_top = dicts(
    id=st.sampled_from(("1", None, "")), model=st.sampled_from(("m", None)), created=counts,
    object=st.sampled_from(("chat.completion.chunk", "chat.completion.chunk", "chat.completion")),
    usage=st.one_of(st.none(), usages), x_groq=dicts(usage=usages, id=ids), citations=odd, system_fingerprint=texts,
    usageMetadata=usages, obfuscation=texts, moderation=odd,
)  # fmt: skip
chat_events = st.one_of(
    st.builds(lambda one, top: written({"choices": [one], **top}), choices, st.just({})),
    st.builds(lambda one, top: written({"choices": [one], **top}), choices, _top),
    st.builds(lambda some, top: written({"choices": some, **top}), st.lists(choices, max_size=2), _top),
    st.builds(lambda spent: written({"choices": [], "usage": spent}), usages),
)
completion_choices = st.builds(
    lambda index, text, more: {"index": index, "text": text, **more},
    st.sampled_from((0, 0, 0, 1)),
    st.one_of(texts, texts, odd),
    st.one_of(st.just({}), dicts(reasoning=texts, reasoning_content=texts, mood=odd, **_beside)),
)
completion_events = st.builds(lambda one, top: written({"choices": [one], **top}), completion_choices, _top)

# -- Anthropic ------------------------------------------------------------------------------------------------

_numbers = st.sampled_from((0, 0, 1, 2, None, "1"))
block_starts = st.one_of(
    st.builds(lambda text: {"type": "text", "text": text}, texts),
    st.builds(lambda text: {"type": "thinking", "thinking": text, "signature": ""}, texts),
    st.builds(lambda id, name, input: {"type": "tool_use", "id": id, "name": name, "input": input}, ids, names,
              st.sampled_from(({}, {"x": 1}, None, "")) ),
    st.just({"type": "redacted_thinking", "data": "QQ=="}),
    st.builds(lambda id: {"type": "server_tool_use", "id": id, "name": "web_search", "input": {}}, ids),
    st.just({"type": "web_search_tool_result", "tool_use_id": "a", "content": [{"url": "u"}]}),
    st.builds(lambda text: {"type": "text", "text": text, "citations": [{"url": "u"}]}, texts),
    st.builds(lambda more: {"type": "compaction", "content": more}, odd),
    dicts(type=st.sampled_from(("text", "thinking", "tool_use")), text=odd, thinking=odd, id=odd, name=odd, input=odd),
)  # fmt: skip
block_deltas = st.one_of(
    st.builds(lambda text: {"type": "text_delta", "text": text}, texts),
    st.builds(lambda text: {"type": "text_delta", "text": text}, texts),
    st.builds(lambda text: {"type": "thinking_delta", "thinking": text}, texts),
    st.builds(lambda text: {"type": "signature_delta", "signature": text}, texts),
    st.builds(lambda text: {"type": "input_json_delta", "partial_json": text}, texts),
    st.just({"type": "citations_delta", "citation": {"url": "u"}}),
    st.builds(lambda more: {"type": "compaction_delta", "content": more}, odd),
    dicts(type=st.sampled_from(("text_delta", "odd_delta")), text=odd, k=odd),
    st.builds(lambda more: {"type": "input_json_delta", "partial_json": more}, odd),
)
stops = st.sampled_from(("end_turn", "tool_use", "max_tokens", "abort", None, "null"))


def _named(event: dict[str, Any]) -> bytes:
    return written(event, event["type"])


def _message(content: list[Any], **more: Any) -> dict[str, Any]:
    return {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": content, **more}


anthropic_events = st.one_of(
    st.builds(lambda at, block: _named({"type": "content_block_start", "index": at, "content_block": block}),
              _numbers, block_starts),
    st.builds(lambda at, delta: _named({"type": "content_block_delta", "index": at, "delta": delta}),
              _numbers, block_deltas),
    st.builds(lambda at, delta: _named({"type": "content_block_delta", "index": at, "delta": delta}),
              _numbers, block_deltas),
    st.builds(lambda at: _named({"type": "content_block_stop", "index": at}), _numbers),
    st.builds(lambda at, block: _named({"type": "content_block_stop", "index": at, "content_block": block}),
              _numbers, block_starts),
    st.builds(lambda why, spent: _named({"type": "message_delta", "delta": {"stop_reason": why}, "usage": spent}),
              stops, usages),
    st.builds(lambda spent, content: _named({"type": "message_start", "message": _message(content, usage=spent)}),
              usages, st.lists(block_starts, max_size=1)),
    st.builds(lambda more: _named({"type": "odd_event", "more": more}), odd),
)  # fmt: skip
anthropic_messages = st.builds(
    lambda content, why, spent: _named(_message(content, stop_reason=why, usage=spent)),
    st.lists(block_starts, max_size=2),
    stops,
    usages,
)
_anthropic_starts = st.builds(
    lambda spent: [_named({"type": "message_start", "message": _message([], usage=spent)})], usages
)

# -- bodies ---------------------------------------------------------------------------------------------------

noise = st.sampled_from((
    b": keep-alive\n\n", b"event: ping\ndata: {}\n\n", b"data:\n\n", b"\n", b"data: null\n\n", b"data: [1]\n\n",
    b"data: {\n\n",
    b'event: ping\ndata: {"type": "ping"}\n\n', b"id: 7\n\n", b"retry: 3\n\n", b"data: nonsense\n\n", b"\xff\xfe\n\n",
    b'data: {"choices": null}\n\n', b'data: {"choices": [null]}\n\n', b"data: {}\n\n",
))  # fmt: skip
failures = st.one_of(
    st.builds(written, errors),
    st.builds(lambda error: written(error, "error"), errors),
    st.builds(lambda error: written(error, None, "error"), errors),
    st.just(b"event: error\ndata: no memory\n\n"),
)
_DONE, _STOP = b"data: [DONE]\n\n", _named({"type": "message_stop"})
ends = st.sampled_from((_DONE, _DONE, _STOP, b"", b"event: done\ndata: {}\n\n"))


@st.composite
def _bodies(draw: st.DrawFn, events: Strategy, complete: Strategy, starts: Strategy) -> list[bytes]:
    """A body in pieces as they arrive over the network."""
    one = st.one_of(
        events, events, events, events, events, events, noise, draw(st.sampled_from((events, failures)))
    )
    parts = [
        *draw(starts),
        *draw(st.lists(one, max_size=8)),
        *draw(st.lists(complete, max_size=1)),
        draw(ends),
    ]
    return cut(b"".join(parts), draw(st.lists(st.integers(0, 400), max_size=4)))


def cut(body: bytes, places: list[int]) -> list[bytes]:
    """Return the body cut at these places."""
    edges = [0, *sorted({place for place in places if place < len(body)} - {0}), len(body)]
    return [body[start:end] for start, end in pairwise(edges) if end > start]


chat_bodies = _bodies(chat_events, chat_events, st.just([]))
completion_bodies = _bodies(completion_events, completion_events, st.just([]))
anthropic_bodies = _bodies(anthropic_events, anthropic_messages, st.one_of(_anthropic_starts, st.just([])))
