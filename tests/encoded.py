"""Helpers for the tests of encoders: they make runs, and read encoded streams with translators and SDKs."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import anthropic
import openai
from hypothesis import strategies as st

from recorder.core.json import dumps
from recorder.testing import Answer, LoopbackProvider
from recorder.wire.anthropic.stream import AnthropicMessages
from recorder.wire.deltas import (
    CITATION,
    OTHER,
    REASONING,
    REFUSAL,
    SIGNATURE,
    TEXT,
    TOOL_ARGS,
    TOOL_CALL,
    Delta,
)
from recorder.wire.encode import encode
from recorder.wire.openai.chat import OpenAIChat
from recorder.wire.openai.completions import OpenAICompletions
from recorder.wire.openai.responses import OpenAIResponses
from recorder.wire.recorded_run import ANTHROPIC, CHAT, COMPLETIONS, RESPONSES, Failure, Recorded
from tests.genuine import Stream, all_streams
from tests.wires import at_random, frames_of

_TRANSLATORS: dict[str, Callable[[], Any]] = {
    CHAT: OpenAIChat,
    COMPLETIONS: OpenAICompletions,
    RESPONSES: OpenAIResponses,
    ANTHROPIC: AnthropicMessages,
}
_ENDS = {CHAT: "/chat/completions", RESPONSES: "/responses", ANTHROPIC: "/v1/messages"}


def genuine(wire: str) -> list[Stream]:
    """Return the genuine streams of this wire format whose HTTP status is 200."""
    return [each for each in all_streams() if each.path.endswith(_ENDS[wire]) and each.status == 200]


def timed(deltas: Iterable[Delta]) -> list[tuple[int, Delta]]:
    """Give each delta a time in microseconds, one millisecond after the delta before."""
    return [(1000 * number, delta) for number, delta in enumerate(deltas, 1)]


def body_of(wire: str, run: Recorded, deltas: Iterable[Delta]) -> bytes:
    """Encode the deltas of a run and return the body of the response."""
    return b"".join(frame for _, frame in encode(wire, run, timed(deltas)))


def read(wire: str, body: bytes) -> tuple[list[Delta], Any]:
    """Translate a body that arrives in random pieces; return its deltas and its reply."""
    translate = _TRANSLATORS[wire]()
    frames = frames_of(at_random(body, random.Random(len(body))))
    deltas = [delta for frame in frames for delta in translate.decode(frame)]
    return deltas, translate.reply


def run_of(wire: str, reply: Any, **more: Any) -> Recorded:
    """Return the recorded run whose frames gave this reply."""
    error = reply.error
    if isinstance(error, dict) and isinstance(error.get("error"), dict):
        error = error["error"]
    failure = None
    if error is not None:
        fields = error if isinstance(error, dict) else {"message": str(error)}
        failure = Failure(str(fields.get("message")), fields.get("type"))
    return Recorded(
        wire=wire,
        response_id=reply.response_id,
        model=reply.model,
        created=1_700_000_000,
        finish_reasons=dict(reply.finish_reasons),
        usage=reply.raw_usage,
        metadata=dict(reply.metadata),
        failure=failure,
        terminated=reply.terminated,
        **more,
    )


def with_finish_reason(run: Recorded, reason: str) -> Recorded:
    """Return the run with another finish reason."""
    return replace(run, finish_reasons={0: reason})


# -- a client of the format --------------------------------------------------------------------------------------


def serving(body: bytes) -> LoopbackProvider:
    """Return a provider that streams this body in pieces that end anywhere."""
    return LoopbackProvider(Answer(frames=[body], chunks=(7, 1, 300, 2000)))


def openai_client(provider: LoopbackProvider) -> openai.OpenAI:
    """Return the OpenAI SDK's client without changes."""
    return openai.OpenAI(base_url=provider.base_url, api_key="any", max_retries=0)


def anthropic_client(provider: LoopbackProvider) -> anthropic.Anthropic:
    """Return the Anthropic SDK's client without changes."""
    root = provider.base_url.removesuffix("/v1")
    return anthropic.Anthropic(base_url=root, api_key="any", max_retries=0)


ASK_OPENAI: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
ASK_ANTHROPIC: dict[str, Any] = {**ASK_OPENAI, "max_tokens": 10}


def accumulated_by_openai(body: bytes) -> Any:
    """Return the completion that the SDK's own accumulator makes of a stream."""
    with (
        serving(body) as provider,
        openai_client(provider) as client,
        client.chat.completions.stream(**ASK_OPENAI) as stream,
    ):
        return stream.get_final_completion()


def accumulated_by_responses(body: bytes) -> Any:
    """Return the response that the SDK's own accumulator makes of a stream."""
    with (
        serving(body) as provider,
        openai_client(provider) as client,
        client.responses.stream(model="m", input="Hi") as stream,
    ):
        return stream.get_final_response()


def accumulated_by_anthropic(body: bytes) -> Any:
    """Return the message that the SDK's own accumulator makes of a stream."""
    with (
        serving(body) as provider,
        anthropic_client(provider) as client,
        client.messages.stream(**ASK_ANTHROPIC) as stream,
    ):
        return stream.get_final_message()


# -- deltas as translators make them -------------------------------------------------------------------------------


def _survives_json(text: str) -> bool:
    """Return whether JSON keeps the text; it joins two halves of a surrogate pair to one character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass") == text


TEXTS = st.text(st.characters(), min_size=1).filter(_survives_json)
NAMES = st.text("abc_", min_size=1, max_size=5)
JSON_OBJECTS = st.dictionaries(
    NAMES, st.one_of(st.integers(-9, 9), st.text(max_size=5), st.none()), max_size=3
)
_OTHERS = st.builds(lambda key, value: dumps({f"x_{key}": value}), NAMES, JSON_OBJECTS)


@st.composite
def chat_deltas(draw: st.DrawFn) -> list[Delta]:
    """Deltas of a chat with up to three interleaved choices; a tool call is opened before its arguments."""
    found: list[Delta] = []
    calls: dict[int, list[str]] = {}
    for number in range(draw(st.integers(0, 12))):
        choice = draw(st.integers(0, 2))
        kind = draw(st.sampled_from((TEXT, TEXT, REASONING, REFUSAL, CITATION, OTHER, TOOL_CALL, TOOL_ARGS)))
        opened = calls.setdefault(choice, [])
        if kind == TOOL_ARGS and opened:
            found.append(Delta(draw(TEXTS), kind, draw(st.sampled_from(opened))))
        elif kind in (TOOL_CALL, TOOL_ARGS):
            opened.append(f"{choice}.{len(opened)}")
            fields = {"id": f"call_{number}", "name": draw(NAMES)}
            found.append(Delta(dumps(draw(st.sampled_from((fields, {})))), TOOL_CALL, opened[-1]))
        elif kind in (CITATION, OTHER):
            text = dumps(draw(JSON_OBJECTS)) if kind == CITATION else draw(_OTHERS)
            found.append(Delta(text, kind, str(choice)))
        else:
            found.append(Delta(draw(TEXTS), kind, str(choice)))
    return found


@st.composite
def completions_deltas(draw: st.DrawFn) -> list[Delta]:
    """Deltas of a legacy completion."""
    pieces = st.one_of(
        st.builds(Delta, TEXTS, st.sampled_from((TEXT, TEXT, REASONING)), st.sampled_from("012")),
        st.builds(Delta, _OTHERS, st.just(OTHER), st.sampled_from("012")),
    )
    return draw(st.lists(pieces, max_size=12))


@st.composite
def responses_deltas(draw: st.DrawFn) -> list[Delta]:
    """Deltas of a response, one item after another, as its translator makes them."""
    found: list[Delta] = []
    has_reasoning = False
    for number in range(draw(st.integers(0, 5))):
        kind = draw(st.sampled_from((TEXT, REASONING, TOOL_CALL, OTHER)))
        if kind == REASONING:
            parts = draw(st.lists(st.lists(PLAIN_TEXTS, min_size=1, max_size=3), min_size=1, max_size=2))
            for part in parts:
                found += [Delta("\n\n", REASONING)] if has_reasoning else []
                found += [Delta(text, REASONING) for text in part]
                has_reasoning = True
            found.append(Delta(draw(PLAIN_TEXTS), SIGNATURE))
        elif kind == TEXT:
            found.append(Delta(dumps({"phase": "commentary"}), OTHER))
            found += [Delta(text, piece_kind) for text, piece_kind in draw(_RESPONSE_MESSAGES)]
        else:
            found += [
                Delta(text, its_kind, f"0.{number}") for text, its_kind in draw(_response_items(kind, number))
            ]
    return found


@st.composite
def _response_items(draw: st.DrawFn, kind: str, number: int) -> list[tuple[str, str]]:
    if kind == TOOL_CALL:
        types = draw(
            st.sampled_from(({}, {"type": "custom_tool_call"}, {"type": "mcp_call", "server_label": "s"}))
        )
        return _opened(
            {"id": f"call_{number}", "name": draw(NAMES), **types}, draw(_pieces(TOOL_ARGS, 1)), TOOL_CALL
        )
    first, *rest = draw(_OTHER_ITEMS)
    pieces = [{**first, "id": f"item_{number}"}, *rest]
    return [(dumps({"output": [{**piece, "index": number}]}), OTHER) for piece in pieces]


@st.composite
def anthropic_deltas(draw: st.DrawFn) -> list[Delta]:
    """Deltas of an Anthropic message, one block after another."""
    found: list[Delta] = []
    for number in range(draw(st.integers(0, 5))):
        kind = draw(st.sampled_from((TEXT, REASONING, TOOL_CALL, OTHER)))
        idx = f"0.{number}" if number or kind == TOOL_CALL else "0"
        found += [Delta(text, its_kind, idx) for text, its_kind in draw(_BLOCKS[kind])]
    return found


def _pieces(kind: str, least: int = 0) -> st.SearchStrategy[list[tuple[str, str]]]:
    return st.lists(st.tuples(TEXTS, st.just(kind)), min_size=least, max_size=4)


def _opened(fields: Any, rest: Sequence[tuple[str, str]], kind: str) -> list[tuple[str, str]]:
    return [(dumps(fields), kind), *rest]


_CITATIONS = st.lists(st.tuples(st.builds(dumps, JSON_OBJECTS), st.just(CITATION)), max_size=2)
_CALLS = st.fixed_dictionaries({"id": NAMES, "name": NAMES}, optional={"caller": JSON_OBJECTS})
_SERVER_CALLS = st.fixed_dictionaries(
    {"type": st.just("server_tool_use"), "id": NAMES, "name": NAMES, "input": st.just({})}
)
_COMPLETE_BLOCKS = st.one_of(
    st.fixed_dictionaries({"type": st.just("redacted_thinking"), "data": TEXTS}),
    st.fixed_dictionaries({"type": st.just("web_search_tool_result"), "content": st.lists(JSON_OBJECTS)}),
    st.just({"type": "text", "text": ""}),
    st.just({"type": "thinking", "thinking": "", "signature": ""}),
)
_PARTIAL = st.lists(
    st.tuples(st.builds(lambda text: dumps({"partial_json": text}), TEXTS), st.just(OTHER)), max_size=3
)
#: Texts that are no separator of reasoning.
PLAIN_TEXTS = TEXTS.filter(lambda text: text != "\n\n")
_RESPONSE_MESSAGES = st.lists(
    st.one_of(
        st.tuples(TEXTS, st.sampled_from((TEXT, TEXT, REFUSAL))),
        st.tuples(st.builds(lambda url: dumps({"type": "x", "x": {"url": url}}), NAMES), st.just(CITATION)),
    ),
    min_size=1,
    max_size=5,
)
_OTHER_ITEMS = st.one_of(
    st.builds(lambda query: [{"type": "web_search_call", "id": "ws", "action": query}], JSON_OBJECTS),
    st.builds(
        lambda code: [{"id": "ci", "type": "code_interpreter_call", "code": "1"}, *({"code": each} for each in code),
                      {"status": "completed", "outputs": []}],
        st.lists(TEXTS, max_size=3),
    ),
)  # fmt: skip
_BLOCKS = {
    TEXT: st.one_of(
        _pieces(TEXT, 1), st.builds(lambda a, b, c: a + b + c, _CITATIONS, _pieces(TEXT, 1), _CITATIONS)
    ),
    REASONING: st.builds(
        lambda thought, signed: thought + signed,
        _pieces(REASONING, 1),
        st.lists(st.tuples(TEXTS, st.just(SIGNATURE)), max_size=1),
    ),
    TOOL_CALL: st.builds(lambda fields, args: _opened(fields, args, TOOL_CALL), _CALLS, _pieces(TOOL_ARGS)),
    OTHER: st.one_of(
        st.builds(lambda fields: _opened({"content_block": fields}, [], OTHER), _COMPLETE_BLOCKS),
        st.builds(
            lambda fields, rest: _opened({"content_block": fields}, rest, OTHER), _SERVER_CALLS, _PARTIAL
        ),
    ),
}
