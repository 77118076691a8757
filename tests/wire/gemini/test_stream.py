"""The translator of Gemini: what its parts, ends, counts and errors become, in both forms of a stream."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.messages import ChatGeneration, LLMResult
from recorder.recording.run_end import end_of_result
from recorder.wire.deltas import Delta
from recorder.wire.formats import translator_of
from recorder.wire.gemini.stream import WIRE, Gemini
from tests.wire.gemini.frames import (
    CALL,
    DELTAS,
    EVENTS,
    MODEL,
    USAGE,
    array,
    decoded,
    event,
    reply_of,
    sse,
    text,
)
from tests.wires import unhurried

BODIES = {"sse": sse(EVENTS), "array": array(EVENTS), "compact array": array(EVENTS, None)}
forms = pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)


@forms
def test_both_forms_of_a_stream_have_the_same_tokens(body: bytes) -> None:
    """Reasoning, text, a call with its arguments, and the signature of the call."""
    deltas, reply = decoded(body)
    assert deltas == DELTAS
    assert (reply.response_id, reply.model, reply.raw_usage) == ("r-1", MODEL, USAGE)
    assert (reply.finish_reasons, reply.has_ended, reply.failure()) == ({0: "STOP"}, True, None)


@forms
def test_every_cut_of_the_bytes_gives_the_same_tokens(body: bytes) -> None:
    """Once at each position, and byte by byte."""
    for at in range(len(body)):
        assert decoded(body[:at], body[at:])[0] == DELTAS
    assert decoded(*(body[at : at + 1] for at in range(len(body))))[0] == DELTAS


@given(st.lists(st.integers(1, 60), max_size=60), st.sampled_from(list(BODIES)))
@unhurried
def test_any_pieces_give_the_same_tokens(sizes: list[int], form: str) -> None:
    """The last piece has the rest."""
    assert decoded(BODIES[form], sizes=sizes)[0] == DELTAS


def test_an_answer_that_is_not_streamed_is_one_object() -> None:
    """It has all parts, and is complete."""
    parts = [part for each in EVENTS for part in each["candidates"][0]["content"]["parts"]]
    body = json.dumps(event(*parts, finish="STOP", usageMetadata=USAGE), indent=2).encode()
    translator = Gemini()
    assert list(translator.decode(body)) == DELTAS
    assert (translator.reply.terminated, translator.reply.raw_usage) == (True, USAGE)


def test_the_translator_is_found_by_the_name_of_the_format() -> None:
    """The name is that of the run's column `wire`."""
    assert isinstance(translator_of(WIRE), Gemini)


def test_usage_counts_reasoning_and_what_tools_read() -> None:
    """In the names of all formats; the counts of a later event replace earlier ones."""
    counts = {**USAGE, "cachedContentTokenCount": 4, "toolUsePromptTokenCount": 3, "totalTokenCount": 29}
    usage = reply_of(EVENTS[0], event(text("Hi"), finish="STOP", usageMetadata=counts)).usage
    assert usage == {
        "input_tokens": 17,
        "output_tokens": 12,
        "total_tokens": 29,
        "input_token_details": {"cache_read": 4},
        "output_token_details": {"reasoning": 5},
    }


def test_an_answer_of_reasoning_alone_is_counted() -> None:
    """The limit was reached before the first token of the answer, and there is no count of it."""
    counts = {"promptTokenCount": 4, "thoughtsTokenCount": 60, "totalTokenCount": 64}
    usage = reply_of(event(finish="MAX_TOKENS", usageMetadata=counts)).usage
    assert usage is not None
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (4, 60, 64)


STATUSES = {
    "STOP": "complete", "MAX_TOKENS": "incomplete", "SAFETY": "incomplete", "RECITATION": "incomplete",
    "BLOCKLIST": "incomplete", "PROHIBITED_CONTENT": "incomplete", "SPII": "incomplete", "IMAGE_SAFETY": "incomplete",
    "CONTINUATION": "incomplete", "TOO_MANY_TOOL_CALLS": "incomplete", "OTHER": "interrupted",
    "MALFORMED_FUNCTION_CALL": "interrupted",
}  # fmt: skip


@pytest.mark.parametrize(("reason", "status"), STATUSES.items())
def test_each_finish_reason_has_a_status(reason: str, status: str) -> None:
    """The word is stored as it was sent."""
    reply = reply_of(event(text("Hi"), finish=reason))
    end = end_of_result(LLMResult([[ChatGeneration(reply.message())]]))
    assert (end.finish_reason, end.status) == (reason, status)


def test_a_stream_without_a_finish_reason_has_not_ended() -> None:
    """There is no terminator, and an unspecified reason is none."""
    assert not reply_of().has_ended
    assert not reply_of(event(text("Hi"))).has_ended
    assert not reply_of(event(text("Hi"), finish="FINISH_REASON_UNSPECIFIED")).has_ended
    assert not decoded(sse([event(text("Hi"))]), b"data: [DONE]\n\n")[1].has_ended


def test_several_candidates_are_several_choices() -> None:
    """The first one has no index. The stream has ended when each of them has a reason."""
    both: dict[str, Any] = event(text("a"))
    both["candidates"] += event(text("b"), index=1)["candidates"]
    reply = reply_of(both, event(text("c"), index=1), event(finish="STOP", index=0))
    assert [reply.text(choice) for choice in reply.choices] == ["a", "bc"]
    assert not reply.has_ended
    reply = reply_of(both, event(finish="STOP"), event(finish="MAX_TOKENS", index=1))
    assert (reply.finish_reasons, reply.has_ended) == ({0: "STOP", 1: "MAX_TOKENS"}, True)


def test_calls_are_numbered_over_all_events_of_a_candidate() -> None:
    """Two in one event, and one later."""
    other: Any = {"functionCall": {"name": "now"}}
    calls = reply_of(event({"functionCall": CALL}, other), event(other, finish="STOP")).tool_calls()
    arguments = '{"city":"Paris","days":2}'
    assert [(call["id"], call["name"], call["arguments"]) for call in calls] == [
        ("call-7", "get_weather", arguments),
        (None, "now", ""),
        (None, "now", ""),
    ]


PARTS: list[dict[str, Any]] = [
    {"executableCode": {"language": "PYTHON", "code": "print(1)"}},
    {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1\n"}},
    {"inlineData": {"mimeType": "image/png", "data": "aGk="}},
    {"fileData": {"fileUri": "gs://a/b"}},
    {"functionCall": {"partialArgs": [{"jsonPath": "$.city", "stringValue": "Pa"}], "willContinue": True}},
    {"somethingNew": 1},
]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: next(iter(part)))
def test_any_other_part_is_kept_as_json(part: dict[str, Any]) -> None:
    """Code, its result, files, pieces of arguments, and what comes in future."""
    deltas, reply = decoded(sse([event(text("a"), part), event(text("b"), finish="STOP")]))
    [other] = [delta for delta in deltas if delta.kind == "other"]
    assert json.loads(other.text) == {"parts": [part]}
    assert (reply.text(), reply.message().additional_kwargs) == ("ab", {"parts": [part]})


def test_sources_are_citations_each_once() -> None:
    """Some events repeat what was sent before."""
    source = {"startIndex": 0, "endIndex": 5, "uri": "https://example.com"}
    first, second = event(text("Hi")), event(text("!"), finish="STOP")
    first["candidates"][0]["citationMetadata"] = {"citationSources": [source]}
    second["candidates"][0]["citationMetadata"] = {"citationSources": [source, {"uri": "b"}]}
    grounding = {"webSearchQueries": ["weather"], "groundingChunks": [{"web": {"uri": "c", "title": "C"}}]}
    for each in (first, second):
        each["candidates"][0]["groundingMetadata"] = grounding
    deltas, reply = decoded(sse([first, second]))
    found = [json.loads(delta.text) for delta in deltas if delta.kind == "citation"]
    assert found == [source, {"groundingMetadata": grounding}, {"uri": "b"}]
    assert reply.message().additional_kwargs["annotations"] == found


def test_a_blocked_prompt_has_the_reason_of_the_block() -> None:
    """There is no candidate. A reason that says nothing is still a block."""
    for sent, stored in (("SAFETY", "SAFETY"), ("JAILBREAK", "JAILBREAK"), ("OTHER", "BLOCKED")):
        feedback = {"blockReason": sent, "safetyRatings": []}
        reply = reply_of({"promptFeedback": feedback, "usageMetadata": {"promptTokenCount": 4}})
        end = end_of_result(LLMResult([[ChatGeneration(reply.message())]]))
        assert (end.finish_reason, end.status, reply.has_ended) == (stored, "incomplete", True)
        assert reply.metadata["prompt_feedback"] == feedback


def test_details_of_a_candidate_describe_it() -> None:
    """Ratings, averages and log probabilities."""
    last = event(finish="STOP", createTime="2026-11-28T12:00:00Z")
    last["candidates"][0] |= {"avgLogprobs": -0.5, "logprobsResult": {"chosenCandidates": [{"token": "Hi"}]}}
    metadata = reply_of(event(text("Hi")), last).response_metadata()
    assert metadata["candidate"] == {"avgLogprobs": -0.5}
    assert metadata["logprobs"] == {"chosenCandidates": [{"token": "Hi"}]}
    assert metadata["create_time"] == "2026-11-28T12:00:00Z"


ERROR = {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}
_PRETTY = json.dumps({"error": ERROR}, indent=2).encode()
ERRORS = {
    "an event": sse([EVENTS[1], {"error": ERROR}]),
    "lines after events": sse([EVENTS[1]]) + _PRETTY.replace(b"\n", b"\r\n"),
    "an item": array([EVENTS[1], {"error": ERROR}]),
    "an event that is a list": sse([EVENTS[1], [{"error": ERROR}]]),
    "an event with a name": sse([EVENTS[1]]) + b"event: error\n" + sse([{"error": ERROR}]),
}  # fmt: skip


@pytest.mark.parametrize("body", ERRORS.values(), ids=ERRORS)
def test_an_error_inside_of_a_stream_is_found(body: bytes) -> None:
    """After the first text, in each form of a stream, and in any pieces."""
    for at in range(len(body)):
        deltas, reply = decoded(body[:at], body[at:])
        assert (deltas, reply.error, reply.has_ended) == ([Delta("Hello")], ERROR, False)


@pytest.mark.parametrize("body", [_PRETTY, b"\r\n[" + _PRETTY + b"]", b"\xef\xbb\xbf" + _PRETTY])
def test_an_error_in_place_of_a_stream_is_found(body: bytes) -> None:
    """An object or an array with it."""
    assert decoded(body)[1].error == ERROR


def test_what_follows_the_finish_reason_is_still_read() -> None:
    """The usage may come in an event of its own."""
    reply = reply_of(event(text("Hi"), finish="STOP"), {"usageMetadata": USAGE})
    assert (reply.text(), reply.raw_usage, reply.has_ended) == ("Hi", USAGE, True)


#: Values of each type that JSON has, for a key that should have another one.
ODD: list[Any] = [
    None,
    True,
    0,
    -1,
    1e300,
    "",
    "x",
    [],
    [None],
    [[]],
    {},
    {"a": {}},
    [{"parts": 7}],
    {"parts": [7, "a"]},
]


@pytest.mark.parametrize(
    "key", ["candidates", "usageMetadata", "promptFeedback", "modelVersion", "responseId", "error"]
)
def test_wrong_types_in_an_event_never_raise(key: str) -> None:
    """The stream goes on after them."""
    for value in ODD:
        reply = reply_of({**event(text("a")), key: value}, event(text("b"), finish="STOP"))
        assert reply.text().endswith("b")


@pytest.mark.parametrize(
    "key",
    [
        "content",
        "index",
        "finishReason",
        "citationMetadata",
        "groundingMetadata",
        "logprobsResult",
        "safetyRatings",
        "x",
    ],
)
def test_wrong_types_in_a_candidate_never_raise(key: str) -> None:
    """The stream goes on after them, and its message can be made."""
    for value in ODD:
        odd = event(text("a"))
        odd["candidates"][0][key] = value
        reply = reply_of(odd, event(text("b"), finish="STOP"))
        assert reply.text().endswith("b")
        for choice in reply.choices:
            reply.message(choice)


@pytest.mark.parametrize(
    "key",
    ["text", "thought", "functionCall", "thoughtSignature", "inlineData", "executableCode", "snake_case", ""],
)
def test_wrong_types_in_a_part_never_raise(key: str) -> None:
    """What is no text or call is kept as JSON."""
    calls: list[Any] = [{"name": value, "args": value, "id": value} for value in ODD]
    for value in [*ODD, *calls]:
        reply = reply_of(event({key: value}), event(text("b"), finish="STOP"))
        assert reply.text().endswith("b")
        reply.message()


@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"[", b"{", b"data: ", b"data: {", sse(EVENTS[:1]), array(EVENTS[:1])]),
)
@unhurried
def test_no_bytes_raise(noise: bytes, before: bytes) -> None:
    """The frames joined are the body."""
    decoded(before + noise)


def test_a_stream_of_random_damage_never_raises() -> None:
    """Bytes of a genuine form are replaced; the seed is printed."""
    seed = random.randrange(10**6)
    print("seed", seed)
    chance = random.Random(seed)
    for _ in range(300):
        body = bytearray(chance.choice(list(BODIES.values())))
        for _ in range(3):
            body[chance.randrange(len(body))] = chance.choice(b'{}[]",:\\\n\r 0e\xff')
        _, reply = decoded(bytes(body))
        for choice in reply.choices:
            reply.message(choice)
