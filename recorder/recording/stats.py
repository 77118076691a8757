"""What `stats()` returns: where the tokens are, and the state of the database."""

from __future__ import annotations

from dataclasses import dataclass

#: How much longer than the time between two batches something may wait until the recorder counts as unhealthy
#: (seconds). SQLite waits as long for a lock before it raises an error, and a server has more time for its answer.
LATE_AFTER = 5.0


@dataclass(frozen=True, slots=True)
class Stats:
    """Where the tokens are: `accepted = queued + committed + dropped + quarantined`."""

    #: Tokens that callbacks put.
    accepted: int
    #: Tokens in the queue or in the batch in flight.
    queued: int
    #: Bytes that are counted for both; `Config.max_queue_bytes` limits them.
    queued_bytes: int
    #: Those of them that are bytes of attached clients' responses. Their tokens count once they are translated.
    untranslated_bytes: int
    #: Tokens that are stored.
    committed: int
    #: Tokens that came while the queue was full, after their run's end or after `close`, or were not stored in time.
    dropped: int
    #: Tokens that can never be stored; `gaps` has their numbers.
    quarantined: int
    #: Transactions that stored something.
    commits: int
    #: Messages, annotations and details of conversations that were added without a run.
    messages_added: int
    #: Those of them that are stored.
    messages_stored: int
    #: Runs that have started and not ended.
    open_runs: int
    #: Runs that were ended for being idle and can be reopened.
    idle_runs: int
    #: Runs that started while the queue was full or `max_open_runs` were open: a row and a gap are stored, messages are
    #: not.
    refused_runs: int
    #: Those of them of which nothing is stored, because the queue had no space for the row.
    lost_runs: int
    #: Messages of requests and replies that are not stored because the queue was full.
    lost_messages: int
    #: Conversation ids in metadata that were too long and were replaced by new ones.
    replaced_ids: int
    #: Runs without a reported usage: those whose usage was estimated here, and those for which it could not be done.
    estimated_runs: int
    unestimated_runs: int
    #: What went wrong beside the recording: in budgets and their function, and in other listeners.
    listener_errors: int
    #: How long the oldest item that is not stored yet has been waiting, also in the batch in flight (seconds).
    lag: float
    #: The last error's text; None if there was none. The error may be over: see `healthy`.
    last_error: str | None
    #: Whether the last attempt to use the database succeeded, and no commit is late: `lag` is at most `LATE_AFTER`
    #: above the time between two batches.
    healthy: bool
    #: Texts that are stored as "[withheld]", because `redact` failed for them.
    withheld: int = 0
