"""Arguments and options that several commands have."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from recorder.config import DEFAULT_URL, default_url

#: The port of `recorder serve`.
SERVE_PORT = 8765


def complete_id(ctx: typer.Context, incomplete: str) -> list[str]:
    """The ids for a shell that completes this beginning; none without a database."""
    url = ctx.params.get("url") or default_url()
    if _is_missing_file(url):
        return []
    from recorder.cli import completion

    return completion.ids(url, incomplete)


def _is_missing_file(url: str) -> bool:
    """Whether the URL certainly names a SQLite file that does not exist; found without a database library."""
    path = url.removeprefix("sqlite:///")
    return "://" not in path and "?" not in path and not os.path.exists(os.path.expanduser(path))


Url = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="RECORDER_URL",
        show_default=False,
        help=f"Database URL, or a SQLite file. Default: {DEFAULT_URL}.",
    ),
]
Id = Annotated[
    str | None,
    typer.Argument(
        help="Id of a conversation or run, or its first characters. Default: the newest run.",
        autocompletion=complete_id,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
