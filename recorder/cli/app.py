"""The command line `recorder`: it reads, replays and moves what was recorded, and has a demonstration.

An error is one message on stderr and exit code 1, without a traceback. A usage error is exit code 2.
"""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from recorder.cli import reading_commands, recording_commands, upkeep_commands
from recorder.cli.command_group import CommandGroup
from recorder.core.version import VERSION

app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Records every streamed token of a language-model application in your own SQL database.",
)


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Characters that the terminal's encoding lacks are printed as escapes; otherwise printing would fail.
            stream.reconfigure(errors="backslashreplace")
    app()


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"recorder {VERSION}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Records every streamed token of a language-model application in your own SQL database."""


# In the order of the help.
app.command()(recording_commands.demo)
app.command(context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True})(
    recording_commands.run
)
app.command()(recording_commands.chat)
app.command()(reading_commands.ls)
app.command()(reading_commands.search)
app.command()(reading_commands.show)
app.command()(reading_commands.replay)
app.command()(reading_commands.tail)
app.command()(upkeep_commands.analyze)
app.command()(upkeep_commands.export)
app.command("import")(upkeep_commands.import_)
app.command()(reading_commands.sql)
app.command()(reading_commands.stats)
app.command()(reading_commands.doctor)
app.command()(reading_commands.serve)
app.command()(upkeep_commands.redact)
app.command()(upkeep_commands.migrate)
