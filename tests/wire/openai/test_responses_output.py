"""Output items become deltas, each piece of them once, however a provider sends them."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

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
from recorder.wire.recorded_run import value_of
from tests.responses import (
    added,
    at,
    created,
    decoded,
    done,
    ended,
    function_call,
    joined,
    message,
    reply_of,
    sent,
    text,
)

REFUSAL_PART = {"type": "refusal", "refusal": "I can't."}
CITED = {"type": "url_citation", "url": "https://a", "title": "A", "start_index": 0, "end_index": 2}


def others(deltas: list[Delta]) -> list[Any]:
    """Return the values of the deltas of kind other."""
    return [value_of(delta.text) for delta in deltas if delta.kind == OTHER]


# -- texts -----------------------------------------------------------------------------------------------------


def test_a_text_that_comes_again_and_again_counts_once() -> None:
    """The text is in its pieces, in two events of its part, in its item and in the response."""
    complete = (
        sent("output_text.done", **at(), text="Hello"),
        sent("content_part.done", **at(), part=message("Hello")["content"][0]),
    )
    frames = [
        text("Hel", "lo"),
        *complete,
        done(message("Hello")),
        done(message("Hello")),
        ended("completed", message("Hello")),
    ]
    assert decoded(created(), *frames)[0] == [Delta("Hel"), Delta("lo")]


ONLY = {
    "the text": sent("output_text.done", **at(), text="Hello"),
    "the part": sent("content_part.done", **at(), part=message("Hello")["content"][0]),
    "the item": done(message("Hello")),
    "the response": ended("completed", message("Hello")),
}


@pytest.mark.parametrize("frame", ONLY.values(), ids=ONLY)
def test_a_text_without_pieces_is_read_from_any_later_event(frame: bytes) -> None:
    """Some proxies drop the pieces."""
    assert decoded(created(), frame, ended("completed", message("Hello")))[0] == [Delta("Hello")]


def test_the_rest_of_a_text_is_read_from_a_later_event() -> None:
    """The last pieces were lost."""
    assert decoded(text("Hel"), ended("completed", message("Hello")))[0] == [Delta("Hel"), Delta("lo")]


def test_a_text_that_was_received_from_its_middle_on_is_not_read_again() -> None:
    """The stream was resumed after a piece."""
    assert decoded(text("lo"), ended("completed", message("Hello")))[0] == [Delta("lo")]


def test_the_parts_of_a_message_are_one_text() -> None:
    """As in the SDK's `output_text`; their pieces may be mixed."""
    end = ended("completed", message("ac", "b"), message("d", index=1))
    deltas, reply = decoded(text("a"), text("b", content=1), text("c"), text("d", index=1), end)
    assert ([delta.text for delta in deltas], reply.text()) == ([*"abcd"], "abcd")


def test_messages_are_told_apart_by_id_if_all_have_the_same_number() -> None:
    """Some servers write 0 for each item."""
    first, second = message("a"), message("b") | {"id": "other"}
    pieces = [sent("output_text.delta", **at(), delta="a"), done(first)]
    pieces += [
        added({**second, "content": []}),
        sent("output_text.delta", **at() | {"item_id": "other"}, delta="b"),
        done(second),
    ]
    assert joined(decoded(*pieces, ended("completed", first, second))[0], TEXT) == "ab"
    assert joined(decoded(done(first), done(second), ended("completed", first, second))[0], TEXT) == "ab"


def test_an_item_with_another_id_in_each_event_counts_once() -> None:
    """GitHub Copilot encrypts the ids again for each event."""
    start, end, last = ({**message("Hello"), "id": id} for id in ("x", "y", "z"))
    frames = [added({**start, "content": []}), text("Hello"), done(end), ended("completed", last)]
    assert decoded(*frames)[0] == [Delta("Hello")]


def test_a_text_whose_pieces_have_different_indexes_counts_once() -> None:
    """vLLM counts the pieces in `content_index`; its last events have the complete text under any of the numbers."""
    for index in (0, 1, 2, 3, 7):
        start = sent("content_part.added", **at(), part={"type": "output_text", "text": ""})
        pieces = [text(piece, content=number) for number, piece in enumerate(("He", "l", "lo"))]
        complete = sent("output_text.done", **at(content=index), text="Hello")
        part = sent("content_part.done", **at(content=index), part={"type": "output_text", "text": "Hello"})
        frames = [added(message()), start, *pieces, complete, part, done(message("Hello"))]
        assert joined(decoded(*frames, ended("completed", message("Hello")))[0], TEXT) == "Hello"


def test_reasoning_whose_pieces_have_different_indexes_has_no_blank_lines() -> None:
    """The same for reasoning."""
    item = {"type": "reasoning", "id": "item_0", "content": [{"type": "reasoning_text", "text": "Hmm."}]}
    pieces = [
        sent("reasoning_text.delta", **at(content=number), delta=each)
        for number, each in enumerate(("Hm", "m."))
    ]
    complete = sent("reasoning_text.done", **at(content=2), text="Hmm.")
    deltas, _ = decoded(
        added({**item, "content": []}), *pieces, complete, done(item), ended("completed", item)
    )
    assert joined(deltas, REASONING) == "Hmm."


def test_parts_of_a_message_that_were_announced_are_parts() -> None:
    """Their pieces may come before the first part is complete."""
    starts = [
        sent("content_part.added", **at(content=number), part={"type": "output_text"}) for number in (0, 1)
    ]
    frames = [starts[0], text("a"), starts[1], text("b", content=1), done(message("a!", "b!"))]
    assert joined(decoded(*frames)[0], TEXT) == "ab!"


def test_reasoning_may_be_sent_as_text() -> None:
    """LocalAI sends it as parts of the type `output_text`."""
    item = {
        "type": "reasoning",
        "id": "item_0",
        "content": [{"type": "output_text", "text": "Hm."}],
        "summary": [],
    }
    part = sent("content_part.done", **at(), part=item["content"][0])
    for frames in ([added({**item, "content": []}), part, done(item)], [done(item)], []):
        deltas, reply = decoded(*frames, ended("completed", item, message("Hi", index=1)))
        assert (joined(deltas, REASONING), reply.text()) == ("Hm.", "Hi")


def test_items_of_different_types_may_have_the_same_number() -> None:
    """Some proxies count messages and calls separately, both from 0, and give them other ids in each event."""
    call, answer = function_call("{}"), message("Hello")
    anonymous = {"output_index": 0, "content_index": 0}
    frames = [added({**message(), "id": "m1"}), added({**call, "id": "f1", "arguments": ""})]
    frames += [sent("output_text.delta", **anonymous, delta="Hel", item_id="m2")]
    frames += [sent("function_call_arguments.delta", output_index=0, item_id="f2", delta="{}")]
    frames += [sent("output_text.delta", **anonymous, delta="lo", item_id="m3")]
    deltas, reply = decoded(*frames, ended("completed", {**answer, "id": "m4"}, {**call, "id": "f4"}))
    assert joined(deltas, TEXT) == "Hello"
    assert reply.tool_calls() == [{"id": "call_0", "name": "find", "arguments": "{}"}]


def test_the_last_event_may_have_no_output() -> None:
    """Some proxies send null or an empty list there."""
    outputs: tuple[Any, ...] = (None, [], "x")
    for output in outputs:
        last = sent("completed", response={"id": "resp_1", "status": "completed", "output": output})
        reply = reply_of(text("Hello"), done(message("Hello")), last)
        assert (reply.text(), reply.finish_reasons) == ("Hello", {0: "stop"})


def test_events_without_a_place_belong_to_the_last_item() -> None:
    """Small servers leave out the numbers."""
    frames = [added(message()), sent("output_text.delta", delta="a"), sent("output_text.delta", delta="b")]
    assert joined(decoded(*frames, ended("completed", message("ab")))[0], TEXT) == "ab"


def test_a_refusal_is_a_delta_of_its_own() -> None:
    """Its pieces and the complete refusal."""
    pieces = [sent("refusal.delta", **at(), delta="I "), sent("refusal.delta", **at(), delta="can't.")]
    complete = sent("refusal.done", **at(), refusal="I can't."), done(message(REFUSAL_PART))
    deltas, reply = decoded(*pieces, *complete, ended("completed", message(REFUSAL_PART)))
    assert deltas == [Delta("I ", REFUSAL), Delta("can't.", REFUSAL)]
    assert reply.message().additional_kwargs == {"refusal": "I can't."}
    assert decoded(*complete)[0] == [Delta("I can't.", REFUSAL)]


def test_an_unknown_part_of_a_message_is_kept() -> None:
    """A later version of the API may add pictures."""
    picture = {"type": "output_picture", "data": "QQ=="}
    deltas, _ = decoded(done(message("a", picture)), ended("completed", message("a", picture)))
    assert deltas[0] == Delta("a")
    assert others(deltas) == [{"output": [{"index": 0, "type": "message", "content": [picture]}]}]


def test_log_probabilities_are_added_up() -> None:
    """They come with the pieces, or with the complete text."""
    tokens = [{"token": "a", "logprob": -0.1}, {"token": "b", "logprob": -0.2}]
    pieces = [sent("output_text.delta", **at(), delta=each["token"], logprobs=[each]) for each in tokens]
    part = {"type": "output_text", "text": "ab", "logprobs": tokens}
    for frames in (
        [*pieces, done(message(part))],
        [done(message(part))],
        [sent("output_text.done", **at(), text="ab", logprobs=tokens)],
    ):
        reply = reply_of(*frames, ended("completed", message(part)))
        assert (reply.text(), reply.logprobs) == ("ab", {0: {"content": tokens}})


def test_the_phase_of_a_message_is_kept() -> None:
    """The API wants it back."""
    deltas, reply = decoded(
        added(message(phase="commentary")), text("a"), done(message("a", phase="commentary"))
    )
    assert others(deltas) == [{"phase": "commentary"}]
    assert reply.message().additional_kwargs == {"phase": "commentary"}


# -- citations -------------------------------------------------------------------------------------------------


def test_citations_have_the_shape_of_chat_completions() -> None:
    """They come one by one, and again in the complete part."""
    files = [{"type": "file_citation", "index": 4, "file_id": id, "filename": "a.txt"} for id in ("f1", "f2")]
    part: dict[str, Any] = {"type": "output_text", "text": "Hi", "annotations": [CITED, *files]}
    one = [sent("output_text.annotation.added", **at(), annotation=each) for each in part["annotations"]]
    expected = [
        {"type": each["type"], each["type"]: {key: each[key] for key in each if key != "type"}}
        for each in part["annotations"]
    ]
    for frames in (
        [text("Hi"), *one, done(message(part))],
        [text("Hi"), one[0], done(message(part))],
        [done(message(part))],
    ):
        deltas, reply = decoded(*frames, ended("completed", message(part)))
        assert [value_of(delta.text) for delta in deltas if delta.kind == CITATION] == expected
        assert reply.message().additional_kwargs["annotations"] == expected


# -- reasoning -------------------------------------------------------------------------------------------------


def thought(*texts: str, index: int = 0, **fields: Any) -> dict[str, Any]:
    """Return a reasoning item whose summary has these texts."""
    summary = [{"type": "summary_text", "text": each} for each in texts]
    return {"type": "reasoning", "id": f"item_{index}", "summary": summary, **fields}


def piece(delta: str, part: int = 0, index: int = 0) -> bytes:
    """Return a piece of a summary."""
    return sent(
        "reasoning_summary_text.delta",
        output_index=index,
        summary_index=part,
        item_id=f"item_{index}",
        delta=delta,
    )


def test_a_blank_line_stands_between_the_parts_of_reasoning() -> None:
    """Also between two items, and in any event."""
    items = thought("ab", "c"), thought("d", index=1)
    deltas, _ = decoded(
        piece("a"), piece("b"), piece("c", 1), done(items[0]), piece("d", 0, 1), ended("completed", *items)
    )
    assert [delta.text for delta in deltas if delta.kind == REASONING] == ["a", "b", "\n\n", "c", "\n\n", "d"]
    assert reply_of(ended("completed", *items)).text(kind=REASONING) == "ab\n\nc\n\nd"
    part = sent(
        "reasoning_summary_part.done",
        output_index=0,
        summary_index=0,
        part={"type": "summary_text", "text": "ab"},
    )
    assert reply_of(part, part, ended("completed", *items)).text(kind=REASONING) == "ab\n\nc\n\nd"


def test_reasoning_that_is_not_summarized_is_reasoning_too() -> None:
    """DeepSeek and open models send it."""
    item = {
        "type": "reasoning",
        "id": "item_0",
        "content": [{"type": "reasoning_text", "text": "Hm."}],
        "summary": [],
    }
    frames = [
        sent("reasoning_text.delta", **at(), delta="Hm"),
        sent("reasoning_text.done", **at(), text="Hm."),
    ]
    frames += [sent("content_part.done", **at(), part=item["content"][0]), done(item)]
    assert decoded(*frames, ended("completed", item))[0] == [Delta("Hm", REASONING), Delta(".", REASONING)]


def test_the_encrypted_content_of_reasoning_is_its_signature() -> None:
    """Each event has it encrypted anew; the one of the complete item counts."""
    versions = [thought("Hm.", encrypted_content=each) for each in ("a", "b", "c")]
    deltas, _ = decoded(added(versions[0]), done(versions[1]), ended("completed", versions[2]))
    assert deltas == [Delta("Hm.", REASONING), Delta("b", SIGNATURE)]
    assert decoded(ended("completed", versions[2]))[0][1:] == [Delta("c", SIGNATURE)]


# -- calls -----------------------------------------------------------------------------------------------------


def arguments(*pieces: str, index: int = 0, kind: str = "function_call_arguments") -> bytes:
    """Return the events with pieces of arguments."""
    return b"".join(
        sent(f"{kind}.delta", output_index=index, item_id=f"item_{index}", delta=each) for each in pieces
    )


def test_the_arguments_of_calls_come_in_pieces() -> None:
    """The id of a call is its `call_id`; its number is the number of its item."""
    first, second = function_call('{"a":1}', index=1), function_call("{}", index=2, namespace="n")
    frames = [
        added(function_call(index=1), 1),
        arguments('{"a":', index=1),
        added({**second, "arguments": ""}, 2),
    ]
    frames += [arguments("{}", index=2), arguments("1}", index=1), done(first, 1), done(second, 2)]
    deltas, reply = decoded(text("Hi"), *frames, ended("completed", message("Hi"), first, second))
    assert [delta for delta in deltas if delta.kind == TOOL_ARGS] == [
        Delta('{"a":', TOOL_ARGS, "0.1"), Delta("{}", TOOL_ARGS, "0.2"), Delta("1}", TOOL_ARGS, "0.1"),
    ]  # fmt: skip
    assert [value_of(delta.text) for delta in deltas if delta.kind == TOOL_CALL] == [
        {"id": "call_1", "name": "find"}, {"id": "call_2", "name": "find", "namespace": "n"},
    ]  # fmt: skip
    assert [call["args"] for call in reply.message().tool_calls] == [{"a": 1}, {}]
    assert reply.finish_reasons == {0: "tool_calls"}


CALL_EVENTS = {
    "added": added(function_call()),
    "pieces": arguments('{"a":', "1}"),
    "arguments": sent("function_call_arguments.done", output_index=0, item_id="item_0", arguments='{"a":1}'),
    "item": done(function_call('{"a":1}')),
}


@pytest.mark.parametrize(
    "names", [names for n in range(5) for names in permutations(CALL_EVENTS, n)], ids="-".join
)
def test_a_call_is_read_from_any_of_its_events(names: tuple[str, ...]) -> None:
    """Proxies drop events; even their order does not matter."""
    frames = [
        CALL_EVENTS[name]
        for name in names
        if not (name == "pieces" and {"arguments", "item"} & {*names[: names.index(name)]})
    ]
    reply = reply_of(*frames, ended("completed", function_call('{"a":1}')))
    assert reply.tool_calls() == [{"id": "call_0", "name": "find", "arguments": '{"a":1}'}]


def test_the_input_of_a_custom_tool_is_plain_text() -> None:
    """LangChain has it under `__arg1`."""
    item = {
        "type": "custom_tool_call",
        "id": "item_0",
        "call_id": "call_0",
        "name": "run",
        "input": "print(1)",
    }
    frames = [
        added({**item, "input": ""}),
        arguments("print", "(1)", kind="custom_tool_call_input"),
        done(item),
    ]
    deltas, reply = decoded(*frames, ended("completed", item))
    assert [delta.text for delta in deltas if delta.kind == TOOL_ARGS] == ["print", "(1)"]
    call = {"name": "run", "args": {"__arg1": "print(1)"}, "id": "call_0", "type": "tool_call"}
    assert reply.message().tool_calls == [{**call, "extras": {"type": "custom_tool_call"}}]
    assert (reply.message().invalid_tool_calls, reply.finish_reasons) == ([], {0: "tool_calls"})


def test_a_call_of_mcp_has_its_output_and_ends_nothing() -> None:
    """The server executes it."""
    item = {
        "type": "mcp_call",
        "id": "item_0",
        "name": "find",
        "server_label": "docs",
        "arguments": '{"a":1}',
        "output": "found",
    }
    frames = [
        added({**item, "arguments": "", "output": None}),
        arguments('{"a":1}', kind="mcp_call_arguments"),
        done(item),
    ]
    reply = reply_of(*frames, ended("completed", item, message("Hi", index=1)))
    extras = {"type": "mcp_call", "server_label": "docs", "output": "found"}
    assert reply.tool_calls() == [{"id": "item_0", "name": "find", "arguments": '{"a":1}', "extras": extras}]
    assert (reply.text(), reply.finish_reasons) == ("Hi", {0: "stop"})


def test_a_tool_of_the_client_is_called() -> None:
    """A computer, a shell, a patch; the whole action is the arguments."""
    item = {
        "type": "computer_call",
        "id": "item_0",
        "call_id": "call_0",
        "action": {"type": "click", "x": 1},
        "status": "completed",
    }
    reply = reply_of(added({**item, "action": {}}), done(item), ended("completed", item))
    expected = {
        "id": "call_0",
        "name": "computer",
        "arguments": '{"type":"click","x":1}',
        "extras": {"type": "computer_call"},
    }
    assert (reply.tool_calls(), reply.finish_reasons) == ([expected], {0: "tool_calls"})


def test_a_shell_that_the_server_ran_is_no_call_for_the_client() -> None:
    """Its output is in the response."""
    call = {"type": "shell_call", "id": "a", "call_id": "call_0", "action": {"commands": ["ls"]}}
    output = {"type": "shell_call_output", "id": "b", "call_id": "call_0", "output": []}
    assert reply_of(done(call), done(output, 1), ended("completed", call, output)).finish_reasons == {
        0: "stop"
    }
    assert reply_of(done(call), ended("completed", call)).finish_reasons == {0: "tool_calls"}


# -- other items -----------------------------------------------------------------------------------------------


def test_a_search_is_kept_once_when_it_is_complete() -> None:
    """Nothing else in the stream holds its queries."""
    item = {"type": "web_search_call", "id": "ws", "status": "completed", "action": {"query": "x"}}
    frames = [
        added({**item, "status": "in_progress", "action": None}),
        sent("web_search_call.searching", output_index=0, item_id="ws"),
    ]
    deltas, reply = decoded(*frames, done(item), done(item), ended("completed", item))
    assert others(deltas) == [{"output": [{**item, "index": 0}]}]
    assert (reply.message().additional_kwargs, reply.finish_reasons) == (
        {"output": [{**item, "index": 0}]},
        {0: "stop"},
    )


def test_the_code_of_a_code_interpreter_comes_in_pieces_that_add_up() -> None:
    """The complete item adds only the rest."""
    item = {
        "type": "code_interpreter_call",
        "id": "item_0",
        "code": "print(1)",
        "outputs": [{"type": "logs", "logs": "1"}],
    }
    pieces = [
        sent("code_interpreter_call_code.delta", output_index=0, item_id="item_0", delta=each)
        for each in ("print", "(1)")
    ]
    complete = sent("code_interpreter_call_code.done", output_index=0, item_id="item_0", code="print(1)")
    start = added({**item, "code": "", "outputs": None})
    for frames in (
        [start, *pieces, complete, done(item)],
        [start, complete, done(item)],
        [start, done(item)],
        [*pieces],
    ):
        reply = reply_of(*frames, ended("completed", item))
        assert reply.message().additional_kwargs == {"output": [{**item, "index": 0}]}


def test_an_item_without_fields_is_skipped() -> None:
    """The SDK skips it, too."""
    assert decoded(added(None), text("a", index=1), ended("completed", message("a", index=1)))[0] == [
        Delta("a")
    ]
