"""A store that keeps everything in memory, for tests: `ChatHistoryCallback(store=MemoryStore())`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from operator import attrgetter

from recorder.core.trampoline import Trampoline
from recorder.storage.batch import Batch, Part, RunSeal
from recorder.storage.conversation_owners import keys_of, refuse_taken
from recorder.storage.failures import Failure
from recorder.storage.message_lookups import look_up
from recorder.storage.message_tree import settle, thread
from recorder.storage.newest_branch import place_of_message
from recorder.storage.previous_responses import WIRE
from recorder.storage.rows import (
    COMPLETE,
    STREAMING,
    AnnotationRow,
    ContextMessageRow,
    FrameRow,
    GapRow,
    MessageRow,
    PreviousResponse,
    Producer,
    RunStart,
    SegmentRow,
)
from recorder.storage.store_interface import Conflict, RunIdTaken
from recorder.storage.stored_messages import Lookup, StoredMessage, stored_message


class MemoryStore:
    """Keeps the appended rows in dictionaries by key. Each call of `append` first raises one of `failures`."""

    def __init__(self, failures: Sequence[Exception] = ()) -> None:
        self.failures = list(failures)
        self.batches: list[Batch] = []
        self.starts: dict[str, RunStart] = {}
        self.seals: dict[str, RunSeal] = {}
        self.messages: dict[tuple[str, str], MessageRow] = {}
        self.context: dict[tuple[str, str], ContextMessageRow] = {}
        self.segments: dict[tuple[str, int], SegmentRow] = {}
        self.frames: dict[tuple[str, int], FrameRow] = {}
        self.gaps: dict[tuple[str, int], GapRow] = {}
        self.annotations: dict[str, AnnotationRow] = {}
        #: The users of conversations, and the details that were set, by conversation id.
        self.owners: dict[str, str | None] = {}
        self.details: dict[str, dict[str, str]] = {}

    async def open(self) -> None:
        """Does nothing."""

    async def append(self, batch: Batch) -> None:
        """Store the rows whose key is new.

        Raises `Conflict` for other tokens under a stored key, `RunIdTaken` for an id that another run has,
        `ConversationTaken` for a conversation of another user.
        """
        if batch.trial:
            return
        self._thread([part for part in batch.parts if not part.threaded])
        if self.failures:
            raise self.failures.pop(0)
        if used_ids := [
            rows.start.run_id for rows in batch.runs if rows.opens and self._is_other(rows.start)
        ]:
            raise RunIdTaken(used_ids)
        refuse_taken(self._owners(batch), keys_of(batch))
        for rows in batch.runs:
            for row in rows.segments:
                if self.segments.setdefault((row.run_id, row.seq), row) != row:
                    raise Conflict(f"Run {row.run_id} has other tokens stored from {row.seq} on")
        self.owners = self._owners(batch)
        for addition in batch.additions:
            if addition.details:
                self.details.setdefault(addition.conversation_id, {}).update(addition.details)
            self.annotations |= {row.id: row for row in addition.annotations}
        for part in batch.parts:
            for message in part.messages:
                self.messages.setdefault((message.conversation_id, message.id), message)
        for rows in batch.runs:
            for each in rows.context:
                self.context.setdefault((each.conversation_id, each.id), each)
            self.starts.setdefault(rows.start.run_id, rows.start)
            self.frames |= {(row.run_id, row.seq): row for row in rows.frames}
            self.gaps |= {(row.run_id, row.seq): row for row in rows.gaps}
            if rows.seal is not None:
                self.seals[rows.start.run_id] = rows.seal
                self._replace_metadata(rows.start.run_id, rows.seal)
                if rows.seal.end.status == STREAMING:  # the run was idle, and continues
                    del self.seals[rows.start.run_id]
        self.batches.append(batch)

    async def sweep(self, dead: Callable[[Producer], bool], now: datetime) -> int:
        """Returns 0: no other process records here."""
        return 0

    async def close(self) -> None:
        """Does nothing."""

    def failure(self, error: BaseException) -> Failure:
        """`TimeoutError` is "slow", `ConnectionError` "transient", every other error "poison"."""
        if isinstance(error, TimeoutError):
            return "slow"
        return "transient" if isinstance(error, ConnectionError) else "poison"

    def _thread(self, parts: Sequence[Part]) -> None:
        """Add the rows of their messages to the parts."""
        steps = Trampoline(look_up(parts))
        lookup = steps.step()
        while lookup is not None:
            is_of_responses = lookup.kind == "responses"
            lookup = steps.step(
                self._responses(lookup) if is_of_responses else found_in(self.messages, lookup)
            )
        settle(parts, thread(parts, steps.result))

    def _responses(self, lookup: Lookup) -> list[StoredMessage]:
        """The replies to the runs with these responses, or their prompts."""
        found = []
        for response_id, _, is_prompt in lookup.keys:
            runs = [self.starts[id] for id, seal in self.seals.items() if seal.end.response_id == response_id]
            runs = [start for start in runs if start.wire == WIRE]
            runs.sort(key=lambda start: (self.seals[start.run_id].end.status == COMPLETE, start.started_at))
            if not runs:
                continue
            reply, prompt = (
                self.seals[runs[-1].run_id].response_message_id,
                runs[-1].placement.prompt_message_id,
            )
            row = self.messages.get((runs[-1].conversation_id, str(prompt if is_prompt else reply or prompt)))
            if row is not None:
                response = PreviousResponse(response_id, is_prompt == 1)
                found.append(stored_message(row)._replace(response=response))
        return found

    def _owners(self, batch: Batch) -> dict[str, str | None]:
        """The users of conversations, with those of this batch where a conversation has none."""
        return {**dict(reversed(keys_of(batch))), **self.owners}

    def _replace_metadata(self, run_id: str, seal: RunSeal) -> None:
        """The metadata of the seal, if it has any, replaces that of the start."""
        if seal.metadata is not None:
            self.starts[run_id] = replace(self.starts[run_id], metadata=seal.metadata)

    def _is_other(self, start: RunStart) -> bool:
        """Whether another run with this id is stored."""
        found = self.starts.get(start.run_id, start)
        return found is not start and found.started_at != start.started_at


def found_in(messages: Mapping[tuple[str, str], MessageRow], lookup: Lookup) -> list[StoredMessage]:
    """The messages that a lookup asks for, among rows by conversation and id."""
    found: list[StoredMessage] = []
    for conversation_id, id, number in lookup.keys:
        if lookup.kind == "replies":
            found += _replies(messages.values(), number, lookup)
            continue
        here = [stored_message(row) for (owner, _), row in messages.items() if owner == conversation_id]
        here.sort(key=lambda each: place_of_message(each.created_at, each.position, each.id), reverse=True)
        by_id = {each.id: each for each in here}
        if lookup.kind == "ids":
            found += [by_id[id]] if id in by_id else []
        elif lookup.kind == "newest":
            found += here[:1]
        elif lookup.kind == "content":
            found += [each for each in here if each.content_hash == number][: lookup.limit]
        else:
            found += _path(by_id, id, number)
    return found


def _replies(rows: Iterable[MessageRow], key: int, lookup: Lookup) -> list[StoredMessage]:
    """The newest messages with this thread key."""
    assert lookup.since is not None
    found = [stored_message(row) for row in rows if row.thread_key == key and row.created_at >= lookup.since]
    return sorted(found, key=attrgetter("created_at"), reverse=True)[: lookup.limit]


def _path(by_id: Mapping[str, StoredMessage], id: str | None, limit: int) -> list[StoredMessage]:
    """The message and its ancestors, at most `limit` messages."""
    found: list[StoredMessage] = []
    while id is not None and id in by_id and len(found) < limit:
        found.append(by_id[id])
        id = found[-1].parent_id
    return found
