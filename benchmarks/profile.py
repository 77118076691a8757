"""The processor time of a token by stage: each stage does the work of the stages before it, on the same bytes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import ours, peers
from benchmarks.harness import Measured, Settings, Side, best, compare, provider, values
from benchmarks.table import Row, each
from benchmarks.workload import cpu_seconds
from recorder.testing import openai_chat_frames, song_pieces

TITLE = "Where a token's time goes (microseconds of processor time)"
PIECE = 16384
STAGES = {
    "http": "the bytes out of the socket, through the HTTP client and the SDK",
    "split": "bytes into frames",
    "decode": "+ frames into deltas (JSON, the reply's accumulator)",
    "chunk": "+ chunks for the application, from a response in memory",
    "callback": "+ a handler's on_llm_new_token that does nothing",
    "tokens": "+ ChatHistoryCallback, capture='tokens', without the writer's thread",
    "wire": "+ ChatHistoryCallback, capture='wire', without the writer's thread",
    "writer tokens": "the writer's thread: pack, compress, store, capture='tokens'",
    "writer wire": "the writer's thread: pack, compress, store, capture='wire'",
}
#: Stages that build on the one before them.
_UPON = {"decode": "split", "chunk": "decode", "callback": "chunk", "tokens": "chunk", "wire": "chunk"}


def rows(settings: Settings) -> list[Row]:
    """Each stage: alone, and what it adds."""
    tokens = settings.size(50_000, 10_000)
    with provider("--tokens", str(tokens), "--chunk-bytes", str(PIECE)) as url:
        side = Side("benchmarks.profile:stages", {"url": url, "tokens": tokens}, folder=True)
        runs = compare({"stages": side}, settings.rounds)["stages"]
    return [_row(name, what, runs) for name, what in STAGES.items()]


def _row(name: str, what: str, runs: list[Measured]) -> Row:
    before = _UPON.get(name)
    added = best(runs, name) - best(runs, before) if before else best(runs, name)
    note = f"adds {added:.2f} us" if before else ""
    return Row(what, f"{best(runs, name):.2f} us", each(values(runs, name), ".2f"), note)


def stages(folder: str, url: str, tokens: int) -> Measured:
    """Microseconds a token of each stage, on the calling thread."""
    from recorder.callbacks import BaseCallbackHandler
    from recorder.wire.openai.chat import OpenAIChat
    from recorder.wire.sse import FrameSplitter

    class Silent(BaseCallbackHandler):
        def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
            """Nothing."""

    body = b"".join(openai_chat_frames(song_pieces(tokens)))
    pieces = [body[start : start + PIECE] for start in range(0, len(body), PIECE)]

    def split() -> None:
        feed = FrameSplitter().feed
        for piece in pieces:
            for _ in feed(piece):
                pass

    def decode() -> None:
        feed, translate = FrameSplitter().feed, OpenAIChat().decode
        for piece in pieces:
            for frame in feed(piece):
                translate(frame)

    found = {"split": _timed(split), "decode": _timed(decode)}
    found["chunk"] = _timed(lambda: _call(pieces, []))
    found["callback"] = _timed(lambda: _call(pieces, [Silent()]))
    for capture in ("tokens", "wire"):
        found |= _recorded(folder, capture, pieces)
    used = {name: seconds / tokens * 1e6 for name, seconds in found.items()}
    return {"http": asyncio.run(_http(url)) / tokens * 1e6, **used}


def _timed(work: Callable[[], None]) -> float:
    """Seconds of this thread's processor time: the best of three."""

    def once() -> float:
        began = time.thread_time()
        work()
        return time.thread_time() - began

    return min(once() for _ in range(3))


def _call(pieces: Sequence[bytes], handlers: list[Any]) -> None:
    """One stream of our model, its bytes already in memory."""
    import httpx2

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=iter(pieces))

    with httpx2.Client(transport=httpx2.MockTransport(answer)) as client:
        model = ours.openai_model("http://memory/v1", handlers, http_client=client)
        for _ in model.stream("Sing."):
            pass


def _recorded(folder: str, capture: str, pieces: Sequence[bytes]) -> Measured:
    """The processor times of the calling thread and of the writer's thread."""
    history = ours.open_history(ours.new_file(folder), capture=capture)
    _call(pieces, [history])
    history.flush().wait()
    process_before, began = cpu_seconds(), time.thread_time()
    _call(pieces, [history])
    called = time.thread_time() - began
    history.close().wait()
    mine = time.thread_time() - began
    return {capture: called, f"writer {capture}": cpu_seconds() - process_before - mine}


async def _http(url: str) -> float:
    """Seconds of the process for reading one stream's bytes, the second of two times."""
    client = peers.openai_client(url)
    used = 0.0
    for _ in range(2):
        began = cpu_seconds()
        async for _ in peers.http_stream(client):
            pass
        used = cpu_seconds() - began
    return used
