"""`recorder serve`: recordings over HTTP and WebSocket."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from contextlib import closing, nullcontext
from functools import partial
from typing import Literal

from rich.text import Text

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.cli import console, queries
from recorder.errors import ConfigError
from recorder.server import missing
from recorder.storage.dialects import masked
from recorder.storage.store import SqlStore

#: The file descriptor of the log.
_STDERR = 2


def run(
    url: str, host: str, port: int, tokens: Sequence[str], hosts: Sequence[str], origins: Sequence[str],
    config: str | None = None, log_format: Literal["text", "json"] | None = None,
) -> int:  # fmt: skip
    """Serve until Ctrl-C or SIGTERM; the exit code. Raises `RecorderError` for whatever prevents it from starting."""
    try:
        from recorder.cli.served_models import configured_models
        from recorder.server.access import Access, tokens_from
        from recorder.server.app import app_for
        from recorder.server.chat_runs import ChatRuns
        from recorder.server.configuration import Configuration, read_configuration
        from recorder.server.database import ServedDatabase
        from recorder.server.log_output import logging_to
        from recorder.server.serving import RecorderServer, listen
    except ModuleNotFoundError as error:
        raise missing(error) from error
    if not tokens and not _is_loopback(host):
        raise ConfigError(
            f"--host {host} can be reached by other machines, so a token is needed; give --token or RECORDER_TOKEN, "
            "or listen on 127.0.0.1"
        )
    access = Access(tokens_from(tokens), hosts or None, origins)
    configuration = Configuration() if config is None else read_configuration(config)
    models = configured_models(configuration)
    address = f"[{host}]" if ":" in host else host
    with closing(listen(host, port)) as listening:
        if models:
            history = ChatHistoryCallback(url, **{"strict": True, **configuration.recorder})
            database = ServedDatabase(url, own_history=history)
        else:
            queries.read(url, _checked)
            database = ServedDatabase(url)
        chats = ChatRuns(database, models, configuration.chat)
        server = RecorderServer(app_for(database, access, origins, chats), database, listening, chats=chats)
        console.notice(Text(f"Serving {masked(url)} at http://{address}:{server.port}; Ctrl-C ends."))
        with nullcontext() if log_format is None else logging_to(partial(os.write, _STDERR), log_format):
            server.run()
    return 0


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _checked(store: SqlStore) -> None:
    """Reading has opened the database, and has raised for one that is away, older, newer or foreign."""
