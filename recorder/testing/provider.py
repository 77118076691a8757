"""A provider of language models on loopback, for tests, demonstrations and benchmarks."""

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
from recorder.testing.connection import Connection, Request
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
from recorder.testing.song import pieces_of, song_pieces


class LoopbackProvider:
    """A real HTTP server that speaks a provider's wire format, on its own thread and event loop.

        with LoopbackProvider("Hello there!") as provider:
            client = openai.OpenAI(base_url=provider.base_url, api_key="any")
            client = anthropic.Anthropic(base_url=provider.url, api_key="any")

    `script` says what it answers: a text, an `Answer`, or a function of the request's body and path
    that returns one of those and must not block. Without a script it sings. It stops completely at the
    end of the with-block, and then raises what the script raised, if anything.
    """

    def __init__(
        self, script: Script | Answer | str | None = None, *, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self._script = _as_script(script)
        self._host = host
        self._port = port
        #: What was asked, in order: method, path, headers (lower-case names), body (its JSON, or None
        #: when it is none), and frames_sent, which grows while the answer is sent.
        self.requests: list[dict[str, Any]] = []
        self._failures: list[BaseException] = []
        self._thread: threading.Thread | None = None
        self._bound: int | None = None
        self._end: Callable[[], object] = bool
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
        """One that sings at a pace (about 30 tokens a second reads well), `tokens` long or once through."""
        interval = 1 / tokens_per_second if tokens_per_second else 0.0

        def script(request: dict[str, Any], path: str) -> Answer:
            return _say(_song(request, tokens), request, path, interval=interval, chunks=chunks)

        return cls(script, host=host, port=port)

    @property
    def base_url(self) -> str:
        """What to give to a client as its base URL; the provider must be running."""
        return f"{self.url}/v1"

    @property
    def url(self) -> str:
        """Where it listens: what Azure's clients take as their endpoint, and Anthropic's as their base URL."""
        if self._bound is None:
            raise RuntimeError("The provider is not running, so it has no URL; use it in a with-block.")
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._bound}"

    def start(self) -> Self:
        """Listen; raises `OSError` when the port is taken."""
        if self._thread is not None:
            raise RuntimeError(f"The provider already runs at {self.base_url}; start another one.")
        started: Future[tuple[int, Callable[[], object]]] = Future()
        thread = threading.Thread(target=self._run, args=(started,), name="loopback-provider", daemon=True)
        thread.start()
        self._bound, self._end = started.result()
        self._thread = thread
        return self

    def stop(self) -> None:
        """Drop all connections and end the thread; does nothing when it is not running."""
        thread, self._thread, self._bound = self._thread, None, None
        if thread is None:
            return
        self._end()
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
        """Serve until the end is called for."""
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connect, self._host, self._port, backlog=1024)
        port: int = server.sockets[0].getsockname()[1]
        started.set_result((port, partial(loop.call_soon_threadsafe, stopped.set)))
        await stopped.wait()
        server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client in a task of its own."""
        task = asyncio.create_task(Connection(reader, writer, self._answer).serve())
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    def _answer(self, request: Request) -> Answer:
        """Keep what was asked, and find the answer."""
        request.seen = {
            "method": request.method,
            "path": request.path,
            "headers": request.headers,
            "body": _json(request.body),
            "frames_sent": 0,
        }
        self.requests.append(request.seen)
        if request.method == "GET" and request.path.endswith("/models"):
            anthropic = "anthropic-version" in request.headers
            return Answer(body=anthropic_models() if anthropic else openai_models())
        error = _error_of(request.path)
        if request.method != "POST":
            return error(405, f"Not allowed to {request.method} on {request.path}.", _INVALID)
        if not isinstance(request.seen["body"], dict):
            return error(400)
        return self._scripted(request.seen["body"], request.path)

    def _scripted(self, body: dict[str, Any], path: str) -> Answer:
        """What the script says; its failure is an answer as well, and is raised at the end."""
        try:
            said = self._script(body, path)
            return _say(pieces_of(said), body, path) if isinstance(said, str) else said
        except Exception as error:
            self._failures.append(error)
            return _error_of(path)(500, f"The provider's script failed: {error!r}")


def answer_openai_chat(
    pieces: Pieces, request: dict[str, Any], *, interval: float = 0.0, chunks: int | None = None
) -> Answer:
    """`pieces` as the answer to a chat request: streamed or whole, as it asks for."""
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


def answer_anthropic_messages(
    pieces: Pieces, request: dict[str, Any], *, interval: float = 0.0, chunks: int | None = None
) -> Answer:
    """`pieces`, of several lists the first, as the answer to a messages request: streamed or whole, as it asks for."""
    first = pieces[0] if pieces and not isinstance(pieces[0], str) else pieces
    said: dict[str, Any] = {
        "pieces": first,
        "model": str(request.get("model", "")),
        "prompt_tokens": anthropic_prompt_tokens(request),
    }
    headers = {"request-id": anthropic_request_id()}
    if not request.get("stream"):
        return Answer(body=anthropic_messages_body(**said), headers=headers)
    frames = anthropic_messages_frames(**said)
    return Answer(frames=frames, headers=headers, interval=interval, chunks=chunks)


def answer_azure_chat(
    pieces: Pieces, request: dict[str, Any], *, interval: float = 0.0, chunks: int | None = None
) -> Answer:
    """The same as Azure answers it: with its own name of the model, and what its content filters say."""
    model = request["model"] if request.get("model") in SNAPSHOTS else "gpt-4o"
    answer = answer_openai_chat(pieces, {**request, "model": model}, interval=interval, chunks=chunks)
    if answer.frames is None:
        return replace(answer, body=azure_chat_body(answer.body))
    return replace(answer, frames=azure_chat_frames(answer.frames))


def answer_openai_completion(
    pieces: Pieces, request: dict[str, Any], *, interval: float = 0.0, chunks: int | None = None
) -> Answer:
    """`pieces` as the answer to a request for legacy completions: streamed or whole, as it asks for."""
    asked: dict[str, Any] = {
        "model": str(request.get("model", "")),
        "n": _choices(request),
        "logprobs": request.get("logprobs"),
        "prompt_tokens": prompt_tokens(prompts_of(request)),
    }
    if not request.get("stream"):
        return Answer(body=openai_completion_body(pieces, **asked))
    usage = bool((request.get("stream_options") or {}).get("include_usage"))
    frames = openai_completion_frames(pieces, usage=usage, **asked)
    return Answer(frames=frames, interval=interval, chunks=chunks)


#: How an answer is said in each wire format, by the end of its path.
_WIRES = {
    "/chat/completions": answer_openai_chat,
    "/completions": answer_openai_completion,
    "/v1/messages": answer_anthropic_messages,
}
#: Where Azure serves them, each deployment at a path of its own.
_AZURE = "/openai/deployments/"


def _error_of(path: str) -> Callable[..., Answer]:
    """How an error is said in the wire format of the path."""
    return Answer.anthropic_error if "/messages" in path else Answer.error


_INVALID = "invalid_request_error"


def _as_script(script: Script | Answer | str | None) -> Script:
    if script is None:
        return lambda request, path: _say(_song(request), request, path)
    if isinstance(script, (Answer, str)):
        return lambda request, path: script
    return script


def _say(
    pieces: Pieces, request: dict[str, Any], path: str, *, interval: float = 0.0, chunks: int | None = None
) -> Answer:
    """`pieces` as the answer in the wire format of the path."""
    place, _, query = path.partition("?")
    if _AZURE in place and "api-version=" not in query:
        return Answer.error(404, "Resource not found")
    answer = next((said for end, said in _WIRES.items() if place.endswith(end)), None)
    if answer is None:
        return Answer.error(404, f"Invalid URL (POST {path})", _INVALID)
    if _AZURE in place and answer is answer_openai_chat:
        answer = answer_azure_chat
    return answer(pieces, request, interval=interval, chunks=chunks)


def _song(request: dict[str, Any], tokens: int | None = None) -> list[list[str]]:
    """The song, for each choice from another verse on."""
    return [song_pieces(tokens, choice) for choice in range(_choices(request))]


def _choices(request: dict[str, Any]) -> int:
    """How many are asked for; each prompt of a completion has its own."""
    return int(request.get("n") or 1) * (len(prompts_of(request)) if "prompt" in request else 1)


def _json(body: bytes) -> Any:
    """A request's body; None when it is not JSON."""
    try:
        return json.loads(body)
    except ValueError:
        return None
