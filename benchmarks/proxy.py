"""The recording proxy: what a chunk costs it, and how much later the client gets it.

The provider, the proxy and the clients are processes of their own. The clock of both ends is the same.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.harness import Measured, Settings, Side, best, compare, values
from benchmarks.serve import _cpu, _started
from benchmarks.table import Row, each
from benchmarks.workload import percentile

TITLE = "Recording proxy (CPU of a process for a chunk; each event is a chunk of its own)"
#: Events per second of a stream.
PACE = 50
#: The paths: one that is recorded, and one that is no model call.
_PATHS = {"passed on": "/v1/plain", "recorded": "/v1/chat/completions"}
#: The most that a chunk may cost, as a share of what OpenAI's SDK needs for it.
_GOALS = {"passed on": 0.3, "recorded": 0.5}
#: The most that the proxy may add to the time of a chunk, p99 (milliseconds).
_ADDED = 5.0
_SENT = re.compile(rb'"sent":([0-9.]+)')


def rows(settings: Settings) -> list[Row]:
    """OpenAI's SDK alone, the provider without a proxy, and both ways through the proxy."""
    streams, seconds = settings.size(100, 10), settings.size(20, 3)
    load = {"streams": streams, "seconds": seconds}
    sides = {
        "sdk": Side("benchmarks.proxy:read_by_sdk", {"events": settings.size(5_000, 1_000)}),
        "direct": Side("benchmarks.proxy:direct", load),
        **{
            name: Side("benchmarks.proxy:proxied", {**load, "path": path}, folder=True)
            for name, path in _PATHS.items()
        },
    }
    found = compare(sides, settings.rounds)
    sdk, direct = best(found["sdk"], "us_a_chunk"), best(found["direct"], "quiet_p99_ms")
    what = f"{streams} streams of {PACE} events/s: "
    lines = [
        Row("OpenAI's SDK reads a stream, a chunk", f"{sdk:.0f} us", each(values(found["sdk"], "us_a_chunk"), ".0f")),
        _late_row(f"{what}without a proxy", found["direct"], None),
    ]  # fmt: skip
    for name, goal in _GOALS.items():
        cost = best(found[name], "us_a_chunk")
        lines += [
            Row(f"{what}{name}, a chunk", f"{cost:.0f} us, {cost / sdk:.2f} of the SDK's",
                each(values(found[name], "us_a_chunk"), ".0f"), "", f"under {goal}", cost / sdk < goal),
            _late_row(f"{what}{name}", found[name], direct),
        ]  # fmt: skip
    return lines


def _late_row(what: str, found: list[Measured], direct: float | None) -> Row:
    late = best(found, "quiet_p99_ms")
    runs = each(values(found, "quiet_p99_ms"), ".1f")
    note = f"all seconds: {best(found, 'p99_ms'):.1f} ms; {_load(found)}"
    if direct is None:
        return Row(f"{what}, p99 in the quietest second", f"{late:.1f} ms", runs, note)
    added = late - direct
    return Row(
        f"{what}, p99 in the quietest second", f"{added:.1f} ms more", runs, note, f"under {_ADDED:g} ms more",
        added < _ADDED,
    )  # fmt: skip


def _load(found: list[Measured]) -> str:
    client, provider = best(found, "client_cores"), best(found, "provider_cores")
    return f"the load took {client:.2f} and {provider:.2f} cores"


# -- the sides ------------------------------------------------------------------------------------------------------


def read_by_sdk(events: int) -> Measured:
    """What OpenAI's SDK needs of its process to read a stream, event by event."""
    import openai

    with (
        _Process("provide", 1_000) as (provider, port),
        openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="any") as client,
    ):
        del provider
        question: Any = [{"role": "user", "content": "Sing."}]
        with client.chat.completions.create(
            model="m", messages=question, stream=True, max_tokens=events
        ) as stream:
            began = time.process_time()
            count = sum(1 for _ in stream)
            return {"us_a_chunk": (time.process_time() - began) / count * 1e6}


def direct(streams: int, seconds: int) -> Measured:
    """The clients read from the provider."""
    with _Process("provide", PACE) as (provider, port):
        return asyncio.run(_read(port, "/v1/plain", streams, seconds, provider.pid, None))


def proxied(folder: str, path: str, streams: int, seconds: int) -> Measured:
    """The clients read through the proxy."""
    with _Process("provide", PACE) as (provider, upstream):
        url = f"sqlite:///{Path(folder) / 'history.db'}"
        options = ["--url", url, "--port", "0", "--proxy", "--upstream", f"here=http://127.0.0.1:{upstream}"]
        server = _started([sys.executable, "-m", "recorder", "serve", *options])
        try:
            assert server.stderr is not None
            found = re.search(r":(\d+);", server.stderr.readline())
            assert found is not None
            return asyncio.run(
                _read(int(found[1]), f"/here{path}", streams, seconds, provider.pid, server.pid)
            )
        finally:
            server.terminate()
            server.communicate()


class _Process:
    """A provider in a process of its own."""

    def __init__(self, function: str, pace: int) -> None:
        self._code = f"from benchmarks.proxy import {function}; {function}({pace})"

    def __enter__(self) -> tuple[subprocess.Popen[str], int]:
        self._process = _started([sys.executable, "-c", self._code])
        assert self._process.stdout is not None
        return self._process, int(self._process.stdout.readline())

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate()


# -- the load -------------------------------------------------------------------------------------------------------


async def _read(
    port: int, path: str, streams: int, seconds: int, provider: int, server: int | None
) -> Measured:
    events = seconds * PACE
    await _Reader(port, path, 5).run()  # what the first call needs is loaded
    used = {pid: _cpu(pid) for pid in (provider, server) if pid is not None}
    own, began = time.process_time(), time.monotonic()
    readers = [_Reader(port, path, events) for _ in range(streams)]
    await asyncio.gather(*(reader.run() for reader in readers))
    lasted = time.monotonic() - began
    lags = [lag for reader in readers for _, lag in reader.lags]
    assert len(lags) == streams * events, (len(lags), streams * events)
    found = {
        "p50_ms": percentile(lags, 0.5),
        "p99_ms": percentile(lags, 0.99),
        "quiet_p99_ms": _quietest(lag for reader in readers for lag in reader.lags),
        "client_cores": (time.process_time() - own) / lasted,
        "provider_cores": (_cpu(provider) - used[provider]) / lasted,
    }
    if server is not None:
        found["us_a_chunk"] = (_cpu(server) - used[server]) / len(lags) * 1e6
    return found


def _quietest(lags: Iterable[tuple[float, float]]) -> float:
    """The lowest p99 of a second: what others do on this machine is in it least. Each has ten commits of a recorder."""
    by_second: defaultdict[int, list[float]] = defaultdict(list)
    for sent, lag in lags:
        by_second[int(sent)].append(lag)
    most = max(map(len, by_second.values()))
    return min(percentile(each, 0.99) for each in by_second.values() if len(each) > most / 2)


class _Reader(asyncio.Protocol):
    """One call. It notes for each event when it was sent (seconds), and how much later it came (milliseconds)."""

    def __init__(self, port: int, path: str, events: int) -> None:
        self._port = port
        message = {"role": "user", "content": f"Sing {id(self)}."}
        body = json.dumps({"model": "m", "stream": True, "max_tokens": events, "messages": [message]})
        head = (
            f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer any-key-of-a-client\r\n"
        )
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        self._request = (head + body).encode()
        self._ended = asyncio.Event()
        self.lags: list[tuple[float, float]] = []

    async def run(self) -> None:
        """Read the response to its end."""
        await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", self._port)
        await self._ended.wait()

    def connection_made(self, transport: Any) -> None:
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        moment = time.perf_counter()
        self.lags += [(float(sent), 1e3 * (moment - float(sent))) for sent in _SENT.findall(data)]

    def connection_lost(self, _error: Exception | None) -> None:
        self._ended.set()


def provide(pace: int) -> None:
    """In a process of its own: print the port, and stream `max_tokens` events at this pace to each call."""
    asyncio.run(_provide(pace))


async def _provide(pace: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Provider(loop, pace), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class _Provider(asyncio.Protocol):
    """Sends each event with the time at which it is sent."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pace: int) -> None:
        self._loop = loop
        self._pace = pace
        self._request = b""
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._request += data
        head, blank, body = self._request.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        if blank and length is not None and len(body) >= int(length[1]):
            self._request, self._is_last = b"", b"connection: close" in head
            self._transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            self._left = int(json.loads(body)["max_tokens"])
            self._next = self._loop.time()
            self._send()

    def _send(self) -> None:
        if self._left == 0:
            self._chunk(
                b'data: {"id":"1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
            )
            self._transport.write(b"0\r\n\r\n")
            if self._is_last:
                self._transport.close()
            return
        self._left -= 1
        self._chunk(
            b'data: {"id":"chatcmpl-99BKWhGBPdzANFZ1wbRNpYb7na2sj","object":"chat.completion.chunk",'
            b'"created":1700000000,"model":"gpt-4o-2024-08-06","service_tier":"default","system_fingerprint":"fp_1f0d",'
            b'"choices":[{"index":0,"delta":{"content":" water"},"logprobs":null,"finish_reason":null}],"usage":null,'
            b'"obfuscation":"aB3xYz","sent":%.6f}\n\n' % time.perf_counter()
        )
        self._next += 1 / self._pace
        self._loop.call_at(self._next, self._send)

    def _chunk(self, data: bytes) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))
