"""The options of a recorder, with their defaults."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal

from recorder.errors import ConfigError

DEFAULT_URL = "sqlite:///chat_history.db"

#: Seconds. For readers, a process without a heartbeat for so long is dead, and its open runs are `interrupted`. They do
#: not know the options of the process.
INTERRUPTED_AFTER = 60.0
#: The longest `heartbeat_interval`: one heartbeat may be late, or be lost, before readers take the process for dead.
_MAX_HEARTBEAT_INTERVAL = INTERRUPTED_AFTER / 2

Capture = Literal["wire", "tokens"]
Durability = Literal["batch"]
Overflow = Literal["block", "drop_newest"]
Thread = Literal["new", "history"]
#: One entry of `redact`.
Redactor = str | re.Pattern[str] | Callable[[str], str]


def default_url() -> str:
    """The URL in `RECORDER_URL`, else `sqlite:///chat_history.db` in the current directory."""
    return os.environ.get("RECORDER_URL") or DEFAULT_URL


@dataclass(frozen=True, slots=True)
class Config:
    """How a recorder records. Sizes are bytes, times are seconds. Raises `ConfigError` for an invalid value."""

    #: "wire" stores the provider's bytes and the tokens; "tokens" stores the tokens only. None: "wire", but "tokens"
    #: with `redact`, because the bytes would hold what is redacted.
    capture: Capture | None = None
    #: What is replaced before it is queued: names of patterns ("keys", "email", "card", "phone", "iban", "ip"),
    #: compiled patterns, and functions of a str that return a str.
    redact: Sequence[Redactor] = ()
    #: "batch": when the callback returns, a token is in the queue; the next batch commits it.
    durability: Durability = "batch"
    #: When the queue is full: "block" makes producers wait, "drop_newest" replaces their tokens by a gap.
    overflow: Overflow = "block"
    #: The conversation of a run that names none: "new" opens one; "history" looks for the one that the messages of its
    #: request continue, among those of the same user or API key.
    thread: Thread = "new"
    #: With thread="history": a conversation is found for so long after its last reply.
    thread_within: float = 7 * 86_400.0
    #: Limit of the queue and the batch that is being written. A token counts as its text, its frame and 200 bytes.
    max_queue_bytes: int = 64 * 2**20
    #: A producer waits at most this long for a full queue; then its tokens are replaced by a gap.
    block_timeout: float = 5.0
    #: Limit of open runs. Of a run beyond it only its row and a gap are stored, no token.
    max_open_runs: int = 10_000
    #: A run without a token for so long is closed as `interrupted`; its next token opens it again. None: never.
    run_idle_timeout: float | None = None
    #: Time from one batch to the next, so that a batch holds several tokens of a run.
    flush_interval: float = 0.1
    #: Delays writing frames by up to this time, or until their run ends, so that one row holds many frames: rows of
    #: twenty frames need less than two thirds of the space of rows of five. Tokens are not delayed.
    frames_interval: float = 0.5
    #: Rate limit, for a database that many processes share. None: no limit. `flush` and `close` ignore it.
    max_commits_per_second: float | None = None
    #: Limit of one transaction, counted as in the queue.
    max_batch_bytes: int = 16 * 2**20
    #: "full": a commit survives a power loss. "process": it survives only the end of the process.
    sync: Literal["full", "process"] = "full"
    #: Whether the constructor raises if the database cannot be reached. If not, tokens are queued until it can be.
    strict: bool = False
    #: The constructor waits at most this long for the database.
    open_timeout: float = 10.0
    #: `close` waits at most this long until the queue is stored.
    close_timeout: float = 30.0
    #: Time between heartbeats of this process; 30 at most, because readers take a process for dead after 60 seconds.
    heartbeat_interval: float = 15.0
    #: What evaluates texts while they stream: names of ready-made analyzers ("sentiment"), functions, and objects with
    #: `on_sentence` or `on_message` (docs/analysis.md).
    analyze: Sequence[Any] = ()
    #: Where analyzers run: each in a worker process, or on a thread of this process.
    analyze_in: Literal["process", "thread"] = "process"
    #: An analyzer's call that takes longer is ended, and counted as failed.
    analyze_timeout: float = 5.0
    #: This process marks the open runs of processes without a heartbeat for this long `interrupted`.
    interrupted_after: float = INTERRUPTED_AFTER

    #: Hosts whose requests cost what this provider publishes: `{"gateway.internal": "openai"}`. The provider of another
    #: host is known by its name, or the host has no prices.
    priced_as: Mapping[str, str] = field(default_factory=dict)
    #: Whether the usage of a run is estimated if the provider reports none.
    estimate_usage: bool = True
    #: Called when a conversation or a user has cost more than one of `budgets`.
    on_budget: Callable[[Any], Any] | None = None
    budgets: Collection[Any] = ()

    def __post_init__(self) -> None:
        if self.redact and self.capture == "wire":
            raise ConfigError(
                "capture='wire' stores the provider's bytes, which hold what redact= replaces; leave capture out, "
                "or pass capture='tokens'"
            )
        if self.capture is None:
            object.__setattr__(self, "capture", "tokens" if self.redact else "wire")
        self._check_values()
        if self.heartbeat_interval > _MAX_HEARTBEAT_INTERVAL:
            raise ConfigError(
                f"heartbeat_interval is {self.heartbeat_interval!r}; it can be {_MAX_HEARTBEAT_INTERVAL:g} at most, "
                f"because readers take a process without a heartbeat for {INTERRUPTED_AFTER:g} s for dead"
            )

    @property
    def batch_interval(self) -> float:
        """The shortest time between two batches, by `flush_interval` and `max_commits_per_second` (seconds)."""
        if self.max_commits_per_second is None:
            return self.flush_interval
        return max(self.flush_interval, 1 / self.max_commits_per_second)

    def _check_values(self) -> None:
        _one_of("capture", self.capture, ("wire", "tokens"))
        _one_of("durability", self.durability, ("batch",))
        _one_of("overflow", self.overflow, ("block", "drop_newest"))
        _one_of("sync", self.sync, ("full", "process"))
        _one_of("analyze_in", self.analyze_in, ("process", "thread"))
        _one_of("thread", self.thread, ("new", "history"))
        for name in _ABOVE_ZERO:
            if (value := _number(name, getattr(self, name))) <= 0:
                raise ConfigError(f"{name} is {value!r}; it must be above zero")
        for name in _NOT_NEGATIVE:
            if (value := _number(name, getattr(self, name))) < 0:
                raise ConfigError(f"{name} is {value!r}; it cannot be negative")
        for name in _ABOVE_ZERO_OR_NONE:
            if (found := getattr(self, name)) is not None and _number(name, found) <= 0:
                raise ConfigError(f"{name} is {found!r}; it must be above zero, or None for no limit")


_ABOVE_ZERO = (
    "thread_within",
    "max_queue_bytes",
    "max_batch_bytes",
    "max_open_runs",
    "open_timeout",
    "close_timeout",
    "heartbeat_interval",
    "analyze_timeout",
)
_ABOVE_ZERO_OR_NONE = ("max_commits_per_second", "run_idle_timeout")
_NOT_NEGATIVE = ("flush_interval", "frames_interval", "block_timeout", "interrupted_after")


def _number(name: str, value: float) -> float:
    if not isinstance(value, (int, float)) or not isfinite(value):
        raise ConfigError(f"{name} is {value!r}; it must be a finite number")
    return value


def _one_of(name: str, value: str | None, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}; choose one of {', '.join(map(repr, choices))}")
