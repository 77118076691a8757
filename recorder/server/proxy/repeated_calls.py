"""Finds out whether a call repeats one that failed before: then both are attempts of one call.

The client's process is not known here, so calls are compared by their URL, their body and the client's credentials.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

import uuid_utils.compat

from recorder.instrumentation.attempt_factory import NumberedRun

#: The header in which the SDKs count the attempts of a call, from 0.
_COUNT = "x-stainless-retry-count"
#: Clients without this header repeat a call at most this long after its failure (seconds).
_LONGEST_PAUSE = 60.0
#: Statuses after which clients try again, beside all from 500 on.
_PASSING = frozenset((408, 409, 429))
#: So many failures are remembered.
_MOST = 10_000


class CallKey(NamedTuple):
    """What two attempts of one call have in common."""

    url: str
    input_hash: str
    #: A hash of the credentials, which are not held themselves, and of the conversation and the user.
    client: bytes


class _FailedCall(NamedTuple):
    run: NumberedRun
    #: How many attempts came before it, as the client said.
    earlier: int
    #: When it failed (seconds of the monotonic clock).
    at: float
    #: Whether the client did not wait for the answer. Then it tries again only if it says so.
    was_left: bool


class RepeatedCalls:
    """The attempts that failed lately. Used on one event loop."""

    def __init__(self) -> None:
        self._failed: OrderedDict[CallKey, _FailedCall] = OrderedDict()

    def numbered(self, key: CallKey, headers: Mapping[str, str]) -> NumberedRun:
        """The run of a request: a new call, or a further attempt of the one that failed last."""
        count, failure = count_of(headers), self._failed.get(key)
        if failure is None or time.monotonic() - failure.at > _LONGEST_PAUSE or not key.input_hash:
            return NumberedRun(uuid_utils.compat.uuid7())
        if failure.was_left if count is None else count != failure.earlier + 1:
            return NumberedRun(uuid_utils.compat.uuid7())
        del self._failed[key]
        run = failure.run
        return NumberedRun(uuid_utils.compat.uuid7(), run.attempt + 1, run.first_run_id or run.run_id)

    def failed(self, key: CallKey, headers: Mapping[str, str], run: NumberedRun, *, was_left: bool) -> None:
        """An attempt had no answer, or one after which clients try again; or its client left (`was_left`)."""
        self._failed.pop(key, None)
        self._failed[key] = _FailedCall(run, count_of(headers) or 0, time.monotonic(), was_left)
        while len(self._failed) > _MOST:
            self._failed.popitem(last=False)


def call_key(url: str, input_hash: str, headers: Mapping[str, str], names: Mapping[str, str]) -> CallKey:
    """The key of a call; `names` are its conversation and its user."""
    credentials = [
        headers.get(name, "") for name in ("authorization", "x-api-key", "api-key", "x-goog-api-key")
    ]
    client = "\n".join([*credentials, *map(str, sorted(names.items()))])
    return CallKey(url, input_hash, hashlib.blake2b(client.encode(), digest_size=16).digest())


def is_passing(status: int) -> bool:
    """Whether clients try again after a response with this status."""
    return status >= 500 or status in _PASSING


def count_of(headers: Mapping[str, str]) -> int | None:
    """How many attempts came before, as the client says; None if it does not."""
    text = headers.get(_COUNT, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 4 else None
