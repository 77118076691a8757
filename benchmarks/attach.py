"""What an attached client costs the thread that reads a stream: each event in an HTTP chunk of its own.

The response comes from memory, and only its bytes are read, so that the SDK's own work does not hide the cost.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
import warnings
from collections.abc import AsyncIterator, Callable
from typing import Any

from benchmarks import ours
from benchmarks.harness import Measured, Settings, Side, best, compare, environment, values
from benchmarks.table import Row, each
from benchmarks.workload import cpu_seconds
from recorder.testing import anthropic_messages_frames, openai_chat_frames, song_pieces

TITLE = "Attached clients (microseconds of the caller's thread for an event, above the HTTP client alone)"
URLS = {
    "openai": "https://api.openai.com/v1/chat/completions",
    "anthropic": "https://api.anthropic.com/v1/messages",
}
_FRAMES: dict[str, Callable[[list[str]], Any]] = {
    "openai": openai_chat_frames,
    "anthropic": anthropic_messages_frames,
}
_BODY = {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "Sing."}]}
#: What is attached -> the most that it may add, for OpenAI and for Anthropic (microseconds).
_GOALS = {"one recorder": (5, 3), "the process": (10, 10), "a recorder and another handler": (20, 20)}
#: The most that a request which is no model call may take longer (microseconds), and an import with `attach()` (ms).
_OTHER_GOAL, _IMPORT_GOAL = 2, 50
_REQUESTS = 3_000


def rows(settings: Settings) -> list[Row]:
    """Each format and each kind of client; requests that are no model calls; the import."""
    events = settings.size(20_000, 2_000)
    sides = {
        f"{kind}, {client}": Side(
            "benchmarks.attach:measured",
            {"kind": kind, "events": events, "is_async": client == "asynchronous"},
            folder=True,
        )
        for kind in URLS
        for client in ("synchronous", "asynchronous")
    }
    requests = {"requests": settings.size(_REQUESTS, 300)}
    others = {
        "a request that is no model call": Side("benchmarks.attach:other_requests", requests),
        "a request of aiohttp that is no model call": Side(
            "benchmarks.attach:other_aiohttp_requests", requests
        ),
    }
    found = compare({**sides, **others}, settings.rounds)
    lines = [row for name in sides for row in _rows(name, found[name])]
    return [*lines, *(_other_row(name, found[name]) for name in others), _import_row(settings)]


def _rows(name: str, found: list[Measured]) -> list[Row]:
    lines = [
        Row(
            f"{name}: the HTTP client alone",
            f"{best(found, 'bare'):.2f} us",
            each(values(found, "bare"), ".2f"),
        )
    ]
    for what, goals in _GOALS.items():
        goal = goals[0] if name.startswith("openai") else goals[1]
        added = best(found, what)
        note = f"other threads: {best(found, f'{what}, writer'):.1f} us"
        lines.append(
            Row(
                f"{name}: {what} adds",
                f"{added:.2f} us",
                each(values(found, what), ".2f"),
                note,
                f"at most {goal} us",
                added <= goal,
            )
        )
    return lines


def _other_row(name: str, found: list[Measured]) -> Row:
    added = best(found, "added")
    return Row(
        f"{name}, with attach(), adds", f"{added:.2f} us", each(values(found, "added"), ".2f"),
        "", f"at most {_OTHER_GOAL} us", added <= _OTHER_GOAL,
    )  # fmt: skip


def measured(kind: str, events: int, folder: str, *, is_async: bool) -> Measured:
    """Microseconds that each attachment adds to an event, and those of the other threads."""
    from recorder import attach
    from recorder.callbacks import BaseCallbackHandler

    class Counting(BaseCallbackHandler):
        def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
            """Nothing."""

    frames = list(_FRAMES[kind](song_pieces(events)))
    read = _reader(kind, frames, is_async=is_async)
    bare = min(read(None) for _ in range(3))
    found = {"bare": bare}
    for what in _GOALS:
        history = ours.open_history(ours.new_file(folder), max_queue_bytes=2**30)
        handlers = [history, Counting()] if "handler" in what else [history]

        def attached(client: Any, what: str = what, handlers: list[Any] = handlers) -> Any:
            return attach(None if what == "the process" else client, callbacks=handlers)

        mine, others = [], []
        for _ in range(3):
            before, thread_before = cpu_seconds(), time.thread_time()
            mine.append(read(attached))
            called = time.thread_time() - thread_before
            history.flush().wait()
            others.append((cpu_seconds() - before - called) / len(frames) * 1e6)
        found[what] = min(mine) - bare
        found[f"{what}, writer"] = min(others)
        history.close().wait()
    return found


def _reader(
    kind: str, frames: list[bytes], *, is_async: bool
) -> Callable[[Callable[[Any], Any] | None], float]:
    """Reads the stream once: microseconds of this thread for an event."""

    def read(attached: Callable[[Any], Any] | None) -> float:
        seconds = (
            asyncio.run(_read_async(kind, frames, attached)) if is_async else _read(kind, frames, attached)
        )
        return seconds / len(frames) * 1e6

    return read


def _read(kind: str, frames: list[bytes], attached: Callable[[Any], Any] | None) -> float:
    import httpx2

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=iter(frames))

    with httpx2.Client(transport=httpx2.MockTransport(answer)) as client:
        attachment = attached(client) if attached is not None else None
        with client.stream("POST", URLS[kind], json=_BODY) as response:
            began = time.thread_time()
            for _ in response.iter_bytes():
                pass
            seconds = time.thread_time() - began
        if attachment is not None:
            attachment.detach()
    return seconds


async def _read_async(kind: str, frames: list[bytes], attached: Callable[[Any], Any] | None) -> float:
    import httpx2

    async def content() -> AsyncIterator[bytes]:
        for frame in frames:
            yield frame

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=content())

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as client:
        attachment = attached(client) if attached is not None else None
        async with client.stream("POST", URLS[kind], json=_BODY) as response:
            began = time.thread_time()
            async for _ in response.aiter_bytes():
                pass
            seconds = time.thread_time() - began
        if attachment is not None:
            attachment.detach()
    return seconds


def other_requests(requests: int) -> Measured:
    """Microseconds that a recorded process adds to a request that is no model call; both by turns."""
    import httpx2

    from recorder import attach

    def timed(send: Callable[..., Any]) -> float:
        with httpx2.Client(transport=httpx2.MockTransport(lambda _: httpx2.Response(200))) as client:
            request = client.build_request("POST", "https://example.org/v1/embeddings", json=_BODY)
            began = time.thread_time()
            for _ in range(requests):
                send(client, request)
            return (time.thread_time() - began) / requests * 1e6

    with attach():
        recorded: Any = httpx2.Client.send
        pairs = [(timed(recorded.__wrapped__), timed(recorded)) for _ in range(9)]
    return {"added": min(after for _, after in pairs) - min(before for before, _ in pairs)}


def other_aiohttp_requests(requests: int) -> Measured:
    """The same for a session of aiohttp. What it sends is left out: the recorder is done when the request begins."""
    import aiohttp

    from recorder import attach

    def timed(request: Callable[..., Any], session: aiohttp.ClientSession) -> float:
        began = time.thread_time()
        for _ in range(requests):
            request(session, "POST", "https://example.org/v1/embeddings", json=_BODY).close()
        return (time.thread_time() - began) / requests * 1e6

    async def measure() -> Measured:
        async with aiohttp.ClientSession() as session:
            recorded: Any = aiohttp.ClientSession._request
            with warnings.catch_warnings(action="ignore"):  # nothing is awaited
                pairs = [(timed(recorded.__wrapped__, session), timed(recorded, session)) for _ in range(9)]
        return {"added": min(after for _, after in pairs) - min(before for before, _ in pairs)}

    with attach():
        return asyncio.run(measure())


def _import_row(settings: Settings) -> Row:
    """Milliseconds of processor time of `import recorder` and `attach()`, above Python alone."""
    code = (
        "import time; began = time.process_time(); import recorder; recorder.attach(); "
        "print(time.process_time() - began)"
    )
    times = []
    for _ in range(max(3, settings.rounds) + 1):
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
        )
        times.append(float(done.stdout) * 1e3)
    taken = min(times[1:])
    return Row(
        "import recorder; recorder.attach()", f"{taken:.0f} ms", each(times[1:], ".0f"), "no SDK is imported",
        f"under {_IMPORT_GOAL} ms", taken < _IMPORT_GOAL,
    )  # fmt: skip
