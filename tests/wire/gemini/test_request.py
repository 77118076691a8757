"""The messages of a request to Gemini: what a client sends back means the same as the recorded reply."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from recorder.messages.identity import content_key
from recorder.wire.gemini.request import gemini_messages, is_gemini_request
from tests.wire.gemini.frames import CALL, EVENTS, event, reply_of, text, thought
from tests.wires import ODD_VALUES, unhurried


def contents(*items: Any, **fields: Any) -> list[BaseMessage]:
    """Return the messages of a request with these contents."""
    return gemini_messages({"contents": list(items), **fields})


def user(*parts: Any) -> dict[str, Any]:
    """Return a content of the user."""
    return {"role": "user", "parts": list(parts)}


def model(*parts: Any) -> dict[str, Any]:
    """Return a content of the model."""
    return {"role": "model", "parts": list(parts)}


# -- what comes back ---------------------------------------------------------------------------------------------

CHUNKS = [each["candidates"][0]["content"] for each in EVENTS]
_PARTS = [part for chunk in CHUNKS for part in chunk["parts"]]
_TEXT = "".join(part["text"] for part in _PARTS if "text" in part and not part.get("thought"))
_OTHER_ID = {**CALL, "id": "made-by-the-client"}
#: How clients send back the reply to the scripted stream.
WAYS: dict[str, list[Any]] = {
    "a content for each event (chats of google-genai)": CHUNKS,
    "all parts in one content": [model(*_PARTS)],
    "one text without reasoning": [model(text(_TEXT), {"functionCall": CALL})],
    "the call before the text": [model({"functionCall": CALL}, text(_TEXT))],
    "without the id of the call": [model(text(_TEXT), {"functionCall": {"name": CALL["name"], "args": CALL["args"]}})],
    "with an id of the client's own": [model(text(_TEXT), {"functionCall": _OTHER_ID})],
    "arguments in another order": [
        model(text(_TEXT), {"functionCall": {"args": {"days": 2, "city": "Paris"}, "name": "get_weather"}})
    ],
    "names of the protocol": [model(text(_TEXT), {"function_call": CALL, "thought_signature": "eA=="})],
    "with trailing spaces": [model({"functionCall": CALL}, text(f"{_TEXT} \n"))],
}  # fmt: skip


@pytest.mark.parametrize("sent", WAYS.values(), ids=WAYS)
def test_a_reply_that_comes_back_is_the_recorded_one(sent: list[Any]) -> None:
    """So a conversation is not stored twice."""
    question, reply, result = contents(
        user(text("Hi")), *sent, user({"functionResponse": {"name": "get_weather"}})
    )
    assert content_key(reply) == content_key(reply_of(*EVENTS).message())
    assert (question.role, result.role) == ("user", "tool")


@pytest.mark.parametrize(
    "part",
    [
        {"executableCode": {"code": "1+1"}},
        {"codeExecutionResult": {"output": "2"}},
        {"inlineData": {"mimeType": "image/png", "data": "a+b="}},
        {"fileData": {"fileUri": "gs://a"}},
        {"functionCall": {"name": "now", "args": {}}},
        {"functionCall": {"name": "now"}},
        {"functionCall": {"partialArgs": [{"jsonPath": "$.a"}]}},
        {"text": "", "thoughtSignature": "c2ln"},
        {"somethingNew": {"a": 1}},
    ],
    ids=lambda part: next(iter(part)),
)
def test_every_part_of_a_reply_comes_back_as_the_same_message(part: dict[str, Any]) -> None:
    """Images and code that the model made, also where the client writes them in another form."""
    reply = reply_of(event(thought("?"), text("Look:"), part), event(text(" done"), finish="STOP")).message()
    [found] = contents(model(text("Look:"), part, text(" done")))
    assert content_key(found) == content_key(reply)


@given(
    st.lists(st.lists(st.sampled_from([*_PARTS, {"executableCode": {"code": "1"}}]), max_size=3), max_size=6)
)
@unhurried
def test_any_reply_that_comes_back_is_the_recorded_one(events: list[list[Any]]) -> None:
    """However its parts are spread over events, and over contents."""
    key = content_key(reply_of(*(event(*parts) for parts in events)).message())
    sent = [model(*parts) for parts in events]
    joined = model(*(part for parts in events for part in parts))
    for found in (contents(*sent), contents(joined)) if events else ():
        assert [content_key(message) for message in found] == [key]


# -- what the user sends -----------------------------------------------------------------------------------------


def test_roles_and_instructions() -> None:
    """The instructions are the first message."""
    instructions = {"parts": [text("Be brief.")], "role": "user"}
    found = contents(
        user(text("Hi")), model(text("Hello")), user(text("Bye")), systemInstruction=instructions
    )
    assert found == [SystemMessage("Be brief."), HumanMessage("Hi"), AIMessage("Hello"), HumanMessage("Bye")]


@pytest.mark.parametrize(
    "body",
    [
        {"system_instruction": {"parts": {"text": "Be brief."}}, "contents": {"parts": {"text": "Hi"}}},
        {"systemInstruction": "Be brief.", "contents": ["Hi"]},
        {"systemInstruction": [{"text": "Be brief."}], "contents": [{"parts": ["Hi"]}]},
    ],
)
def test_forms_that_the_api_and_clients_accept(body: Any) -> None:
    """Single objects in place of lists, names with underscores, plain texts."""
    assert gemini_messages(body) == [SystemMessage("Be brief."), HumanMessage("Hi")]


def test_images_and_files_are_blocks() -> None:
    """A block has the type of its file; the texts are the message's text."""
    [message] = contents(
        user(
            text("What is this?"),
            {"inline_data": {"mime_type": "image/png", "data": "aGk="}, "mediaResolution": "LOW"},
            {"fileData": {"mimeType": "application/pdf", "fileUri": "https://example.com/a"}},
            {"videoMetadata": {}, "fileData": {"mimeType": "video/mp4", "fileUri": "gs://a/b"}},
        )
    )
    assert message.text == "What is this?"
    assert message.content[1:] == [
        {"type": "image", "mime_type": "image/png", "base64": "aGk=", "mediaResolution": "LOW"},
        {"type": "file", "mime_type": "application/pdf", "url": "https://example.com/a"},
        {"type": "video", "mime_type": "video/mp4", "url": "gs://a/b", "videoMetadata": {}},
    ]


def test_another_image_is_another_message() -> None:
    """The same question with the same image is the same one."""
    first, second, again = (
        content_key(contents(user(text("?"), {"inlineData": {"mimeType": "image/png", "data": data}}))[0])
        for data in ("aGk=", "aG8=", "aGk=")
    )
    assert (first == again, first == second) == (True, False)


RESULTS: dict[str, tuple[Any, ToolMessage]] = {
    "a text": ({"result": "sunny"}, ToolMessage("sunny", name="f")),
    "an object": ({"sky": "blue", "wind": 3}, ToolMessage('{"sky":"blue","wind":3}', name="f")),
    "a result that is no text": ({"result": 7}, ToolMessage('{"result":7}', name="f")),
    "an error": ({"error": "unknown city"}, ToolMessage("unknown city", name="f", status="error")),
    "nothing": (None, ToolMessage("", name="f")),
}


@pytest.mark.parametrize(("response", "message"), RESULTS.values(), ids=RESULTS)
def test_a_result_of_a_function_is_a_message_of_a_tool(response: Any, message: ToolMessage) -> None:
    """In the role of the user, or in an older one."""
    part = {"functionResponse": {"name": "f", "response": response}}
    for role in ("user", "function", "tool"):
        assert contents({"role": role, "parts": [part]}) == [message]


def test_several_results_are_several_messages_before_the_rest() -> None:
    """A result may have an id and files."""
    files = [{"inlineData": {"mimeType": "image/png", "data": "aGk="}}]
    results = [
        {"functionResponse": {"id": "1", "name": "a", "response": {"output": "A"}, "parts": files}},
        {"function_response": {"id": "2", "name": "b", "response": {"output": "B"}, "scheduling": "SILENT"}},
    ]
    image = {"type": "image", "mime_type": "image/png", "base64": "aGk="}
    assert contents(user(*results, text("And now?"))) == [
        ToolMessage([{"type": "text", "text": "A"}, image], "1", name="a"),
        ToolMessage("B", "2", name="b", additional_kwargs={"scheduling": "SILENT"}),
        HumanMessage("And now?"),
    ]


ODD: list[Any] = [*ODD_VALUES, [{"parts": 7}], {"parts": [7, "a"]}]


@pytest.mark.parametrize("key", ["contents", "systemInstruction"])
def test_wrong_types_in_a_request_never_raise(key: str) -> None:
    """The provider decides whether it is an error; each message has an identity."""
    for value in ODD:
        for body in ({key: value}, {key: [value]}, {key: [{"role": value, "parts": value}]}):
            assert all(content_key(message) for message in gemini_messages(body))


@pytest.mark.parametrize("role", ["user", "model", "other"])
@pytest.mark.parametrize(
    "key", ["text", "inlineData", "fileData", "functionCall", "functionResponse", "thought", "x"]
)
def test_wrong_types_in_a_part_never_raise(key: str, role: str) -> None:
    """Its content is kept."""
    inside = [{"name": value, "response": value, "parts": value, "mimeType": value} for value in ODD]
    for value in [*ODD, *inside]:
        for message in contents({"role": role, "parts": [{key: value}]}):
            content_key(message)


def test_only_contents_with_parts_are_a_request_of_gemini() -> None:
    """Other services may have the same path."""
    assert is_gemini_request({"contents": [user(text("Hi"))]})
    assert is_gemini_request({"contents": {"parts": {"text": "Hi"}}})
    for wrong in (None, [], "Hi", [{"role": "user"}], ["Hi"]):
        assert not is_gemini_request({"contents": wrong})
