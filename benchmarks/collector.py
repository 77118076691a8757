"""A server on this machine that accepts whatever a tracer sends, and says afterwards how often a text was in it.

It is a process of its own, so that its work is not counted as the tracer's: `python -m benchmarks.collector`.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from benchmarks.harness import ROOT, environment

#: What LangSmith's server says of itself: its client's own defaults, with compression.
_INFO = {
    "version": "1",
    "batch_ingest_config": {
        "use_multipart_endpoint": True,
        "scale_up_qsize_trigger": 1000,
        "scale_up_nthreads_limit": 16,
        "scale_down_nempty_trigger": 4,
        "size_limit": 100,
        "size_limit_bytes": 20 * 2**20,
    },
    "instance_flags": {"zstd_compression_enabled": True},
}


class Collector:
    """The server, as its user sees it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def count(self, *texts: str) -> list[int]:
        """How often each text was in what was sent."""
        request = urllib.request.Request(f"{self.url}/count", json.dumps(texts).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=30) as response:
            found: list[int] = json.load(response)
        return found


@contextmanager
def collector() -> Iterator[Collector]:
    """Runs the server."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.collector"], cwd=ROOT, env=environment(), stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            yield Collector(process.stdout.readline().strip())
        finally:
            process.communicate("")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    #: What was sent, decoded.
    bodies: list[bytes] = []  # noqa: RUF012 - one list for all requests

    def do_GET(self) -> None:
        self._answer(_INFO)

    def do_POST(self) -> None:
        body = self._body()
        if self.path == "/count":
            self._answer(
                [sum(each.count(text.encode()) for each in self.bodies) for text in json.loads(body)]
            )
        else:
            self.bodies.append(_decoded(body, self.headers.get("content-encoding")))
            self._answer({})

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        return b"".join(iter(self._chunk, b""))

    def _chunk(self) -> bytes:
        data = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return data

    def _answer(self, found: Any) -> None:
        body = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: Any) -> None:
        """Nothing is logged."""


def _decoded(body: bytes, encoding: str | None) -> bytes:
    import zstandard

    decoders: dict[str | None, Callable[[bytes], bytes]] = {
        "gzip": gzip.decompress,
        "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
    }
    return decoders[encoding](body) if encoding in decoders else body


def main() -> None:
    """Serve until the standard input ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
