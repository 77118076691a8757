"""`recorder demo`: a song streams through the real SDK over a real socket, comes out of SQL, and plays again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from recorder.cli import console, queries, replay
from recorder.config import default_url
from recorder.core.clock import now
from recorder.core.ids import new_id
from recorder.history import ChatHistoryCallback
from recorder.messages import HumanMessage
from recorder.models import ChatOpenAI
from recorder.storage.dialects import masked
from recorder.testing import LoopbackProvider, pieces_of, song_pieces
from recorder.testing.song import VERSES

PROMPT = "Write me a song about sparkling water."
#: What a shell reports for a program that Ctrl-C ended.
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
class _Sung:
    """What is known when the song is over."""

    conversation: str
    run: str
    #: Tokens printed, and how many of them were committed when the last one was.
    printed: int = 0
    committed: int = 0
    stopped: bool = False


def run(url: str, pace: float) -> int:
    """Sing, record, show what is stored, and play it again; the exit code. Raises `RecorderError` for a bad `url`."""
    sung = _Sung(conversation=f"demo-{now():%Y%m%d-%H%M%S}", run=new_id())
    with (
        ChatHistoryCallback(url, conversation_id=sung.conversation, strict=True) as history,
        LoopbackProvider.song(tokens_per_second=pace) as provider,
        reachable(),
    ):
        _introduce(url, pace)
        _sing(sung, provider, history)
    _show(sung, url)
    code = INTERRUPTED if sung.stopped else _again(sung, url)
    _suggest(sung, url)
    return code


def _introduce(url: str, pace: float) -> None:
    _say(
        f"A provider on this machine sings {pace:.0f} tokens a second.",
        "The OpenAI SDK reads them from a real socket, and each is",
        f"recorded in {masked(url)}",
        "while it streams. Ctrl-C stops; what came is kept.",
        "",
        f"> {PROMPT}",
        "",
    )


def _sing(sung: _Sung, provider: LoopbackProvider, history: ChatHistoryCallback) -> None:
    """Print the song as it comes; Ctrl-C ends the stream as a user's break would."""
    chat = ChatOpenAI(
        model="gpt-4o-mini", base_url=provider.base_url, api_key="demo", streaming=True, callbacks=[history]
    )
    try:
        for chunk in chat.stream([HumanMessage(PROMPT)], config={"run_id": sung.run}):
            if chunk.content:
                print(chunk.content, end="", flush=True)
                sung.printed += 1
                sung.committed = history.stats().committed
    except KeyboardInterrupt:
        sung.stopped = True
    print("\n")


@contextmanager
def reachable() -> Iterator[None]:
    """No proxy of the environment stands between this process and itself."""
    before = {name: os.environ.get(name) for name in ("no_proxy", "NO_PROXY")}
    for name, value in before.items():
        os.environ[name] = f"{value},127.0.0.1" if value else "127.0.0.1"
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _show(sung: _Sung, url: str) -> None:
    if sung.stopped:
        _say(f"Stopped. The {sung.printed} tokens that came are kept:", "")
    else:
        _say(
            f"{sung.printed} tokens came, and {sung.committed} were in the database when the",
            "last one did. Now all are:",
            "",
        )
    _ask(url, _TRANSCRIPT.format(conversation=sung.conversation))
    _say("The last tokens; at_us is microseconds since the request:", "")
    _ask(url, _TOKENS.format(run=sung.run))
    _say("How fast it was, in milliseconds and tokens a second:", "")
    _ask(url, _STATS.format(run=sung.run))


def _again(sung: _Sung, url: str) -> int:
    """Play the end of the song from the database; the exit code."""
    start = len(song_pieces()) - len(pieces_of(VERSES[-1].rstrip()))
    _say("And its last lines again, twice as fast as they came:", "")
    _say(f"  recorder replay --from {start} --speed 2{_named(url)}", "")
    options = replay.options(2, False, None, str(start), None, False)
    code = replay.run(replay.ReplayOptions(url, sung.run, options, quiet=True))
    _say("")
    return code


def _suggest(sung: _Sung, url: str) -> None:
    named = _named(url)
    _say(
        "Next:",
        f"  recorder show {sung.conversation}{named}",
        f"  recorder ls{named}",
        f"  recorder stats{named}",
    )


def _named(url: str) -> str:
    """How a command names this database."""
    return "" if url == default_url() else f" --url {masked(url)}"


def _ask(url: str, sql: str) -> None:
    """Print a statement and what it finds."""
    _say(*(f"  {line}" for line in sql.splitlines()), "")
    rows = queries.read(url, lambda store: queries.query(store, sql))
    if rows:
        console.print_rows(rows)
    _say("")


def _say(*lines: str) -> None:
    """Lines as they are: short enough for a narrow terminal, never wrapped in the middle of an id."""
    console.echo(*lines)
