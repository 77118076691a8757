"""An error inside of a stream is recognized in every place and form in which providers send it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anthropic
import openai
import orjson
import pytest

from recorder.callbacks import BaseCallbackHandler
from recorder.models import OpenAI
from recorder.testing import Answer, LoopbackProvider, anthropic_messages_frames
from recorder.wire.anthropic.stream import AnthropicMessages
from recorder.wire.errors import error_of, error_text
from recorder.wire.openai.completions import OpenAICompletions
from recorder.wire.openai.responses import OpenAIResponses
from tests.alike import assert_alike, claude, forms_of
from tests.alike import openai as chat
from tests.chatting import CALL_STYLES, ON_LOOP, PLAIN, CallStyle, history_at, name_of, recorded
from tests.wires import DONE, delta, event, translated

both = pytest.mark.parametrize("style", CALL_STYLES, ids=name_of)

WHY = "the context is full"
HELLO = delta(role="assistant", content="Hel")
_AS_A_CHOICE = {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}

#: Events, or other bytes, with which providers report an error.
STATED: dict[str, bytes] = {
    "beside the choices": event({"choices": [_AS_A_CHOICE], "error": {"code": 502, "message": WHY}}),
    "in a choice": event({"choices": [{**_AS_A_CHOICE, "error": {"code": 502, "message": WHY}}]}),
    "in a choice, as text": event({"choices": [{**_AS_A_CHOICE, "error": WHY}]}),
    "in a delta": delta(error={"message": WHY}),
    "in place of the choices": event({"error": {"message": WHY}}),
    "as text": event({"error": WHY}),
    "in a list": event({"errors": [{"message": WHY}]}),
    "by keys of its own": event({"choices": None, "error_type": "BadRequestError", "error_message": WHY}),
    "by keys of its own, in camel case": event({"errorMessage": WHY, "errorCode": 7}),
    "as an object error": event({"object": "error", "message": WHY, "type": "BadRequestError", "code": 400}),
    "as Anthropic's": b"event: error\n" + event({"type": "error", "error": {"type": "x", "message": WHY}}),
    "as that of Responses": event({"type": "error", "code": "x", "message": WHY, "param": None}),
    "as a failed response": event({"type": "response.failed", "response": {"error": {"message": WHY}}}),
    "as a detail": event({"detail": WHY}),
    "as a list of details": event({"detail": [{"loc": ["body"], "msg": WHY}]}),
    "with a code": event({"code": "InvalidParameter", "message": WHY, "request_id": "1"}),
    "with a status": event({"status": 503, "message": WHY}),
    "as MiniMax": event({"choices": None, "base_resp": {"status_code": 1008, "status_msg": WHY}}),
    "as AWS, by its type": event({"__type": "ThrottlingException", "message": WHY}),
    "as AWS, by its name": event({"internalServerException": {"message": WHY}}),
    "as Google, in a list": event([{"error": {"code": 429, "message": WHY, "status": "RESOURCE_EXHAUSTED"}}]),
    "in a field of its own": b'error: {"code":500,"message":"%b","type":"server_error"}\n\n' % WHY.encode(),
    "in a field of its own, as text": b"error: %b\n\n" % WHY.encode(),
    "as an event named error": b"event: error\ndata: %b\n\n" % WHY.encode(),
    "without framing": b'{"error":{"message":"%b"}}' % WHY.encode(),
}


@pytest.mark.parametrize("error", STATED.values(), ids=STATED)
@pytest.mark.parametrize("begun", [b"", HELLO], ids=["at once", "in the middle"])
@pytest.mark.parametrize("tail", [b"", DONE], ids=["cut", "with an end"])
def test_an_error_is_recognized_in_every_form(
    error: bytes, begun: bytes, tail: bytes, tmp_path: Path
) -> None:
    """The SDK's error has the provider's message, and the partial answer is stored."""
    style = ON_LOOP if tail else PLAIN
    end = b"\n\n" if error.startswith(b"{") and tail else b""
    found = forms_of(chat, begun + error + end + tail, style, tmp_path)
    assert isinstance(found.error, openai.APIError)
    assert (found.run["status"], found.run["error_message"], str(found.error)) == ("error", WHY, WHY)
    assert (found.message and found.message.text) == ("Hel" if begun else None)
    assert "undecodable" not in str(found.tokens)
    if begun:
        assert_alike(found)


_MESSAGE = anthropic_messages_frames(["Hello"])
_BEGUN = b"".join(_MESSAGE[:4])
#: The forms that a provider with Anthropic's format can send.
_FOR_ANTHROPIC = {
    name: error
    for name, error in STATED.items()
    if "choice" not in name or name == "in place of the choices"
    if name not in ("in a delta", "as MiniMax", "by keys of its own")
}


@pytest.mark.parametrize("error", _FOR_ANTHROPIC.values(), ids=_FOR_ANTHROPIC)
def test_an_error_in_an_anthropic_stream_is_recognized_in_every_form(error: bytes, tmp_path: Path) -> None:
    """A proxy with Anthropic's format may send errors in another form."""
    found = forms_of(claude, _BEGUN + error, PLAIN, tmp_path)
    assert isinstance(found.error, anthropic.APIStatusError)
    assert (found.run["status"], WHY in found.run["error_message"]) == ("error", True)
    assert found.message is not None
    assert (found.message.content, found.message.additional_kwargs) == ("Hello", {})
    assert_alike(found)


@pytest.mark.parametrize("make", [OpenAICompletions, OpenAIResponses, AnthropicMessages])
@pytest.mark.parametrize("error", [STATED["in a field of its own"], STATED["as an object error"]])
def test_errors_are_recognized_in_the_other_formats(make: Any, error: bytes) -> None:
    """The reply has the error, and there is no delta."""
    deltas, reply = translated([error], make)
    assert (deltas, error_text(reply.error)) == ([], WHY)


def test_text_in_the_event_of_an_error_is_kept(tmp_path: Path) -> None:
    """It is yielded before the error is raised, and stored."""
    last = {"index": 0, "delta": {"content": "lo"}, "finish_reason": "error"}
    body = HELLO + event({"choices": [last], "error": {"message": WHY}})
    for style in CALL_STYLES:
        found = forms_of(chat, body, style, tmp_path)
        assert (found.live.text, found.run["finish_reason"]) == ("Hello", "error")
        assert_alike(found)


@pytest.mark.parametrize(
    "fine",
    [
        {"choices": [], "code": 200, "message": "ok"},
        {"choices": [], "status": "processing", "message": "thinking"},
        {"choices": [], "base_resp": {"status_code": 0, "status_msg": ""}},
        {"choices": [], "error": None, "error_message": "", "error_type": None, "errors": []},
        {"choices": [{"delta": {}}], "detail": "x", "type": "chat.completion.chunk"},
        {"type": "ping"},
    ],
    ids=str,
)
def test_progress_and_empty_errors_are_no_errors(fine: dict[str, Any]) -> None:
    """Servers send codes, messages and empty error fields in normal events."""
    assert error_of(fine) is None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (WHY, WHY),
        ({"message": WHY}, WHY),
        ({"message": {"error": {"msg": WHY}}}, WHY),
        ({"message": {"why": 1}}, '{"why":1}'),
        ([{"detail": WHY}], WHY),
        ({"code": 7}, ""),
        (7, ""),
        ({"message": "x" * 9_000}, "x" * 2_000),
    ],
)
def test_the_text_of_an_error_is_found_in_every_form(error: Any, expected: str) -> None:
    """It is empty if the error has no readable text."""
    assert error_text(error) == expected


@both
def test_an_error_in_a_complete_response_is_recognized(style: CallStyle, tmp_path: Path) -> None:
    """The response has HTTP status 200."""
    for body in (
        {"choices": None, "error_type": "x", "error_message": WHY},
        {"choices": [{"message": {"content": ""}, "finish_reason": "error", "error": {"message": WHY}}]},
    ):
        answer = Answer(body=orjson.dumps(body), headers={"content-type": "application/json"})
        (tmp_path / str(len(list(tmp_path.iterdir())))).mkdir()
        folder = max(tmp_path.iterdir())
        with (
            LoopbackProvider(answer) as provider,
            history_at(folder) as history,
            pytest.raises(openai.APIError, match=WHY),
        ):
            style.invoke(chat(provider, callbacks=[history]), "Hi")
        run = recorded(f"sqlite:///{folder / 'history.db'}").run
        assert (run["status"], run["error_message"]) == ("error", WHY)


@both
def test_an_error_in_a_completion_stream_is_raised(style: CallStyle) -> None:
    """Handlers of the legacy model receive it, too."""

    class ErrorHandler(BaseCallbackHandler):
        errors: list[str] = []  # noqa: RUF012

        def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
            self.errors.append(str(error))

    body = event({"choices": [{"index": 0, "text": "Hel", "error": {"message": WHY}}]})
    handler = ErrorHandler()
    with LoopbackProvider(Answer(frames=[body])) as provider:
        model = OpenAI("m", base_url=provider.base_url, api_key="any", max_retries=0, callbacks=[handler])
        with pytest.raises(openai.APIError, match=WHY):
            style.stream(model, "Hi")
    assert handler.errors[-1:] == [WHY]
