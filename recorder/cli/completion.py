"""The ids that Tab completes: conversations and runs of the database at `--url` or `RECORDER_URL`."""

from __future__ import annotations

import logging
import re
import threading

from recorder.cli import queries
from recorder.core.escaping import escape
from recorder.storage import conversation_list as listing
from recorder.storage import id_lookup
from recorder.storage.store import SqlStore

#: How many ids are offered; of all ids the newest conversations.
_MOST, _NEWEST = 100, 20
#: The shell waits for a database at most so long (seconds).
_PATIENCE = 1.0
#: An id of other characters is not offered: the shell would take them for its own, and a recording may contain any id.
_PLAIN = re.compile(r"(?!-)[\w.@%+=,:/-]+")


def ids(url: str, beginning: str) -> list[str]:
    """Ids that begin with this text; none if the database cannot be read, or does not answer soon."""
    logging.getLogger("recorder").addHandler(logging.NullHandler())
    found: list[str] = []
    reading = threading.Thread(target=_read, args=(url, beginning, found), daemon=True)
    reading.start()
    reading.join(_PATIENCE)
    return [id for id in found if _PLAIN.fullmatch(id)]


def _read(url: str, beginning: str, found: list[str]) -> None:
    try:
        found += queries.read(url, lambda store: _ids(store, beginning))
    except Exception:  # an error would be printed into the line that the user types
        return


async def _ids(store: SqlStore, beginning: str) -> list[str]:
    if not beginning:
        return [row["id"] for row in await listing.conversations(store, _NEWEST)]
    return [each.id for each in await id_lookup.beginning_with(store, escape(beginning), _MOST)]
