"""What `recorder serve --proxy` and `--replay` answer with."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from rich.text import Text

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.cli import console
from recorder.cli.provider_options import ProviderOptions
from recorder.replay.pace import Options
from recorder.server.database import ServedDatabase
from recorder.server.proxy.provider_paths import ProviderAnswers
from recorder.server.proxy.replay_endpoints import ReplayEndpoints

#: What waits for a database that is away (bytes). Clients are served meanwhile.
_QUEUE = 256 * 2**20
#: The server starts without a database that does not answer within this time (seconds).
_OPEN_WITHIN = 3.0
#: A thread that computes gives way after this time (seconds). The writer would else delay the event loop by 5 ms.
_SWITCH_INTERVAL = 0.0005


#: Options of the recorder of a proxy: it never makes a client wait, and finds the conversation of calls that name none.
_OPTIONS = {
    "thread": "history",
    "overflow": "drop_newest",
    "max_queue_bytes": _QUEUE,
    "open_timeout": _OPEN_WITHIN,
}


def new_history(url: str, options: Mapping[str, Any]) -> ChatHistoryCallback:
    """The history of a proxy; `options` are those of the configuration, which win.

    Raises `RecorderError`, but not for a database that is away.
    """
    history = ChatHistoryCallback(url, **{**_OPTIONS, **options})
    if not history.stats().healthy:
        console.notice(
            Text("The database cannot be reached now; calls pass through, and are stored when it can.")
        )
    return history


def answers_of(
    database: ServedDatabase, history: ChatHistoryCallback | None, options: ProviderOptions
) -> ProviderAnswers | None:
    """What answers calls to providers' paths; None if the options say nothing of them."""
    if options.proxy and history is not None:
        from recorder.server.proxy.recording_proxy import RecordingProxy

        sys.setswitchinterval(_SWITCH_INTERVAL)
        return RecordingProxy(history, database)
    return ReplayEndpoints(database, Options(options.speed, options.max_gap)) if options.replay else None
