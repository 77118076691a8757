"""Arguments and options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

from recorder.config import DEFAULT_URL

Url = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="RECORDER_URL",
        show_default=False,
        help=f"Database URL, or a SQLite file. Default: {DEFAULT_URL}.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
