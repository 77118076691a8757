"""Commands that read what is recorded.

Each imports its modules when it runs, so that `recorder --help` loads no SDK and no database driver.
"""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from recorder.cli.options import SERVE_PORT, Id, Json, Url, complete_id
from recorder.cli.provider_options import (
    AsProvider,
    DrainWithin,
    MaxGap,
    ProviderOptions,
    Proxy,
    Speed,
    Upstreams,
)
from recorder.config import DEFAULT_URL


def ls(
    url: Url = DEFAULT_URL,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="List at most this many.")] = 20,
    every: Annotated[bool, typer.Option("--all", help="List all of them.")] = False,
    status: Annotated[
        str | None, typer.Option(metavar="STATUS", help="Whose newest run has this status.")
    ] = None,
    user: Annotated[str | None, typer.Option(metavar="ID", help="Of this user.")] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="With a run of this model.")] = None,
    tag: Annotated[
        str | None, typer.Option(metavar="TAG", help="That has this tag, or a run with it.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Last used then or later: 2026-11-21, 2026-11-21T10:30, 2h or 3d."),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Last used then or earlier; written like --since.")
    ] = None,
    json: Json = False,
) -> None:
    """List the conversations, newest first.

    Times are UTC. A duration is counted back from now.
    """
    from recorder.cli import listing
    from recorder.storage import conversation_filter

    wanted = conversation_filter.from_options(status, user, model, tag, since, until)
    listing.run(url, None if every else limit, wanted, as_json=json)


def search(
    query: Annotated[
        str,
        typer.Argument(help='Words that a message must have, and "phrases in quotes".', show_default=False),
    ],
    url: Url = DEFAULT_URL,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=500, help="At most so many messages.")
    ] = 20,
    user: Annotated[str | None, typer.Option(metavar="ID", help="In conversations of this user.")] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="In conversations with a run of this model.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Messages of then or later: 2026-11-21, 2026-11-21T10:30, 2h or 3d."
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Messages of then or earlier; written like --since.")
    ] = None,
    json: Json = False,
) -> None:
    """Find messages by their words, the newest first.

    Upper and lower case are the same. Words are found as a whole; in Chinese, Japanese, Korean, Thai, Arabic and other
    scripts any part of a text is found.
    """
    from recorder.cli import search
    from recorder.storage.search.search import searched

    wanted = searched(user, model, None, None, since, until, prefix="--")
    search.run(url, query, wanted, limit, as_json=json)


def show(
    id: Id = None,
    url: Url = DEFAULT_URL,
    tokens: Annotated[bool, typer.Option("--tokens", help="List every token of a run.")] = False,
    branch: Annotated[
        str | None,
        typer.Option(
            "--branch", metavar="NAME", help="Show only this branch of a conversation, for example 2.1."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show a conversation, a run, or a chain with all runs in it."""
    from recorder.cli import console, queries, render

    kind, found = queries.read(url, lambda store: queries.one(store, id, tokens))
    if branch is not None:
        found = render.branch(kind, found, branch)
    if json:
        console.print_json(found)
    else:
        render.show(kind, found)


def replay(
    id: Id = None,
    url: Url = DEFAULT_URL,
    speed: Annotated[
        float | None,
        typer.Option(metavar="FACTOR", help="2 is twice as fast; from 0.1 to 1000.", show_default=False),
    ] = None,
    instant: Annotated[bool, typer.Option("--instant", help="Replay as fast as possible.")] = False,
    idle_time_limit: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Shorten longer pauses to this.", show_default=False),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="PLACE", help="Start at this token (120) or time in seconds (2.5s)."),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="PLACE", help="Stop there; written like --from.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="If the run still streams, continue until it ends.")
    ] = False,
    frames: Annotated[
        bool, typer.Option("--frames", help="Print the provider's events, byte for byte.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one line of JSON per token.")] = False,
) -> None:
    """Replay a recorded stream at its original speed.

    Keys in a terminal: space pauses and continues, . shows the next token while paused, q quits.
    """
    from recorder.cli import replay

    options = replay.options(speed, instant, idle_time_limit, start, until, follow)
    raise typer.Exit(replay.run(replay.ReplayOptions(url, id, options, frames, json)))


def tail(
    id: Annotated[
        str | None,
        typer.Argument(
            help="Id of a run or conversation, or its first characters. Default: all runs.",
            autocompletion=complete_id,
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    json: Annotated[bool, typer.Option("--json", help="Print one line of JSON per token.")] = False,
) -> None:
    """Show tokens as they are recorded, until Ctrl-C."""
    from recorder.cli import tail

    raise typer.Exit(tail.run(url, id, json))


def sql(
    query: Annotated[
        str | None,
        typer.Argument(
            help='A SELECT, for example "SELECT * FROM transcripts"; - is stdin.', show_default=False
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    file: Annotated[
        str | None,
        typer.Option("--file", "-f", metavar="FILE", help="Read the SELECT from this file; - is stdin."),
    ] = None,
    json: Json = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV with a line of names.")] = False,
) -> None:
    """Run a SELECT, and print its rows.

    The views are transcripts, tokens, chathistory and run_stats. Statements that write are refused.
    """
    from recorder.cli import sql

    sql.run(url, query, file, as_json=json, as_csv=csv)


def stats(
    url: Url = DEFAULT_URL,
    cost: Annotated[bool, typer.Option("--cost", help="Show what the runs cost instead.")] = False,
    fill: Annotated[
        bool, typer.Option("--fill", help="With --cost: first estimate missing usage and set missing costs.")
    ] = False,
    json: Json = False,
) -> None:
    """Count what is stored, and show its size on disk; or what the runs cost.

    Costs are US dollars, by the prices on the day of each run.
    """
    if cost or fill:
        from recorder.cli import costs

        costs.run(url, as_json=json, fill_in=fill)
    else:
        from recorder.cli import console, queries, render

        found = queries.read(url, lambda store: queries.totals(store, url))
        console.print_json(found) if json else render.totals(found)


def doctor(url: Url = DEFAULT_URL, json: Json = False) -> None:
    """Say whether a database is being recorded into, and what is wrong with it.

    It only reads. Exit code 0: nothing is wrong. Exit code 1: something is.
    """
    from recorder.cli import doctor, doctor_report

    found = doctor.examine(url)
    doctor_report.print_diagnosis(found, json=json)
    raise typer.Exit(0 if found.is_well else 1)


def serve(
    url: Url = DEFAULT_URL,
    host: Annotated[str, typer.Option(help="Listen on this address.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Listen on this port; 0 takes a free one.")
    ] = SERVE_PORT,
    token: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[USER:]TOKEN",
            envvar="RECORDER_TOKEN",
            show_envvar=True,
            help="Let those read who have this token, or only what belongs to this user. Several are possible.",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Answer requests to this host name.")
    ] = None,
    allow_origin: Annotated[
        list[str] | None, typer.Option(metavar="URL", help="Let pages of this origin read.")
    ] = None,
    proxy: Proxy = False,
    replay: AsProvider = False,
    upstream: Upstreams = None,
    speed: Speed = 1.0,
    max_gap: MaxGap = None,
    drain_within: DrainWithin = 5,
    config: Annotated[
        str | None, typer.Option(metavar="FILE", help="The models that clients may call, as TOML.")
    ] = None,
    log_format: Annotated[
        Literal["text", "json"] | None, typer.Option(help="Write a line for each request to stderr.")
    ] = None,
) -> None:
    """Serve recordings over HTTP and WebSocket, live and finished ones, and call models."""
    from recorder.cli import serve

    providers = ProviderOptions(proxy, replay, upstream or (), speed, max_gap, drain_within)
    hosts, origins = allow_host or [], allow_origin or []
    raise typer.Exit(serve.run(url, host, port, token or [], hosts, origins, config, log_format, providers))
