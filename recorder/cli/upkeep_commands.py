"""Commands that move and change what is recorded.

Each imports its modules when it runs, so that `recorder --help` loads no SDK and no database driver.
"""

from __future__ import annotations

from typing import Annotated

import typer

from recorder.cli.options import Url, complete_id
from recorder.config import DEFAULT_URL


def analyze(
    id: Annotated[
        str | None,
        typer.Argument(
            help="Id of a conversation or run, or its first characters. Default: everything.",
            autocompletion=complete_id,
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    analyzers: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="NAME",
            help="sentiment, or your own as module:function; repeatable. Default: sentiment.",
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with what is recorded from now on, until Ctrl-C.")
    ] = False,
) -> None:
    """Evaluate stored messages and their sentences, and store the results.

    What is evaluated already stays as it is.
    """
    from recorder.cli import analyze

    raise typer.Exit(analyze.run(url, id, analyzers or ["sentiment"], follow))


def export(
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ID",
            help="Ids of conversations or runs. Default: everything.",
            autocompletion=complete_id,
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="File to write; .gz compresses it. Default: stdout."
        ),
    ] = None,
    to_otlp: Annotated[
        bool, typer.Option("--otlp", help="Send spans to a collector. Its URL may stand before the ids.")
    ] = False,
    conventions: Annotated[
        str | None, typer.Option(metavar="VERSION", help="With --otlp: version of the names, such as 1.41.")
    ] = None,
    content: Annotated[bool, typer.Option("--content", help="With --otlp: send messages, too.")] = False,
) -> None:
    """Write recordings to a file, as lines of JSON, or send them to a collector of OpenTelemetry.

    Without a URL, --otlp sends to OTEL_EXPORTER_OTLP_ENDPOINT, or else to http://localhost:4318.
    """
    from recorder.cli import otlp, transfer

    if to_otlp:
        raise typer.Exit(otlp.send(url, ids or [], output, conventions, content=content))
    otlp.refuse_without_otlp(conventions, content=content)
    raise typer.Exit(transfer.write_export(url, ids or [], output))


def import_(
    file: Annotated[str, typer.Argument(help="File that `recorder export` wrote; - is stdin.")],
    url: Url = DEFAULT_URL,
) -> None:
    """Read an export into a database.

    A database that does not exist is created. A second import of the same file changes nothing.
    """
    from recorder.cli import transfer

    raise typer.Exit(transfer.read_export(url, file))


def redact(
    pattern: Annotated[
        list[str],
        typer.Option(
            "--pattern", "-p", help="keys, email, card, phone, iban, ip, or a regular expression; repeatable."
        ),
    ],
    url: Url = DEFAULT_URL,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what would be replaced; change nothing.")
    ] = False,
) -> None:
    """Replace secrets in what is recorded, and remove the providers' bytes.

    It may be stopped and called again. Runs that stream are left out.
    """
    from recorder.cli import redact

    raise typer.Exit(redact.run(url, pattern, dry_run=dry_run))


def migrate(url: Url = DEFAULT_URL) -> None:
    """Upgrade a database to the newest schema.

    A database that does not exist is created.
    """
    from recorder.cli import console, queries

    console.echo(queries.upgrade_schema(url))
