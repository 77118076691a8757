"""Model calls are told from other requests by path and body, and their messages are read."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from recorder.instrumentation import model_calls
from recorder.instrumentation.model_calls import ModelCall, endpoint_of, is_large, model_call_of

CHAT = "https://api.openai.com/v1/chat/completions"
MESSAGES = "https://api.anthropic.com/v1/messages"
GEMINI = "https://generativelanguage.googleapis.com/v1beta"
CONTENTS: Any = [{"role": "user", "parts": [{"text": "Hi"}]}]
HI: Any = [{"role": "user", "content": "Hi"}]


def call_of(url: str, body: Any, method: str = "POST") -> ModelCall | None:
    """Return the model call of a request with this JSON body."""
    request = httpx2.Request(method, url, json=body)
    endpoint = endpoint_of(request)
    return model_call_of(request, endpoint) if endpoint is not None else None


@pytest.mark.parametrize(
    ("url", "body", "wire"),
    [
        (CHAT, {"model": "m", "messages": HI}, "openai.chat"),
        ("http://h/openai/deployments/d/chat/completions?api-version=1", {"messages": HI}, "openai.chat"),
        ("http://h/v1/completions", {"model": "m", "prompt": "Hi"}, "openai.completions"),
        ("http://h/v1/fim/completions", {"model": "m", "prompt": "Hi"}, "openai.chat"),
        ("http://h/v1/agents/completions", {"agent_id": "a", "messages": HI}, "openai.chat"),
        ("http://h/v1/responses", {"model": "m", "input": "Hi"}, "openai.responses"),
        (f"{MESSAGES}?beta=true", {"model": "m", "messages": HI}, "anthropic.messages"),
        (f"{GEMINI}/models/m:generateContent", {"contents": CONTENTS}, "gemini.generate_content"),
        (
            f"{GEMINI}/models/m:streamGenerateContent?alt=sse",
            {"contents": CONTENTS},
            "gemini.generate_content",
        ),
        ("http://h/api/chat", {"model": "m", "messages": HI}, "ollama.chat"),
        ("http://h/api/generate", {"model": "m", "prompt": "Hi"}, "ollama.generate"),
    ],
)
def test_a_model_call_is_recognised(url: str, body: Any, wire: str) -> None:
    """By the end of the path, a model and an input."""
    call = call_of(url, body)
    assert call is not None
    assert (call.endpoint.wire, [message.text for message in call.messages]) == (wire, ["Hi"])


@pytest.mark.parametrize(
    ("url", "body", "method"),
    [
        (CHAT, {"model": "m"}, "POST"),
        (CHAT, {"messages": HI}, "POST"),
        (CHAT, {"model": 3, "messages": HI}, "POST"),
        (CHAT, {"model": "m", "messages": 3}, "POST"),
        (CHAT, ["model", "messages"], "POST"),
        (CHAT, {"model": "m", "messages": HI}, "PUT"),
        ("https://api.openai.com/v1/embeddings", {"model": "m", "input": "Hi"}, "POST"),
        ("https://api.openai.com/v1/threads/t/messages", {"role": "user", "content": "Hi"}, "POST"),
        ("https://api.openai.com/v1/responses/resp_1/cancel", {"model": "m", "input": "Hi"}, "POST"),
        ("https://api.openai.com/v1/responses/resp_1", None, "GET"),
        (f"{MESSAGES}/count_tokens", {"model": "m", "messages": HI}, "POST"),
        (f"{GEMINI}/models/m:countTokens", {"contents": CONTENTS}, "POST"),
        (f"{GEMINI}/models/m:generateContent", {"contents": "Hi"}, "POST"),
        (f"{GEMINI}/files/m:generateContent", {"model": "m", "contents": CONTENTS}, "POST"),
        (f"{GEMINI}/models/m:generateContent", {"contents": CONTENTS}, "GET"),
        ("http://h/api/chat", {"model": "m", "messages": HI, "sessionId": 1}, "POST"),
        ("http://h/api/chat", {"messages": HI}, "POST"),
        ("http://h/api/generate", {"model": "m"}, "POST"),
    ],
)
def test_another_request_is_none(url: str, body: Any, method: str) -> None:
    """Strangers' services may have the same path."""
    assert call_of(url, body, method) is None


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/models/gemini-2.5-flash", "gemini-2.5-flash"),
        ("/tunedModels/mine-7", "tunedModels/mine-7"),
        ("/projects/p/locations/l/publishers/google/models/gemini-2.5-flash", "gemini-2.5-flash"),
        ("/projects/p/locations/l/endpoints/12", "endpoints/12"),
        ("/models/proxy/v1/models/m", "m"),
    ],
)
def test_the_path_names_geminis_model_and_whether_it_streams(path: str, model: str) -> None:
    """The requests of two models are two requests; a stream and a body are the same one."""
    plain = call_of(f"{GEMINI}{path}:generateContent", {"contents": CONTENTS})
    streamed = call_of(f"{GEMINI}{path}:streamGenerateContent", {"contents": CONTENTS})
    other = call_of(f"{GEMINI}{path}x:generateContent", {"contents": CONTENTS})
    assert plain is not None
    assert streamed is not None
    assert other is not None
    assert (plain.body["model"], plain.stream, streamed.stream) == (model, False, True)
    assert plain.input_hash == streamed.input_hash != other.input_hash


@pytest.mark.parametrize(
    ("stream", "expected"), [({}, True), ({"stream": True}, True), ({"stream": False}, False)]
)
def test_ollama_streams_unless_it_must_not(stream: dict[str, Any], expected: bool) -> None:
    """Other services stream when they are asked to."""
    ollama = call_of("http://h/api/chat", {"model": "m", "messages": HI, **stream})
    openai = call_of(CHAT, {"model": "m", "messages": HI, **stream})
    assert ollama is not None
    assert openai is not None
    assert (ollama.stream, openai.stream) == (expected, bool(stream.get("stream")))


def test_a_body_that_is_no_json_or_a_stream_is_none() -> None:
    """Uploads are sent as streams."""
    for content in (b"no JSON", b"", iter([b"{}"])):
        request = httpx2.Request("POST", CHAT, content=content)
        endpoint = endpoint_of(request)
        assert endpoint is not None
        assert model_call_of(request, endpoint) is None


def test_anthropics_system_field_is_the_first_message() -> None:
    """As a text, or as blocks."""
    for system in ("Be brief.", [{"type": "text", "text": "Be brief."}]):
        call = call_of(MESSAGES, {"model": "m", "system": system, "messages": HI})
        assert call is not None
        assert [(message.role, message.text) for message in call.messages] == [
            ("system", "Be brief."),
            ("user", "Hi"),
        ]


def test_prompts_are_texts_or_numbers() -> None:
    """One, or several."""
    for prompt, expected in (("Hi", ["Hi"]), (["a", "b"], ["a", "b"]), ([1, 2], ["[1, 2]"])):
        call = call_of("http://h/v1/completions", {"model": "m", "prompt": prompt})
        assert call is not None
        assert [message.text for message in call.messages] == expected


def test_a_message_that_cannot_be_read_is_recorded_as_text() -> None:
    """The provider decides whether it is an error."""
    call = call_of(CHAT, {"model": "m", "messages": [{"role": "user", "content": 5}, "Hi"]})
    assert call is not None
    assert "5" in call.messages[0].text


def test_a_huge_body_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is recorded without messages; the size says why."""
    monkeypatch.setattr(model_calls, "MAX_BODY", 10)
    call = call_of(CHAT, {"model": "m", "messages": HI})
    assert call is not None
    assert (call.body, call.messages) == ({}, [])
    assert call.size > 10
    call = call_of(f"{GEMINI}/models/m:generateContent", {"contents": CONTENTS})
    assert call is not None
    assert (call.body, call.messages) == ({"model": "m"}, [])


def test_a_large_body_is_not_read_on_an_event_loop() -> None:
    """An image of some megabytes takes milliseconds."""
    assert not is_large(httpx2.Request("POST", CHAT, json={"messages": HI}))
    assert is_large(httpx2.Request("POST", CHAT, content=bytes(model_calls.LARGE_BODY + 1)))
