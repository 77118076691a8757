"""The server: thousands of readers of one live run, and ten readers of each of many runs."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from benchmarks import ours
from benchmarks.harness import Measured, Settings, Side, best, compare, values
from benchmarks.table import Row, each
from benchmarks.workload import percentile
from recorder.core.ids import new_id

TITLE = "Serving"
#: As `Config.flush_interval`; a token waits for it before it is stored.
FLUSH = 0.1
#: Tokens per second of a run.
PACE = 50
#: All readers of a long run would take ten minutes to get all of it (seconds).
_READS_FOR = 20.0
#: Events are parsed for one of so many readers; the others only count bytes, so that the load takes less CPU.
_SAMPLED = 40


def rows(settings: Settings) -> list[Row]:
    """On SQLite; the server, the recorder and the readers, each in a process of its own."""
    seconds = settings.size(20, 4)
    shapes = {"one": (1, settings.size(2_000, 100)), "many": (settings.size(200, 10), 10)}
    sides = {
        name: Side(
            "benchmarks.serve:followed", {"runs": runs, "readers": readers, "seconds": seconds}, folder=True
        )
        for name, (runs, readers) in shapes.items()
    }
    long = {"tokens": settings.size(1_000_000, 20_000), "readers": settings.size(100, 5)}
    sides["long"] = Side("benchmarks.serve:long_run", long, folder=True)
    found = compare(sides, min(settings.rounds, 3))
    lines: list[Row] = []
    for name, (runs, readers) in shapes.items():
        what = f"{runs} live runs of {PACE} tokens/s, {readers:,} readers each: "
        lag, cpu = best(found[name], "p99_ms"), best(found[name], "cpu")
        memory = best(found[name], "kib_a_reader")
        lines += [
            Row(what + "lag beyond the flush interval, p99", f"{lag:.0f} ms",
                each(values(found[name], "p99_ms"), ",.0f"), "", "under 500 ms", lag < 500),
            Row(what + "the server's CPU", f"{cpu:.2f} cores",
                each(values(found[name], "cpu"), ".2f"), "", "under 0.8 cores", cpu < 0.8),
            Row(what + "the server's memory, a reader", f"{memory:.0f} KiB",
                each(values(found[name], "kib_a_reader"), ",.0f"), "", "under 40 KiB", memory < 40),
        ]  # fmt: skip
    added = best(found["long"], "mib")
    what = f"a live run of {long['tokens']:,} tokens, {long['readers']} readers from its begin on: memory that it adds"
    return [
        *lines,
        Row(
            what,
            f"{added:.0f} MiB",
            each(values(found["long"], "mib"), ",.0f"),
            "",
            "under 50 MiB",
            added < 50,
        ),
    ]


def long_run(folder: str, tokens: int, readers: int) -> Measured:
    """The most memory that the server has while the readers read for some seconds, above that with one idle reader."""
    url = f"sqlite:///{Path(folder) / 'history.db'}"
    with ours.open_history(url) as history:
        run_ids = [UUID(new_id()) for _ in range(2)]
        for run_id, count in zip(run_ids, (1, tokens), strict=True):
            ours.start(history, run_id)
            for _ in range(count):
                history.on_llm_new_token("word ", run_id=run_id)
        history.flush().wait()
        with _serving(url) as (port, pid):
            idle, long = map(str, run_ids)
            return {"mib": asyncio.run(_memory_of_readers(port, pid, idle, long, tokens, readers))}


async def _memory_of_readers(
    port: int, server: int, idle: str, run_id: str, tokens: int, readers: int
) -> float:
    await _connect(_Reader(port, idle, None, 0.0), port)  # what the first reader needs is loaded
    before = _resident(server)
    everybody = [_TokenReader(port, run_id, tokens) for _ in range(readers)]
    for each_one in everybody:
        await _connect(each_one, port)
    reading = asyncio.gather(*(each_one.ended.wait() for each_one in everybody))
    most = before
    until = time.monotonic() + _READS_FOR
    while not reading.done() and time.monotonic() < until:
        await asyncio.wait({reading}, timeout=0.05)
        most = max(most, _resident(server))
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    return (most - before) / 2**20


def followed(folder: str, runs: int, readers: int, seconds: int) -> Measured:
    """The lag of the readers, and the CPU and memory of the server."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    url = f"sqlite:///{Path(folder) / 'history.db'}"
    code = f"from benchmarks.serve import record; record({url!r}, {runs}, {seconds})"
    recorder = _started([sys.executable, "-c", code])
    try:
        assert recorder.stdout is not None
        began = json.loads(recorder.stdout.readline())
        with _serving(url) as (port, pid):
            return asyncio.run(_measured(recorder, began, port, pid, readers))
    finally:
        recorder.terminate()
        recorder.communicate()


@contextmanager
def _serving(url: str) -> Iterator[tuple[int, int]]:
    """A server in a process of its own: its port and its process id."""
    server = _started([sys.executable, "-m", "recorder", "serve", "--url", url, "--port", "0"])
    try:
        assert server.stderr is not None
        found = re.search(r":(\d+);", server.stderr.readline())
        assert found is not None
        yield int(found[1]), server.pid
    finally:
        server.terminate()
        server.communicate()


def _started(command: list[str]) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def record(url: str, runs: int, seconds: int) -> None:
    """In a process of its own: begin the runs, print when they began, wait for a line, and record."""
    history = ours.open_history(url, flush_interval=FLUSH)
    ids = [UUID(new_id()) for _ in range(runs)]
    for run_id in ids:
        ours.start(history, run_id)
    history.flush().wait()
    print(json.dumps({str(run_id): _begun(history, run_id) for run_id in ids}), flush=True)
    sys.stdin.readline()
    began = time.monotonic()
    for number in range(seconds * PACE):
        time.sleep(max(0.0, began + number / PACE - time.monotonic()))
        for run_id in ids:
            history.on_llm_new_token("word ", run_id=run_id)
    for run_id in ids:
        ours.end(history, run_id, "x")
    history.close().wait()


def _begun(history: Any, run_id: UUID) -> float:
    found: datetime = history.recorder.find(run_id.int).start.started_at
    return found.timestamp()


async def _measured(
    recorder: subprocess.Popen[str], began: dict[str, float], port: int, server: int, readers: int
) -> Measured:
    lags: list[float] = []
    await _connect(_Reader(port, next(iter(began)), None, 0.0), port)  # what the first reader needs is loaded
    before = _resident(server)
    all_readers = [
        _Reader(port, run_id, lags if number % _SAMPLED == 0 else None, began[run_id])
        for number, run_id in enumerate(run_id for run_id in began for _ in range(readers))
    ]
    for start in range(0, len(all_readers), 100):
        await asyncio.gather(*(_connect(each, port) for each in all_readers[start : start + 100]))
    memory = (_resident(server) - before) / len(all_readers) / 1024
    used, moment = _cpu(server), time.monotonic()
    assert recorder.stdin is not None
    recorder.stdin.write("record\n")
    recorder.stdin.flush()
    await asyncio.gather(*(each.ended.wait() for each in all_readers))
    return {
        "p50_ms": percentile(lags, 0.5),
        "p99_ms": percentile(lags, 0.99),
        "cpu": (_cpu(server) - used) / (time.monotonic() - moment),
        "kib_a_reader": memory,
    }


class _Reader(asyncio.Protocol):
    """One connection. It notes for each token how long after its time, and after the flush interval, it came."""

    def __init__(self, port: int, run_id: str, lags: list[float] | None, began: float) -> None:
        self.request = f"GET /streams/{run_id} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n\r\n".encode()
        self.opened, self.ended = asyncio.Event(), asyncio.Event()
        self._lags = lags
        self._began = began

    def connection_made(self, transport: Any) -> None:
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.opened.set()
        if b"event: end\n" in data:
            self.ended.set()
        elif self._lags is not None:
            moment = time.time() - self._began - FLUSH
            for line in data.split(b"\n"):
                if line.startswith(b"data: "):
                    self._lags.append(1e3 * (moment - json.loads(line[6:])["at_us"] / 1e6))

    def connection_lost(self, _error: Exception | None) -> None:
        self.ended.set()


class _TokenReader(_Reader):
    """One connection, which has ended when so many tokens have come."""

    def __init__(self, port: int, run_id: str, tokens: int) -> None:
        super().__init__(port, run_id, None, 0.0)
        self._left = tokens

    def data_received(self, data: bytes) -> None:
        self.opened.set()
        self._left -= data.count(b"data: ")
        if self._left <= 0:
            self.ended.set()


async def _connect(reader: _Reader, port: int) -> None:
    await asyncio.get_running_loop().create_connection(lambda: reader, "127.0.0.1", port)
    await reader.opened.wait()


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
