"""Every option and its default, in sight."""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import isfinite
from typing import Literal

from recorder.errors import ConfigError

DEFAULT_URL = "sqlite:///chat_history.db"

#: A process that has been silent for so long (seconds) is taken for dead, and its open runs for interrupted.
INTERRUPTED_AFTER = 60.0

Capture = Literal["wire", "tokens"]
Durability = Literal["batch"]
Overflow = Literal["block", "drop_newest"]


def default_url() -> str:
    """`RECORDER_URL`, else `sqlite:///chat_history.db` in the current directory."""
    return os.environ.get("RECORDER_URL") or DEFAULT_URL


@dataclass(frozen=True, slots=True)
class Config:
    """How a recorder records. Sizes are bytes, times seconds."""

    #: "wire" keeps the provider's bytes beside the tokens, "tokens" does not.
    capture: Capture = "wire"
    #: When the callback returns, a token is in the queue, and committed with the next batch.
    durability: Durability = "batch"
    #: What happens when the queue is full: producers wait ("block"), or the newest tokens become a gap.
    overflow: Overflow = "block"
    #: Bound of the queue: text + frame + 200 a token, what the writer holds included.
    max_queue_bytes: int = 64 * 2**20
    #: The longest that a full queue makes a producer wait before its tokens become a gap.
    block_timeout: float = 5.0
    #: Most runs that are open at once. Of one more a row and a gap are stored, and no token.
    max_open_runs: int = 10_000
    #: A run without a token for so long is closed as `interrupted`, and opened again by its next token. None: never.
    run_idle_timeout: float | None = None
    #: After a batch, the next one starts no sooner, so that a batch has more than one token a run.
    flush_interval: float = 0.1
    #: Frames wait so long for company before they are stored, or until their run ends: rows of twenty take less
    #: than two thirds of the space of rows of five. Tokens do not wait for it.
    frames_interval: float = 0.5
    #: Rate limit for a database that many share; None for none. `flush` and `close` do not wait for it.
    max_commits_per_second: float | None = None
    #: Most that one transaction stores (bytes as counted in the queue).
    max_batch_bytes: int = 16 * 2**20
    #: "full": a commit survives power loss. "process": it survives the death of the process only.
    sync: Literal["full", "process"] = "full"
    #: Whether a database that cannot be reached raises at construction instead of being buffered for.
    strict: bool = False
    #: How long construction waits for the database, and `close` for the queue to drain.
    open_timeout: float = 10.0
    close_timeout: float = 30.0
    #: How often the process says that it is alive, and after how much silence its open runs are `interrupted`.
    heartbeat_interval: float = 15.0
    interrupted_after: float = INTERRUPTED_AFTER

    def __post_init__(self) -> None:
        _one_of("capture", self.capture, ("wire", "tokens"))
        _one_of("durability", self.durability, ("batch",))
        _one_of("overflow", self.overflow, ("block", "drop_newest"))
        _one_of("sync", self.sync, ("full", "process"))
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
    "max_queue_bytes",
    "max_batch_bytes",
    "max_open_runs",
    "open_timeout",
    "close_timeout",
    "heartbeat_interval",
)
_ABOVE_ZERO_OR_NONE = ("max_commits_per_second", "run_idle_timeout")
_NOT_NEGATIVE = ("flush_interval", "frames_interval", "block_timeout", "interrupted_after")


def _number(name: str, value: float) -> float:
    if not isinstance(value, (int, float)) or not isfinite(value):
        raise ConfigError(f"{name} is {value!r}; it must be a finite number")
    return value


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}; choose one of {', '.join(map(repr, choices))}")
