"""Helpers for the tests of models: calls in both styles, a log of callbacks, and what was stored."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import openai

from recorder.callbacks import BaseCallbackHandler
from recorder.chat_history_callback import ChatHistoryCallback
from recorder.messages import AIMessageChunk
from recorder.models import ChatOpenAI
from recorder.storage import schema
from recorder.storage.compression import decompress
from recorder.storage.frame_block import split
from recorder.testing import LoopbackProvider
from tests.oracle import Stored, new_url, sql, stored


def chat(provider: LoopbackProvider, **options: Any) -> ChatOpenAI:
    """Return a model of this provider that sends each request once, without retries."""
    return ChatOpenAI(
        **{"model": "gpt-4o", "base_url": provider.base_url, "api_key": "any", "max_retries": 0, **options}
    )


@cache
def _shared_http() -> openai.DefaultHttpxClient:
    """Return one HTTP client for all tests, because making one takes longer than most tests."""
    return openai.DefaultHttpxClient(verify=False)


def sdk(provider: LoopbackProvider, **options: Any) -> openai.OpenAI:
    """Return a client of the bare SDK for this provider, to compare with."""
    settings: dict[str, Any] = {"base_url": provider.base_url, "api_key": "any", "max_retries": 0, **options}
    return openai.OpenAI(**settings, http_client=_shared_http())


#: The request that is sent through the bare SDK for a comparison.
ASK: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "stream": True}


class CountingProvider(LoopbackProvider):
    """A loopback provider that counts its connections."""

    connections = 0

    def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        super()._connect(reader, writer)


# -- both call styles: what holds for one must hold for the other ---------------------------------------------


@dataclass(frozen=True, slots=True)
class CallStyle:
    """One of the two ways to call a model: synchronously, or asynchronously on an event loop."""

    name: str
    invoke: Callable[..., Any]
    stream: Callable[..., list[AIMessageChunk]]
    batch: Callable[..., list[Any]]
    generate: Callable[..., Any]


def _on_loop(method: str) -> Callable[..., Any]:
    def call(model: Any, *args: Any, **kwargs: Any) -> Any:
        async def main() -> Any:
            return await getattr(model, method)(*args, **kwargs)

        return asyncio.run(main())

    return call


def _stream_on_loop(model: Any, *args: Any, **kwargs: Any) -> list[AIMessageChunk]:
    async def main() -> list[AIMessageChunk]:
        return [chunk async for chunk in model.astream(*args, **kwargs)]

    return asyncio.run(main())


PLAIN = CallStyle(
    "plain",
    lambda model, *args, **kwargs: model.invoke(*args, **kwargs),
    lambda model, *args, **kwargs: list(model.stream(*args, **kwargs)),
    lambda model, *args, **kwargs: model.batch(*args, **kwargs),
    lambda model, *args, **kwargs: model.generate(*args, **kwargs),
)
ON_LOOP = CallStyle(
    "on a loop", _on_loop("ainvoke"), _stream_on_loop, _on_loop("abatch"), _on_loop("agenerate")
)
CALL_STYLES = [PLAIN, ON_LOOP]


def name_of(style: CallStyle) -> str:
    """Return the id of a test that is parametrized by call styles."""
    return style.name


# -- what handlers receive ------------------------------------------------------------------------------------


class Log(BaseCallbackHandler):
    """A callback handler that stores the name and arguments of every call in order."""

    def __init__(self) -> None:
        self.events: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("on_"):
            return super().__getattribute__(name)

        def note(*args: Any, **kwargs: Any) -> None:
            self.events.append((name, args, kwargs))

        return note

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None: ...
    def on_llm_start(self, *args: Any, **kwargs: Any) -> None: ...
    def on_llm_new_token(self, *args: Any, **kwargs: Any) -> None: ...
    def on_chat_new_message(self, *args: Any, **kwargs: Any) -> None: ...
    def on_llm_end(self, *args: Any, **kwargs: Any) -> None: ...
    def on_llm_error(self, *args: Any, **kwargs: Any) -> None: ...

    @property
    def names(self) -> list[str]:
        """Return the events' names without `on_`; consecutive tokens count once."""
        names: list[str] = []
        for name, _, _ in self.events:
            short = name.removeprefix("on_")
            if short != "llm_new_token" or names[-1:] != [short]:
                names.append(short)
        return names

    def calls_of(self, name: str) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        """Return arguments and keywords of each event of this name."""
        return [(args, kwargs) for event, args, kwargs in self.events if event == name]

    @property
    def tokens(self) -> list[str]:
        """Return the tokens that `on_llm_new_token` received."""
        return [args[0] for args, _ in self.calls_of("on_llm_new_token")]


# -- what is recorded -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Recorded:
    """One run as it is stored in the database."""

    run: dict[str, Any]
    tokens: Stored
    #: All stored frames joined, in bytes.
    body: bytes
    #: (role, content) of each message of its conversation.
    transcript: list[tuple[str, str]]

    @property
    def text(self) -> str:
        """Return the joined text of all tokens of every kind."""
        return "".join(self.tokens.texts.values())


def runs(url: str) -> list[dict[str, Any]]:
    """Return the rows of all runs in the order in which they began."""
    names = schema.runs.c.keys()
    rows = sql(url, f"SELECT {', '.join(names)} FROM runs ORDER BY started_at, id")
    return [dict(zip(names, row, strict=True)) for row in rows]


def recorded(url: str, run_id: Any = None) -> Recorded:
    """Return the run with this id; without an id, the only run."""
    found = [run for run in runs(url) if run_id in (None, run["id"])]
    assert len(found) == 1
    (run,) = found
    rows = sql(url, "SELECT data, dictionary FROM frames WHERE run_id = ? ORDER BY seq", run["id"])
    transcript = sql(
        url,
        "SELECT role, content FROM transcripts WHERE conversation_id = ? ORDER BY position",
        run["conversation_id"],
    )
    body = b"".join(frame for row in rows for _, frame in split(decompress(*row)))
    return Recorded(run, stored(url, run["id"]), body, transcript)


@contextmanager
def history_at(where: Path | str, **options: Any) -> Iterator[ChatHistoryCallback]:
    """Yield a recorder on this URL, or on a new file in this folder; at the end everything is stored."""
    with ChatHistoryCallback(new_url(where) if isinstance(where, Path) else where, **options) as history:
        yield history


def event(content: str | None = None, **fields: Any) -> bytes:
    """Return one event of a chat stream with this content."""
    choice: dict[str, Any] = {"index": 0, "delta": {"content": content}, "finish_reason": None}
    data = {"id": "chatcmpl-1", "model": "gpt-4o-2024-08-06", "choices": [choice], **fields}
    return b"data: " + json.dumps(data).encode() + b"\n\n"


async def cancelled_at(nth: int, work: Awaitable[Any]) -> bool:
    """Run the work in a task and cancel it at its nth wait; return whether it waited that often."""
    waits = 0

    class Counted:
        def __await__(self) -> Any:
            nonlocal waits
            inner = work.__await__()
            send, value = inner.send, None
            while True:
                try:
                    waiting = send(value)
                except StopIteration as end:
                    return end.value
                waits += 1
                if waits == nth:
                    asyncio.current_task().cancel()  # type: ignore[union-attr]
                try:
                    send, value = inner.send, (yield waiting)
                except BaseException as error:
                    send, value = inner.throw, error

    async def main() -> Any:
        return await Counted()

    task = asyncio.create_task(main())
    try:
        await task
    except asyncio.CancelledError:
        return True
    return waits >= nth
