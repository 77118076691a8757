"""`python -m recorder.testing`: the loopback provider in the foreground, until interrupted."""

from __future__ import annotations

import argparse
import signal
import sys
import threading

from recorder.testing.provider import LoopbackProvider


def main() -> None:
    """Print the base URL, then serve until SIGINT or SIGTERM, or until stdin ends with `--until-eof`."""
    options = _options()
    provider = LoopbackProvider.song(
        tokens_per_second=options.tokens_per_second,
        tokens=options.tokens,
        chunks=options.chunk_bytes,
        host=options.host,
        port=options.port,
    )
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with provider:
        print(provider.base_url, flush=True)
        if options.until_eof:
            sys.stdin.read()
        else:
            stop.wait()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m recorder.testing",
        description="Run a model provider on this machine that answers with a song.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 chooses a free one")
    parser.add_argument("--tokens-per-second", type=float, help="speed of each stream; default: no pauses")
    parser.add_argument("--tokens", type=int, help="tokens in each stream; default: the song once")
    parser.add_argument(
        "--chunk-bytes", type=int, help="size of the HTTP chunks; default: one for each event"
    )
    parser.add_argument("--until-eof", action="store_true", help="serve until standard input ends")
    return parser.parse_args()


if __name__ == "__main__":
    main()
