"""Ids that hooks are called with, as UUIDs."""

from __future__ import annotations

import logging
from typing import Any
from uuid import UUID

from recorder.storage.storable_values import id_of, text_of, uuid_in

log = logging.getLogger("recorder")


class GivenIds:
    """Makes UUIDs of the ids of other frameworks. What is computed is logged once for each name."""

    def __init__(self) -> None:
        # The ids for which a warning was logged.
        self._replaced: set[str] = set()

    def uuid(self, name: str, given: Any) -> UUID:
        """An id of a hook as a UUID; another id becomes a UUID that is computed from it."""
        found = uuid_in(given)
        if found is not None:
            return found
        found = id_of(given)
        if name not in self._replaced:
            self._replaced.add(name)
            log.warning(
                "%s=%.60s is no UUID; it is stored as %s, and others in the same way",
                name,
                text_of(given),
                found,
            )
        return found

    def parent(self, given: Any) -> UUID | None:
        """The id of a parent run. None or an empty text is no parent."""
        no_parent = given is None or (isinstance(given, str) and not given)
        return None if no_parent else self.uuid("parent_run_id", given)
