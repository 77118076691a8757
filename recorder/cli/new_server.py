"""Makes the server of `recorder serve` from its options: application, recorder, and providers' paths."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import Any

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.cli import queries
from recorder.cli.provider_answers import answers_of, new_history
from recorder.cli.provider_options import ProviderOptions
from recorder.cli.served_models import configured_models
from recorder.server.access import Access
from recorder.server.app import app_for
from recorder.server.chat_runs import ChatRuns
from recorder.server.configuration import Configuration, UpstreamTable
from recorder.server.database import ServedDatabase
from recorder.server.proxy.provider_paths import ProviderPaths
from recorder.server.proxy.upstreams import Upstream
from recorder.server.serving import RecorderServer
from recorder.storage.store import SqlStore


def new_server(
    url: str, listening: socket.socket, access: Access, origins: Sequence[str], configuration: Configuration,
    providers: ProviderOptions,
) -> RecorderServer:  # fmt: skip
    """A server that is ready to run, and closes its recorder. Raises `RecorderError` for whatever prevents that."""
    models = configured_models(configuration)
    upstreams = providers.upstreams(_configured_upstreams(configuration.upstreams))
    history = None
    if models or providers.proxy:
        history = _history(url, configuration.recorder, is_proxy=providers.proxy)
    else:
        queries.read(url, _checked)
    database = ServedDatabase(url, own_history=history)
    chats = ChatRuns(database, models, configuration.chat)
    app: Any = app_for(database, access, origins, chats)
    answers = answers_of(database, history, providers)
    if answers is not None:  # around the application: its middleware would add to the cost of each chunk
        app = ProviderPaths(app, access, upstreams, answers)
    return RecorderServer(
        app, database, listening, chats=chats, answers=answers, drain_within=providers.drain_within
    )


def _configured_upstreams(tables: Mapping[str, UpstreamTable]) -> dict[str, Upstream]:
    """The upstreams of a configuration. Raises `ConfigError`."""
    return {name: Upstream(name, each.base_url.rstrip("/"), each.wire) for name, each in tables.items()}


def _history(url: str, options: Mapping[str, Any], *, is_proxy: bool) -> ChatHistoryCallback:
    """What the server records with. A proxy begins without its database; with models alone it must be there."""
    if is_proxy:
        return new_history(url, options)
    return ChatHistoryCallback(url, **{"strict": True, **options})


async def _checked(store: SqlStore) -> None:
    """Reading has opened the database, and has raised for one that is away, older, newer or foreign."""
