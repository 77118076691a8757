"""The command line `recorder`: see a demonstration, and read what was recorded.

Errors are one message on stderr and exit code 1, never a traceback; a wrong usage is exit code 2.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from recorder import __version__
from recorder.config import DEFAULT_URL
from recorder.core.printable import printable
from recorder.errors import RecorderError

#: Set in the environment, it shows where an error comes from that nobody has foreseen.
TRACEBACK = "RECORDER_TRACEBACK"
_LONGEST_ERROR = 500

# Each command imports what it needs when it runs: `recorder --help` waits for no SDK and no database.


class _Commands(TyperGroup):
    """The commands, with errors told instead of shown as a traceback, in text that a terminal does not obey."""

    def make_context(self, *given: Any, **options: Any) -> Any:
        with _usage_errors_are_printable():
            return super().make_context(*given, **options)

    def invoke(self, ctx: Any) -> Any:
        try:
            with _usage_errors_are_printable():
                return super().invoke(ctx)
        except RecorderError as error:
            _tell(str(error))
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            if _is_usage_error(error) or getattr(error, "errno", None) == errno.EPIPE:
                raise
            _tell(_unforeseen(error))
        raise typer.Exit(1)


@contextmanager
def _usage_errors_are_printable() -> Iterator[None]:
    """They repeat what was typed, which may be an id out of a recording."""
    try:
        yield
    except Exception as error:
        if _is_usage_error(error):
            error.message = printable(error.message)  # type: ignore[attr-defined]
        raise


def _is_usage_error(error: Exception) -> bool:
    """Whether typer shows it by itself; older versions have another class for it."""
    return hasattr(error, "format_message")


def _unforeseen(error: Exception) -> str:
    """An error that nobody has words for, on one line, and how to see where it comes from."""
    if os.environ.get(TRACEBACK):
        return "".join(traceback.format_exception(error)).rstrip()
    text = " ".join(str(error).split())[:_LONGEST_ERROR]
    return f"{type(error).__name__}: {text}; {TRACEBACK}=1 shows where, please report it"


def _tell(message: str) -> None:
    typer.echo(f"recorder: {printable(message)}", err=True)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Every streamed token of your language-model application, in your own SQL database.",
)

Url = Annotated[
    str,
    typer.Option(
        "--url", envvar="RECORDER_URL", show_default=False, help=f"Database; {DEFAULT_URL} if not given."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What a terminal's encoding has no letter for is shown as its escape, not as a traceback.
            stream.reconfigure(errors="backslashreplace")
    app()


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"recorder {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Every streamed token of your language-model application, in your own SQL database."""


@app.command()
def demo(
    url: Url = DEFAULT_URL,
    pace: Annotated[float, typer.Option(min=1, help="Tokens a second.")] = 30.0,
) -> None:
    """Stream a song through the OpenAI SDK, record it, and show its rows; needs no key and no network."""
    from recorder.cli.demo import run

    raise typer.Exit(run(url, pace))


@app.command()
def chat(
    prompt: Annotated[str | None, typer.Argument(help="What to say first.", show_default=False)] = None,
    url: Url = DEFAULT_URL,
    conversation: Annotated[
        str | None, typer.Option("--conversation", "-c", metavar="ID", help="Go on with this one.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Name of the model.")] = None,
    provider: Annotated[
        str | None, typer.Option(help="openai, anthropic or loopback; the one whose key is set if not given.")
    ] = None,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="How the model should behave.")] = None,
) -> None:
    """Talk to a model and record it; Ctrl-C stops an answer and keeps what came."""
    from recorder.cli import chat

    raise typer.Exit(chat.run(chat.Wish(url, prompt, conversation, provider, model, system)))


@app.command()
def ls(
    url: Url = DEFAULT_URL,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, at most.")] = 20,
    json: Json = False,
) -> None:
    """List conversations, the newest first."""
    from recorder.cli import console, listing, queries, render

    rows = queries.read(url, lambda store: listing.conversations(store, limit))
    console.print_json_rows(rows) if json else render.conversations(rows)


@app.command()
def show(
    id: Annotated[str, typer.Argument(help="Id of a conversation or run; its beginning is enough.")],
    url: Url = DEFAULT_URL,
    tokens: Annotated[bool, typer.Option("--tokens", help="Every token of a run.")] = False,
    branch: Annotated[
        str | None, typer.Option("--branch", metavar="NAME", help="Only the path through this branch.")
    ] = None,
    json: Json = False,
) -> None:
    """Show one conversation or run."""
    from recorder.cli import console, queries, render

    kind, found = queries.read(url, lambda store: queries.one(store, id, tokens))
    if branch is not None:
        found = render.branch(kind, found, branch)
    if json:
        console.print_json(found)
    elif kind == "run":
        render.run(found)
    else:
        render.conversation(found)


@app.command()
def replay(
    id: Annotated[
        str | None,
        typer.Argument(help="A run or a conversation; the beginning is enough. The newest run if not given."),
    ] = None,
    url: Url = DEFAULT_URL,
    speed: Annotated[
        float | None,
        typer.Option(metavar="FACTOR", help="2 is twice as fast; 0.1 to 1000.", show_default=False),
    ] = None,
    instant: Annotated[bool, typer.Option("--instant", help="As fast as possible.")] = False,
    idle_time_limit: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="The longest silence.", show_default=False)
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="PLACE", help="A token's number (120) or seconds (2.5s) to begin at."),
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="PLACE", help="Where to stop.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on into a run that still streams.")] = False,
    frames: Annotated[bool, typer.Option("--frames", help="The provider's events, byte for byte.")] = False,
    json: Annotated[bool, typer.Option("--json", help="A line of JSON a token.")] = False,
) -> None:
    """Play a recorded stream again, at its own pace. In a terminal space pauses, . steps, q quits."""
    from recorder.cli import replay

    options = replay.options(speed, instant, idle_time_limit, start, until, follow)
    raise typer.Exit(replay.run(replay.ReplayOptions(url, id, options, frames, json)))


@app.command()
def tail(
    id: Annotated[
        str | None, typer.Argument(help="Only this run or conversation; the beginning is enough.")
    ] = None,
    url: Url = DEFAULT_URL,
    json: Annotated[bool, typer.Option("--json", help="A line of JSON a token.")] = False,
) -> None:
    """Follow what is being recorded now; Ctrl-C ends."""
    from recorder.cli import tail

    raise typer.Exit(tail.run(url, id, json))


@app.command()
def export(
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]...", help="Conversations or runs; everything if not given."),
    ] = None,
    url: Url = DEFAULT_URL,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="stdout if not given; .gz packs it.")
    ] = None,
) -> None:
    """Write recordings as JSON lines, to be imported into any database."""
    from recorder.cli import transfer

    raise typer.Exit(transfer.out(url, ids or [], output))


@app.command("import")
def import_(
    file: Annotated[str, typer.Argument(help="An export, packed with gzip or not; - is stdin.")],
    url: Url = DEFAULT_URL,
) -> None:
    """Read an export into a database, which is created if need be; the same again changes nothing."""
    from recorder.cli import transfer

    raise typer.Exit(transfer.back(url, file))


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help='A SELECT, e.g. "SELECT * FROM transcripts".')],
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Ask with SQL; only reads. The views are transcripts, tokens, chathistory and run_stats."""
    from recorder.cli import console, queries

    rows = queries.read(url, lambda store: queries.query(store, query))
    if json:
        console.print_json_rows(rows)
    elif rows:
        console.print_rows(rows)
    else:
        typer.echo("No rows.", err=True)


@app.command()
def stats(url: Url = DEFAULT_URL, json: Json = False) -> None:
    """Count what is stored, and its bytes on disk."""
    from recorder.cli import console, queries, render

    found = queries.read(url, lambda store: queries.totals(store, url))
    console.print_json(found) if json else render.totals(found)


@app.command()
def migrate(url: Url = DEFAULT_URL) -> None:
    """Bring a database to the newest schema; an empty one is created."""
    from recorder.cli import console, queries

    console.echo(queries.upgraded(url))
