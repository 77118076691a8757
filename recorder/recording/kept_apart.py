"""What a user records under the id of another user's conversation: it is stored as a conversation of its own."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Collection, Sequence

from recorder.core.ids import id_of_user
from recorder.storage.batch import Addition, Part, RunRows
from recorder.storage.rows import AT_THE_ROOT

log = logging.getLogger("recorder")

#: For so many conversations and users it is remembered where they are kept apart.
_REMEMBERED = 10_000


class KeptApart:
    """Gives these conversations other ids, which are computed from the given id and the user: all processes agree."""

    def __init__(self) -> None:
        self._ids: OrderedDict[tuple[str, str], str] = OrderedDict()

    def rename_known(self, batch: Sequence[Part]) -> None:
        """Rename what a batch before had to rename, so that this one is not refused."""
        if self._ids:
            self._rename(batch)

    def rename(
        self, batch: Sequence[Part], keys: Collection[tuple[str, str]], unsettled: Sequence[Part]
    ) -> None:
        """Rename the conversations of these ids and users. `unsettled` holds the other parts, for later batches."""
        for id, user in sorted(keys):
            self._ids[id, user] = apart = id_of_user(id, user)
            log.warning(
                "Conversation %r belongs to another user; what user %r records under this id is stored as %r",
                id, user, apart,
            )  # fmt: skip
        while len(self._ids) > _REMEMBERED:
            self._ids.popitem(last=False)
        self._rename([*batch, *unsettled])

    def _rename(self, parts: Sequence[Part]) -> None:
        # Several parts may belong to one run. The one that begins it decides for all.
        opening = [part for part in parts if isinstance(part, RunRows) and part.opens]
        starts = {
            id(part.start): self._id_of(part.start.conversation_id, part.start.user_id) for part in opening
        }
        for part in parts:
            if isinstance(part, Addition):
                found = self._id_of(part.conversation_id, part.user_id)
            else:
                found = starts.get(id(part.start))
            if found is None:
                continue
            if isinstance(part, RunRows):
                part.start.conversation_id, part.start.path = found, ()
                part.start.unnamed = part.start.previous = (
                    None  # they led to the conversation of the other user
                )
                part.start.placement, part.context = AT_THE_ROOT, ()
                if part.seal is not None:
                    part.seal.response_message_id = None
            else:
                part.conversation_id = found
            part.messages, part.threaded = [], False  # their ids depend on the conversation

    def _id_of(self, conversation_id: str, user_id: str | None) -> str | None:
        """The new id of the conversation; None if it has the right one."""
        found = None
        while user_id is not None and (apart := self._ids.get((conversation_id, user_id))) is not None:
            found = conversation_id = apart
        return found
