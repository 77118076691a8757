"""`recorder demo`: records a song that streams through the OpenAI SDK, shows its rows, and replays its end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.cli import console, queries, replay
from recorder.cli.options import SERVE_PORT
from recorder.cli.program import program
from recorder.config import default_url
from recorder.core.clock import now
from recorder.core.ids import new_id
from recorder.messages import HumanMessage
from recorder.models import ChatOpenAI
from recorder.storage.dialects import masked
from recorder.testing import LoopbackProvider, pieces_of, song_pieces
from recorder.testing.song import VERSES

PROMPT = "Write me a song about sparkling water."
#: The exit code of a program that Ctrl-C ended, as shells report it.
INTERRUPTED = 130

_TRANSCRIPT = """SELECT role, status, length(content) AS letters,
       substr(content, 1, 24) AS begins
FROM transcripts
WHERE conversation_id = '{conversation}'"""

_TOKENS = """SELECT seq, at_us, kind, text FROM tokens
WHERE run_id = '{run}'
ORDER BY seq DESC LIMIT 5"""

_STATS = """SELECT status, token_count AS tokens,
       round(time_to_first_token_ms, 1) AS first_ms,
       round(tokens_per_second, 1) AS per_s,
       round(gap_p95_ms, 1) AS gap_p95_ms
FROM run_stats
WHERE run_id = '{run}'"""


@dataclass(slots=True)
class _DemoRun:
    """The recorded song."""

    conversation: str
    run: str
    #: Tokens that were printed, and tokens that were committed when the last one was printed.
    printed: int = 0
    committed: int = 0
    stopped: bool = False


def run(url: str, pace: float) -> int:
    """Record the song, show its rows, and replay its end; returns the exit code. Raises `RecorderError`."""
    recorded = _DemoRun(conversation=f"demo-{now():%Y%m%d-%H%M%S}", run=new_id())
    with (
        ChatHistoryCallback(url, conversation_id=recorded.conversation, strict=True) as history,
        LoopbackProvider.song(tokens_per_second=pace) as provider,
        no_proxy(),
    ):
        _introduce(url, pace)
        _stream(recorded, provider, history)
    _show(recorded, url)
    code = INTERRUPTED if recorded.stopped else _replay_end(recorded, url)
    _suggest(recorded, url)
    return code


def _introduce(url: str, pace: float) -> None:
    console.echo(
        f"A provider on this machine streams {pace:.0f} tokens per second.",
        "The OpenAI SDK reads them from a socket, and each token is",
        f"recorded in {masked(url)}",
        "while it streams. Ctrl-C stops it; the tokens that arrived",
        "stay recorded.",
        "",
        f"> {PROMPT}",
        "",
    )


def _stream(recorded: _DemoRun, provider: LoopbackProvider, history: ChatHistoryCallback) -> None:
    """Print the song as it streams; Ctrl-C ends the stream like a `break` in the loop."""
    chat = ChatOpenAI(
        model="gpt-5.4-mini", base_url=provider.base_url, api_key="demo", streaming=True, callbacks=[history]
    )
    try:
        for chunk in chat.stream([HumanMessage(PROMPT)], config={"run_id": recorded.run}):
            if chunk.content:
                print(chunk.content, end="", flush=True)
                recorded.printed += 1
                recorded.committed = history.stats().committed
    except KeyboardInterrupt:
        recorded.stopped = True
    print("\n")


@contextmanager
def no_proxy() -> Iterator[None]:
    """Exempts 127.0.0.1 from the environment's HTTP proxy, so that the SDK can reach a provider in this process."""
    before = {name: os.environ.get(name) for name in ("no_proxy", "NO_PROXY")}
    for name, value in before.items():
        os.environ[name] = f"{value},127.0.0.1" if value else "127.0.0.1"
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _show(recorded: _DemoRun, url: str) -> None:
    if recorded.stopped:
        console.echo(f"Stopped. The {recorded.printed} tokens that arrived are recorded:", "")
    else:
        console.echo(
            f"{recorded.printed} tokens arrived; {recorded.committed} of them were in the database when",
            "the last one arrived. Now all are:",
            "",
        )
    _print_query(url, _TRANSCRIPT.format(conversation=recorded.conversation))
    console.echo("The last tokens; at_us is microseconds since the request:", "")
    _print_query(url, _TOKENS.format(run=recorded.run))
    console.echo("The speed, in milliseconds and tokens per second:", "")
    _print_query(url, _STATS.format(run=recorded.run))


def _replay_end(recorded: _DemoRun, url: str) -> int:
    """Replay the end of the song from the database; the exit code."""
    start = len(song_pieces()) - len(pieces_of(VERSES[-1].rstrip()))
    console.echo("A replay of the last lines, at twice the speed:", "")
    console.echo(f"  {program()} replay --from {start} --speed 2{_url_option(url)}", "")
    options = replay.options(2, False, None, str(start), None, False)
    code = replay.run(replay.ReplayOptions(url, recorded.run, options, quiet=True))
    console.echo("")
    return code


def _suggest(recorded: _DemoRun, url: str) -> None:
    command, option = program(), _url_option(url)
    console.echo(
        "Next:",
        f"  {command} show {recorded.conversation}{option}",
        f"  {command} ls{option}",
        f"  {command} stats{option}",
        f"  {command} serve{option}",
        "",
        "While the last one runs, a browser shows all of it at",
        f"http://127.0.0.1:{SERVE_PORT}/#/c/{recorded.conversation}",
    )


def _url_option(url: str) -> str:
    """The option that names this database; "" for the default one."""
    return "" if url == default_url() else f" --url {masked(url)}"


def _print_query(url: str, sql: str) -> None:
    """Print a statement and its rows."""
    console.echo(*(f"  {line}" for line in sql.splitlines()), "")
    rows = queries.read(url, lambda store: queries.query(store, sql))
    if rows:
        console.print_rows(rows)
    console.echo("")
