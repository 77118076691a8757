"""Commands that record: a demonstration, a program, a chat.

Each imports its modules when it runs, so that `recorder --help` loads no SDK and no database driver.
"""

from __future__ import annotations

from typing import Annotated

import typer

from recorder.cli.options import Url, complete_id
from recorder.config import DEFAULT_URL


def demo(
    url: Url = DEFAULT_URL,
    pace: Annotated[float, typer.Option(min=1, help="Tokens per second.")] = 30.0,
) -> None:
    """Record a song that streams through the OpenAI SDK, and show its rows.

    It needs no API key and no network: the provider runs on this machine.
    """
    from recorder.cli.demo import run

    raise typer.Exit(run(url, pace))


def run(
    program: Annotated[
        list[str], typer.Argument(help="A Python file or a command, and its arguments.", show_default=False)
    ],
    url: Url = DEFAULT_URL,
    module: Annotated[
        bool, typer.Option("-m", help="The program is a module, as for `python -m`.", show_default=False)
    ] = False,
    include_host: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help='Record calls to these hosts only, for example "*.openai.com".'),
    ] = None,
    exclude_host: Annotated[
        list[str] | None, typer.Option(metavar="HOST", help="Record no calls to these hosts.")
    ] = None,
) -> None:
    """Run a program and record its model calls, without a change to its code.

    It records what goes through httpx: OpenAI, Anthropic, LangChain and others.

    For example: recorder run app.py --port 8000
    """
    from recorder.cli import run

    run.run(program, url, is_module=module, included=include_host or [], excluded=exclude_host or [])


def chat(
    prompt: Annotated[str | None, typer.Argument(help="The first message.", show_default=False)] = None,
    url: Url = DEFAULT_URL,
    conversation: Annotated[
        str | None,
        typer.Option(
            "--conversation",
            "-c",
            metavar="ID",
            help="Continue this conversation.",
            autocompletion=complete_id,
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Name of the model.")] = None,
    provider: Annotated[
        str | None,
        typer.Option(
            help="openai, anthropic, or loopback (on this machine). Default: the one whose API key is set."
        ),
    ] = None,
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="System message for a new conversation.")
    ] = None,
) -> None:
    """Chat with a model, and record every token.

    Ctrl-C stops an answer; the tokens that have arrived stay recorded.
    """
    from recorder.cli import chat

    raise typer.Exit(chat.run(chat.ChatOptions(url, prompt, conversation, provider, model, system)))
