"""Calls of Gemini and Ollama over real sockets are recorded, with the requests that their SDKs send."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import httpx
import httpx2
import pytest

from recorder import ChatHistoryCallback, attach
from recorder.callbacks import BaseCallbackHandler
from recorder.replay import Replay
from recorder.testing import Answer, LoopbackProvider, scripted
from tests.instrumentation.gemini_and_ollama import (
    content_type,
    gemini_array,
    gemini_body,
    gemini_frames,
    ollama_body,
    ollama_lines,
)
from tests.oracle import new_url, sql

#: Paths as the SDKs ask for them.
MODEL = "/v1beta/models/gemini-2.5-flash"
SSE, ARRAY, WHOLE = (
    f"{MODEL}:streamGenerateContent?alt=sse",
    f"{MODEL}:streamGenerateContent",
    f"{MODEL}:generateContent",
)
CHAT, GENERATE = "/api/chat", "/api/generate"
PIECES = ("Hello", " thére", "!")
KEY = "AIza-canary-1234567890"


def gemini(*contents: Any, **fields: Any) -> dict[str, Any]:
    """Return a body as google-genai sends it."""
    return {
        "contents": list(contents) or [said_by("user", "Hi")],
        "generationConfig": {"temperature": 0.5},
        **fields,
    }


def said_by(role: str, text: str) -> dict[str, Any]:
    """Return a content with one text."""
    return {"parts": [{"text": text}], "role": role}


def ollama(**fields: Any) -> dict[str, Any]:
    """Return a body as the client of ollama sends it."""
    messages = [{"role": "user", "content": "Hi"}]
    return {
        "model": "qwen3",
        "messages": messages,
        "tools": [],
        "stream": False,
        "options": {"temperature": 0.5},
        **fields,
    }


class Way(NamedTuple):
    """A request, and the answer to it."""

    path: str
    body: dict[str, Any]
    answer: Answer
    wire: str


def _json(body: bytes) -> Answer:
    return Answer(body=body, headers={"content-type": "application/json; charset=utf-8"})


def _lines(**fields: Any) -> Answer:
    return Answer(frames=ollama_lines(*PIECES, **fields), headers=content_type(CHAT))


_PROMPT = {"model": "qwen3", "prompt": "Hi", "stream": False}
_ARRAY = {"content-type": "application/json; charset=UTF-8"}
WAYS = {
    "gemini, events": Way(SSE, gemini(), Answer(frames=gemini_frames(*PIECES)), "gemini.generate_content"),
    "gemini, array": Way(
        ARRAY, gemini(), Answer(frames=gemini_array(*PIECES), headers=_ARRAY), "gemini.generate_content"
    ),
    "gemini, whole": Way(WHOLE, gemini(), _json(gemini_body(*PIECES)), "gemini.generate_content"),
    "vertex, events": Way(
        "/v1beta1/projects/p/locations/l/publishers/google/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
        gemini(), Answer(frames=gemini_frames(*PIECES)), "gemini.generate_content",
    ),
    "chat, lines": Way(CHAT, ollama(stream=True), _lines(), "ollama.chat"),
    "chat, lines without being asked": Way(
        CHAT, {key: value for key, value in ollama().items() if key != "stream"}, _lines(), "ollama.chat"
    ),
    "chat, lines with another content type": Way(
        CHAT, ollama(stream=True), Answer(frames=ollama_lines(*PIECES), headers=_ARRAY), "ollama.chat"
    ),
    "chat, whole": Way(CHAT, ollama(), _json(ollama_body(*PIECES)), "ollama.chat"),
    "generate, lines": Way(GENERATE, _PROMPT | {"stream": True}, _lines(key="response"), "ollama.generate"),
    "generate, whole": Way(GENERATE, _PROMPT, _json(ollama_body(*PIECES, key="response")), "ollama.generate"),
}  # fmt: skip
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
STREAMED = {name: way for name, way in WAYS.items() if way.answer.frames is not None}
streamed_ways = pytest.mark.parametrize("way", STREAMED.values(), ids=STREAMED)


class Database:
    """A recorder with a database of its own."""

    def __init__(self, folder: Path) -> None:
        self.url = new_url(folder)
        self.history = ChatHistoryCallback(self.url, thread="history")

    def rows(self, query: str) -> list[Any]:
        """Return the rows of a query, when everything is stored."""
        self.history.flush().wait()
        return sql(self.url, query)

    def text(self) -> str:
        """Return the text of all tokens."""
        return "".join(
            text for (text,) in self.rows("SELECT text FROM tokens WHERE kind = 'text' ORDER BY seq")
        )


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """Yield a recorder that is closed afterwards."""
    found = Database(tmp_path)
    with found.history:
        yield found


def ask(
    url: str, path: str, body: Any, *handlers: Any, library: Any = httpx, pieces: int | None = None
) -> bytes:
    """Send a request with a client that is recorded, and read so many pieces of its answer."""
    got = b""
    with library.Client(base_url=url, headers={"x-goog-api-key": KEY}) as client:
        attach(client, callbacks=list(handlers))
        with client.stream("POST", path, json=body) as response:
            for number, piece in enumerate(response.iter_raw(), 1):
                got += piece
                if number == pieces:
                    break
    return got


async def ask_on_a_loop(url: str, path: str, body: Any, handler: Any) -> bytes:
    """Send a request with an asynchronous client that is recorded."""
    async with httpx2.AsyncClient(base_url=url) as client:
        attach(client, callbacks=[handler])
        response = await client.post(path, json=body)
        return response.content


class Lengths(BaseCallbackHandler):
    """Another handler: so the tokens are translated while the application reads."""

    run_inline = True

    def __init__(self) -> None:
        self.tokens: list[str] = []

    def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        """Note a token."""
        self.tokens.append(token)


def answer_bytes(way: Way) -> bytes:
    """Return the body of the answer."""
    return way.answer.body if way.answer.frames is None else b"".join(way.answer.frames)


# -- each way ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunks", [None, (1, 3, 7, 50)], ids=["as sent", "small pieces"])
@every_way
def test_a_call_is_recorded_and_unchanged(way: Way, chunks: Any, database: Database) -> None:
    """The tokens, the status, the usage, the model, and the provider's bytes."""
    answer = Answer(
        body=answer_bytes(way),
        headers=way.answer.headers or {"content-type": "text/event-stream"},
        chunks=chunks or 2**20,
    )
    with LoopbackProvider(answer) as provider:
        assert ask(provider.url, way.path, way.body, database.history) == answer_bytes(way)
    query = "SELECT wire, status, input_tokens, output_tokens, request_model, response_model FROM runs"
    model = "qwen3" if way.wire.startswith("ollama") else "gemini-2.5-flash"
    assert database.rows(query) == [(way.wire, "complete", 14, 7, model, model)]
    assert database.text() == "".join(PIECES)
    assert database.rows("SELECT role, content FROM transcripts ORDER BY position") == [
        ("user", "Hi"),
        ("assistant", "".join(PIECES)),
    ]
    [(run_id,)] = database.rows("SELECT id FROM runs")
    with Replay(database.url) as replay:
        assert b"".join(replay.frames(run_id, speed=None)) == answer_bytes(way)
        assert "".join(str(chunk.content) for chunk in replay.stream(run_id, speed=None)) == "".join(PIECES)


@every_way
def test_a_call_on_a_loop_and_beside_another_handler(way: Way, tmp_path: Path) -> None:
    """With httpx2, and translated while it is read."""
    database, lengths = Database(tmp_path), Lengths()
    with database.history, LoopbackProvider(way.answer) as provider:
        asyncio.run(ask_on_a_loop(provider.url, way.path, way.body, database.history))
        ask(provider.url, way.path, way.body, database.history, lengths, library=httpx2)
        assert database.rows("SELECT status FROM runs") == [("complete",)] * 2
    assert "".join(lengths.tokens) == ("".join(PIECES) if way.answer.frames is not None else "")


@streamed_ways
def test_a_stream_that_is_left_is_cancelled(way: Way, database: Database) -> None:
    """What was received is stored."""
    answer = Answer(frames=list(way.answer.frames or ()), headers=way.answer.headers, hang_after=1)
    with LoopbackProvider(answer) as provider:
        ask(provider.url, way.path, way.body, database.history, pieces=1)
    assert database.rows("SELECT status FROM runs") == [("cancelled",)]
    assert PIECES[0].startswith(database.text())


@streamed_ways
def test_a_stream_without_its_end_is_interrupted(way: Way, database: Database) -> None:
    """There was no finish reason, and no last line."""
    answer = Answer(frames=list(way.answer.frames or ())[:3], headers=way.answer.headers)
    with LoopbackProvider(answer) as provider:
        ask(provider.url, way.path, way.body, database.history)
    assert database.rows("SELECT status FROM runs") == [("interrupted",)]
    assert database.text() == "".join(PIECES)


@streamed_ways
def test_a_connection_that_breaks_is_an_error(way: Way, database: Database) -> None:
    """The SDKs pass on the exception of the HTTP client."""
    answer = Answer(frames=list(way.answer.frames or ()), headers=way.answer.headers, cut_after=2)
    with LoopbackProvider(answer) as provider, pytest.raises(httpx.RemoteProtocolError):
        ask(provider.url, way.path, way.body, database.history)
    assert database.rows("SELECT status, error_type FROM runs") == [("error", "httpx.RemoteProtocolError")]
    assert database.text() == "".join(PIECES[:2])


# -- errors ----------------------------------------------------------------------------------------------------------

_BUSY = {"error": {"code": 503, "message": "Overloaded.", "status": "UNAVAILABLE"}}
_DENIED = {"error": {"code": 400, "message": "No.", "status": "INVALID_ARGUMENT"}}
_GONE, _MISSING = {"error": "model runner stopped"}, "model 'm' not found"
_SERVER, _CLIENT = "google.genai.errors.ServerError", "google.genai.errors.ClientError"
_UNREADABLE, _OLLAMA = "google.genai.errors.UnknownApiResponseError", "ollama._types.ResponseError"


def _after_text(frames: list[bytes], error: bytes, headers: Any = None) -> Answer:
    return Answer(frames=[frames[0], error, frames[-1]], headers=headers or {})


def _refused(status: int, body: Any) -> Answer:
    return Answer(status=status, body=json.dumps(body).encode())


ERRORS = {
    "gemini, an event": (
        SSE, gemini(), _after_text(gemini_frames(*PIECES), b"data: " + json.dumps(_BUSY).encode() + b"\r\n\r\n"),
        _SERVER, "503 UNAVAILABLE.",
    ),
    "gemini, an item of the array": (
        ARRAY, gemini(), _after_text(gemini_array(*PIECES), b",\n" + json.dumps(_DENIED, indent=2).encode(), _ARRAY),
        _CLIENT, "400 INVALID_ARGUMENT.",
    ),
    "gemini, a status": (WHOLE, gemini(), _refused(400, _DENIED), _CLIENT, "400 INVALID_ARGUMENT."),
    "gemini, a status with an array": (ARRAY, gemini(), _refused(503, [_BUSY]), _SERVER, "503 UNAVAILABLE."),
    "gemini, no JSON": (WHOLE, gemini(), Answer(body=b"<html>"), _UNREADABLE, "<html>"),
    "ollama, a line": (
        CHAT, ollama(stream=True),
        _after_text(ollama_lines(*PIECES), json.dumps(_GONE).encode() + b"\n", content_type(CHAT)),
        _OLLAMA, "model runner stopped",
    ),
    "ollama, a status": (CHAT, ollama(), _refused(404, {"error": _MISSING}), _OLLAMA, _MISSING),
    "ollama, an answer of a stranger": (CHAT, ollama(), Answer(body=b'{"text": "Hi"}'), _OLLAMA, '{"text": "Hi"}'),
}  # fmt: skip


@pytest.mark.parametrize(("path", "body", "answer", "kind", "message"), ERRORS.values(), ids=ERRORS)
def test_an_error_has_the_class_and_the_message_of_the_sdk(
    path: str, body: Any, answer: Answer, kind: str, message: str, database: Database
) -> None:
    """The text before it is stored."""
    with LoopbackProvider(answer) as provider:
        ask(provider.url, path, body, database.history)
    [(status, error_type, error_message)] = database.rows(
        "SELECT status, error_type, error_message FROM runs"
    )
    assert (status, error_type) == ("error", kind)
    assert error_message.startswith(message)
    assert database.text() == (PIECES[0] if answer.frames is not None else "")


def test_a_refused_call_that_is_repeated_is_one_call(database: Database) -> None:
    """google-genai sends the same body again, and says nothing of it."""
    script = scripted(_refused(503, _BUSY), Answer(frames=gemini_frames(*PIECES)))
    with LoopbackProvider(script) as provider, httpx.Client(base_url=provider.url) as client:
        attach(client, callbacks=[database.history])
        for _ in range(2):
            client.post(SSE, json=gemini())
    assert database.rows("SELECT status, attempt FROM runs ORDER BY started_at") == [
        ("error", 1),
        ("complete", 2),
    ]


def test_a_blocked_prompt_is_incomplete(database: Database) -> None:
    """Its reason is the finish reason."""
    body = json.dumps(
        {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 4}}
    ).encode()
    with LoopbackProvider(Answer(body=body)) as provider:
        ask(provider.url, WHOLE, gemini(), database.history)
    assert database.rows("SELECT status, finish_reason, input_tokens FROM runs") == [
        ("incomplete", "SAFETY", 4)
    ]


# -- conversations -----------------------------------------------------------------------------------------------

WEATHER = {"name": "get_weather", "args": {"city": "Paris"}}


def test_a_chat_of_gemini_with_a_function_is_one_conversation(database: Database) -> None:
    """The client sends a content back for each event, and a result without an id."""
    question, result = (
        said_by("user", "Is it sunny in Paris?"),
        {"name": "get_weather", "response": {"result": "sunny"}},
    )
    call, answer = (
        gemini_frames("Let ", "me see.", call={"id": "call-1", **WEATHER}),
        gemini_frames("It is", " sunny."),
    )
    script = scripted(Answer(frames=call), Answer(frames=answer), Answer(frames=gemini_frames("Bye!")))
    contents = [question]
    with LoopbackProvider(script) as provider:
        for each in (
            {"parts": [{"functionResponse": result}], "role": "user"},
            said_by("user", "Thanks!"),
            None,
        ):
            body = gemini(*contents, systemInstruction={"parts": [{"text": "Be brief."}]})
            got = ask(provider.url, SSE, body, database.history)
            contents += [*contents_in(got), *([each] if each else [])]
    assert roles(database) == [["user", "assistant", "tool", "assistant", "user", "assistant"]]
    assert database.rows("SELECT content FROM context_messages") == [("Be brief.",)]
    [(parts,)] = database.rows("SELECT parts FROM messages WHERE role = 'assistant' AND position = 1")
    assert json.loads(parts)["tool_calls"][0]["extras"] == {"id": "call-1"}


def contents_in(body: bytes) -> list[Any]:
    """Return the contents of a stream, as the chats of google-genai send them back."""
    return [json.loads(event[6:])["candidates"][0]["content"] for event in body.split(b"\r\n\r\n") if event]


def test_a_chat_of_ollama_with_a_tool_is_one_conversation(database: Database) -> None:
    """The client sends the call back without its id."""
    call = {"name": "get_weather", "arguments": {"city": "Paris"}}
    answers = (
        ollama_lines("Let me", " see.", call=call),
        ollama_lines("It is", " sunny."),
        ollama_lines("Bye!"),
    )
    script = scripted(*(Answer(frames=lines, headers=content_type(CHAT)) for lines in answers))
    messages: list[Any] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Is it sunny in Paris?"},
    ]
    sent: list[list[Any]] = [
        [
            {"role": "assistant", "content": "Let me see.", "tool_calls": [{"function": call}]},
            {"role": "tool", "tool_name": "get_weather", "content": "sunny"},
        ],
        [{"role": "assistant", "content": "It is sunny."}, {"role": "user", "content": "Thanks!"}],
        [],
    ]
    with LoopbackProvider(script) as provider:
        for later in sent:
            ask(provider.url, CHAT, ollama(messages=messages, stream=True), database.history)
            messages = [*messages, *later]
    assert roles(database) == [["user", "assistant", "tool", "assistant", "user", "assistant"]]
    assert database.rows("SELECT content FROM context_messages") == [("Be brief.",)]


def roles(database: Database) -> list[list[str]]:
    """Return the roles of the messages of each conversation."""
    found: dict[str, list[str]] = {}
    query = "SELECT conversation_id, role FROM messages ORDER BY conversation_id, position"
    for conversation, role in database.rows(query):
        found.setdefault(conversation, []).append(role)
    return list(found.values())


# -- the SDKs' clients ---------------------------------------------------------------------------------------------


class GenaiClient:
    """Has its HTTP client where `google.genai.Client` has it."""

    def __init__(self, http_client: httpx2.Client) -> None:
        self._api_client = SimpleNamespace(_httpx_client=http_client)


class OllamaClient:
    """Has its HTTP client where `ollama.Client` has it."""

    def __init__(self, http_client: httpx2.Client) -> None:
        self._client = http_client


@pytest.mark.parametrize("kind", [GenaiClient, OllamaClient])
def test_the_http_client_of_an_sdks_client_is_found(kind: Any, database: Database) -> None:
    """The SDKs themselves are not among the packages of the tests."""
    way = WAYS["gemini, events"]
    with LoopbackProvider(way.answer) as provider, httpx2.Client(base_url=provider.url) as http_client:
        attach(kind(http_client), callbacks=[database.history])
        http_client.post(way.path, json=way.body)
    assert database.rows("SELECT status FROM runs") == [("complete",)]


# -- what is stored of the request ---------------------------------------------------------------------------------


def test_the_parameters_of_a_request_are_stored(database: Database) -> None:
    """Without the messages; the model is that of the path."""
    with LoopbackProvider(WAYS["gemini, events"].answer) as provider:
        ask(provider.url, SSE, gemini(safetySettings=[]), database.history)
    [(request, operation, provider_name)] = database.rows(
        "SELECT request, operation, provider_name FROM runs"
    )
    assert json.loads(request) == {
        "model": "gemini-2.5-flash",
        "generationConfig": {"temperature": 0.5},
        "safetySettings": [],
    }
    assert (operation, provider_name) == ("chat", "google_genai")


def test_the_key_is_never_stored(database: Database) -> None:
    """In a header, or in the URL; also where the provider repeats it."""
    answer = _refused(
        400, {"error": {"code": 400, "message": f"API key not valid: {KEY}", "status": "INVALID_ARGUMENT"}}
    )
    with LoopbackProvider(answer) as provider:
        ask(provider.url, WHOLE, gemini(), database.history)
        with httpx.Client(base_url=provider.url) as client:
            attach(client, callbacks=[database.history])
            client.post(f"{WHOLE}?key={KEY}", json=gemini())
    messages = database.rows("SELECT error_message FROM runs")
    assert len(messages) == 2
    assert all(KEY not in message for (message,) in messages)
    assert KEY.encode() not in b"".join(
        path.read_bytes() for path in Path(database.url[10:]).parent.iterdir()
    )


def test_a_prompt_is_a_completion_unless_it_has_more_than_a_text(database: Database) -> None:
    """With instructions or images it is a chat, because prompts are only texts."""
    with LoopbackProvider(WAYS["generate, whole"].answer) as provider:
        for more in ({}, {"system": "Be brief."}, {"images": ["aGk="]}):
            ask(provider.url, GENERATE, {**_PROMPT, **more}, database.history)
    query = "SELECT operation, request FROM runs ORDER BY started_at"
    runs = database.rows(query)
    assert [operation for operation, _ in runs] == ["text_completion", "chat", "chat"]
    assert all("aGk=" not in request for _, request in runs)
    assert database.rows("SELECT content FROM context_messages") == [("Be brief.",)]


def test_strangers_are_not_recorded(database: Database) -> None:
    """Their paths only look alike."""
    strangers: list[tuple[str, Any]] = [
        (CHAT, {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0.5}),
        (CHAT, {"id": "1", "messages": [{"role": "user", "parts": [{"type": "text", "text": "Hi"}]}]}),
        (CHAT, {"model": "m", "messages": []}),
        (GENERATE, {"model": "m", "prompt": ""}),
        (GENERATE, {"model": "m", "prompt": "Hi", "style": "oil"}),
        (WHOLE, {"contents": [{"text": "Hi"}]}),
        (WHOLE, {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}),
        ("/v1/documents:generateContent", gemini()),
        (f"{MODEL}:countTokens", gemini()),
    ]
    with LoopbackProvider(Answer(body=b"{}")) as provider:
        for path, body in strangers:
            ask(provider.url, path, body, database.history)
    assert database.rows("SELECT id FROM runs") == []
