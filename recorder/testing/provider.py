"""A model provider on this machine, for tests, demonstrations and benchmarks."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Self

from recorder.testing.answers import Answer, Script
from recorder.testing.anthropic_messages import (
    anthropic_messages_body,
    anthropic_messages_frames,
    anthropic_models,
    anthropic_prompt_tokens,
    anthropic_request_id,
)
from recorder.testing.azure import azure_chat_body, azure_chat_frames
from recorder.testing.connection import Connection, ReceivedRequest
from recorder.testing.listening import stop_listening
from recorder.testing.openai_chat import (
    SNAPSHOTS,
    Pieces,
    openai_chat_body,
    openai_chat_frames,
    openai_models,
    prompt_tokens_of,
)
from recorder.testing.openai_completions import (
    openai_completion_body,
    openai_completion_frames,
    prompt_tokens,
    prompts_of,
)
from recorder.testing.openai_responses import (
    openai_responses_body,
    openai_responses_frames,
    responses_prompt_tokens,
)
from recorder.testing.song import pieces_of, song_pieces


class LoopbackProvider:
    """An HTTP server on this machine that answers in a provider's wire format, on its own thread and event loop.

        with LoopbackProvider("Hello there!") as provider:
            client = openai.OpenAI(base_url=provider.base_url, api_key="any")
            client = anthropic.Anthropic(base_url=provider.url, api_key="any")

    `script` is the answer to each request: a text, an `Answer`, or a function of the request's body and path that
    returns one of those. The function must not block. Without a script the answer is a song. The end of the with-block
    closes all connections and stops the thread. It raises the first exception that the script raised.
    """

    def __init__(
        self, script: Script | Answer | str | None = None, *, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self._script = _as_script(script)
        self._host = host
        self._port = port
        #: The requests in the order in which they came. Each is a dict with `method`, `path`, `headers` (names in lower
        #: case), `body` (decoded JSON; None if it is not JSON) and `frames_sent`, which grows while the answer is sent.
        self.requests: list[dict[str, Any]] = []
        self._failures: list[BaseException] = []
        self._thread: threading.Thread | None = None
        self._bound: int | None = None
        self._shut_down: Callable[[], object] = bool
        self._connections: set[asyncio.Task[None]] = set()

    @classmethod
    def song(
        cls,
        *,
        tokens_per_second: float | None = None,
        tokens: int | None = None,
        chunks: int | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> LoopbackProvider:
        """A provider that streams a song, `tokens` long or once.

        30 tokens per second read well; None sends without pauses. `chunks` is the size of the HTTP chunks in bytes.
        """
        interval = 1 / tokens_per_second if tokens_per_second else 0.0

        def script(request: dict[str, Any], path: str) -> Answer:
            return _encoded(_song(request, tokens), request, path, interval=interval, chunks=chunks)

        return cls(script, host=host, port=port)

    @property
    def base_url(self) -> str:
        """The base URL for OpenAI's clients. Raises `RuntimeError` when the provider is not running."""
        return f"{self.url}/v1"

    @property
    def url(self) -> str:
        """The URL without a path: the endpoint for Azure's clients, and the base URL for Anthropic's.

        Raises `RuntimeError` when the provider is not running.
        """
        if self._bound is None:
            raise RuntimeError("The provider has no URL because it is not running; use it in a with-block.")
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._bound}"

    def start(self) -> Self:
        """Start to listen. Raises `OSError` when the port is in use, `RuntimeError` when it already listens."""
        if self._thread is not None:
            raise RuntimeError(f"The provider already runs at {self.base_url}; create another one.")
        started: Future[tuple[int, Callable[[], object]]] = Future()
        thread = threading.Thread(target=self._run, args=(started,), name="loopback-provider", daemon=True)
        thread.start()
        self._bound, self._shut_down = started.result()
        self._thread = thread
        return self

    def stop(self) -> None:
        """Close all connections and stop the thread. Does nothing when the provider is not running."""
        thread, self._thread, self._bound = self._thread, None, None
        if thread is None:
            return
        self._shut_down()
        thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._failures and error is None:
            raise self._failures[0]

    def _run(self, started: Future[tuple[int, Callable[[], object]]]) -> None:
        try:
            asyncio.run(self._listen(started))
        except OSError as error:
            started.set_exception(error)

    async def _listen(self, started: Future[tuple[int, Callable[[], object]]]) -> None:
        """Serve until `stop` is called."""
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connect, self._host, self._port, backlog=1024)
        port: int = server.sockets[0].getsockname()[1]
        started.set_result((port, partial(loop.call_soon_threadsafe, stopped.set)))
        await stopped.wait()
        await stop_listening(server)
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client in a task of its own."""
        task = asyncio.create_task(Connection(reader, writer, self._answer).serve())
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    def _answer(self, request: ReceivedRequest) -> Answer:
        """Add the request to `requests`, and give its answer."""
        request.log_entry = {
            "method": request.method,
            "path": request.path,
            "headers": request.headers,
            "body": _json(request.body),
            "frames_sent": 0,
        }
        self.requests.append(request.log_entry)
        if request.method == "GET" and request.path.endswith("/models"):
            anthropic = "anthropic-version" in request.headers
            return Answer(body=anthropic_models() if anthropic else openai_models())
        error = _error_of(request.path)
        if request.method != "POST":
            return error(405, f"Not allowed to {request.method} on {request.path}.", _INVALID)
        if not isinstance(request.log_entry["body"], dict):
            return error(400)
        return self._scripted(request.log_entry["body"], request.path)

    def _scripted(self, body: dict[str, Any], path: str) -> Answer:
        """The script's answer. If the script raises, the answer is an error 500, and `__exit__` raises it again."""
        try:
            answer = self._script(body, path)
            return _encoded(pieces_of(answer), body, path) if isinstance(answer, str) else answer
        except Exception as error:
            self._failures.append(error)
            return _error_of(path)(500, f"The provider's script failed: {error!r}")


def answer_openai_chat(
    pieces: Pieces, request: dict[str, Any], *, interval: float = 0.0, chunks: int | None = None
) -> Answer:
    """`pieces` as the answer to a request for a chat completion, streamed if the request says so."""
    model, prompt = str(request.get("model", "")), prompt_tokens_of(request.get("messages", []))
    if not request.get("stream"):
        body = openai_chat_body(pieces, model=model, n=_choices(request), prompt_tokens=prompt)
        return Answer(body=body)
    options = request.get("stream_options") or {}
    frames = openai_chat_frames(
        pieces,
        model=model,
        n=_choices(request),
        usage=bool(options.get("include_usage")),
        obfuscation=options.get("include_obfuscation", True),
        prompt_tokens=prompt,
    )
    return Answer(frames=frames, interval=interval, chunks=chunks)


def _first_choice(pieces: Pieces) -> Any:
    """The pieces of the first choice, if there are several lists."""
    return pieces[0] if pieces and not isinstance(pieces[0], str) else pieces


def answer_anthropic_messages(
    pieces: Pieces, request: dict[str, Any], *, interval: float = 0.0, chunks: int | None = None
) -> Answer:
    """`pieces` as the answer to a request for a message, streamed if the request says so.

    Of several lists only the first is used, since this API has no choices.
    """
    fields: dict[str, Any] = {
        "pieces": _first_choice(pieces),
        "model": str(request.get("model", "")),
        "prompt_tokens": anthropic_prompt_tokens(request),
    }
    headers = {"request-id": anthropic_request_id()}
    if not request.get("stream"):
        return Answer(body=anthropic_messages_body(**fields), headers=headers)
    frames = anthropic_messages_frames(**fields)
    return Answer(frames=frames, headers=headers, interval=interval, chunks=chunks)


def answer_openai_responses(
    pieces: Pieces, request: dict[str, Any], *, interval: float = 0.0, chunks: int | None = None
) -> Answer:
    """`pieces` as the answer to a request for a response, streamed if the request says so.

    Of several lists only the first is used, since this API has no choices.
    """
    fields: dict[str, Any] = {
        "pieces": _first_choice(pieces),
        "model": str(request.get("model", "")),
        "previous_response_id": request.get("previous_response_id"),
        "prompt_tokens": responses_prompt_tokens(request),
    }
    if not request.get("stream"):
        return Answer(body=openai_responses_body(**fields))
    options = request.get("stream_options") or {}
    frames = openai_responses_frames(**fields, obfuscation=options.get("include_obfuscation", True))
    return Answer(frames=frames, interval=interval, chunks=chunks)


def answer_azure_chat(
    pieces: Pieces, request: dict[str, Any], *, interval: float = 0.0, chunks: int | None = None
) -> Answer:
    """`answer_openai_chat` in Azure's form: with a dated model name and the results of the content filters."""
    model = request["model"] if request.get("model") in SNAPSHOTS else "gpt-4o"
    answer = answer_openai_chat(pieces, {**request, "model": model}, interval=interval, chunks=chunks)
    if answer.frames is None:
        return replace(answer, body=azure_chat_body(answer.body))
    return replace(answer, frames=azure_chat_frames(answer.frames))


def answer_openai_completion(
    pieces: Pieces, request: dict[str, Any], *, interval: float = 0.0, chunks: int | None = None
) -> Answer:
    """`pieces` as the answer to a request for legacy completions, streamed if the request says so."""
    fields: dict[str, Any] = {
        "model": str(request.get("model", "")),
        "n": _choices(request),
        "logprobs": request.get("logprobs"),
        "prompt_tokens": prompt_tokens(prompts_of(request)),
    }
    if not request.get("stream"):
        return Answer(body=openai_completion_body(pieces, **fields))
    usage = bool((request.get("stream_options") or {}).get("include_usage"))
    frames = openai_completion_frames(pieces, usage=usage, **fields)
    return Answer(frames=frames, interval=interval, chunks=chunks)


#: The function that encodes an answer in each wire format, by the end of the path.
_WIRES = {
    "/chat/completions": answer_openai_chat,
    "/completions": answer_openai_completion,
    "/responses": answer_openai_responses,
    "/v1/messages": answer_anthropic_messages,
}
#: The part of a path by which Azure's requests are known; the name of the deployment follows.
_AZURE = "/openai/deployments/"


def _error_of(path: str) -> Callable[..., Answer]:
    """The function that makes an error in the wire format of the path."""
    return Answer.anthropic_error if "/messages" in path else Answer.error


_INVALID = "invalid_request_error"


def _as_script(script: Script | Answer | str | None) -> Script:
    if script is None:
        return lambda request, path: _encoded(_song(request), request, path)
    if isinstance(script, (Answer, str)):
        return lambda request, path: script
    return script


def _encoded(
    pieces: Pieces, request: dict[str, Any], path: str, *, interval: float = 0.0, chunks: int | None = None
) -> Answer:
    """`pieces` as the answer in the wire format of the path."""
    plain_path, _, query = path.partition("?")
    if _AZURE in plain_path and "api-version=" not in query:
        return Answer.error(404, "Resource not found")
    encode = next((encode for end, encode in _WIRES.items() if plain_path.endswith(end)), None)
    if encode is None:
        return Answer.error(404, f"Invalid URL (POST {path})", _INVALID)
    if _AZURE in plain_path and encode is answer_openai_chat:
        encode = answer_azure_chat
    return encode(pieces, request, interval=interval, chunks=chunks)


def _song(request: dict[str, Any], tokens: int | None = None) -> list[list[str]]:
    """The song for each choice; each begins with another verse."""
    return [song_pieces(tokens, choice) for choice in range(_choices(request))]


def _choices(request: dict[str, Any]) -> int:
    """The number of choices in the answer: `n`, times the number of prompts in a request for completions."""
    return int(request.get("n") or 1) * (len(prompts_of(request)) if "prompt" in request else 1)


def _json(body: bytes) -> Any:
    """A request's body; None when it is not JSON."""
    try:
        return json.loads(body)
    except ValueError:
        return None
