"""`recorder serve`: recordings over HTTP and WebSocket."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from rich.text import Text

from recorder.cli import console, queries
from recorder.cli.provider_options import NO_PROVIDERS, ProviderOptions
from recorder.errors import ConfigError
from recorder.server import missing
from recorder.storage.dialects import masked
from recorder.storage.store import SqlStore


def run(
    url: str, host: str, port: int, tokens: Sequence[str], hosts: Sequence[str], origins: Sequence[str],
    providers: ProviderOptions = NO_PROVIDERS,
) -> int:  # fmt: skip
    """Serve until Ctrl-C or SIGTERM; the exit code. Raises `RecorderError` for whatever prevents it from starting."""
    try:
        from recorder.cli import provider_answers
        from recorder.server.access import Access, tokens_from
        from recorder.server.app import app_for
        from recorder.server.database import ServedDatabase
        from recorder.server.proxy.provider_paths import ProviderPaths
        from recorder.server.serving import RecorderServer, listen
    except ModuleNotFoundError as error:
        raise missing(error) from error
    if not tokens and not _is_loopback(host):
        raise ConfigError(
            f"--host {host} can be reached by other machines, so a token is needed; give --token or RECORDER_TOKEN, "
            "or listen on 127.0.0.1"
        )
    access = Access(tokens_from(tokens), hosts or None, origins)
    upstreams = providers.upstreams()
    history = provider_answers.new_history(url) if providers.proxy else None
    with history or nullcontext():
        if history is None or history.stats().healthy:
            queries.read(url, _checked)
        database = ServedDatabase(url)
        app: Any = app_for(database, access, origins)
        answers = provider_answers.answers_of(database, history, providers)
        if answers is not None:  # around the application: its middleware would add to the cost of each chunk
            app = ProviderPaths(app, access, upstreams, answers)
        server = RecorderServer(
            app, database, listen(host, port), answers=answers, drain_within=providers.drain_within
        )
        address = f"[{host}]" if ":" in host else host
        console.notice(Text(f"Serving {masked(url)} at http://{address}:{server.port}; Ctrl-C ends."))
        server.run()
    return 0


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _checked(store: SqlStore) -> None:
    """Reading has opened the database, and has raised for one that is away, older, newer or foreign."""
