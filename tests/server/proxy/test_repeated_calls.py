"""Which calls are further attempts of one that failed."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from recorder.instrumentation.attempt_factory import NumberedRun
from recorder.server.proxy.repeated_calls import RepeatedCalls, call_key

KEY = call_key("http://here/", "hash", {"authorization": "a"}, {})
FIRST = NumberedRun(uuid4())


def attempts(*headers: dict[str, str], was_left: bool = False) -> list[int]:
    """Return the number of each attempt, where all fail."""
    calls, found = RepeatedCalls(), []
    for each in headers:
        run = calls.numbered(KEY, each)
        calls.failed(KEY, each, run, was_left=was_left)
        found.append(run.attempt)
    return found


def counted(number: int) -> dict[str, str]:
    """Return the header of an SDK."""
    return {"x-stainless-retry-count": str(number)}


def test_the_count_of_an_sdk_decides() -> None:
    """A call that counts from zero again is a new one, and so is one that skips a number."""
    assert attempts(counted(0), counted(1), counted(2)) == [1, 2, 3]
    assert attempts(counted(0), counted(0)) == [1, 1]
    assert attempts(counted(0), counted(2)) == [1, 1]
    assert attempts(counted(0), counted(1), was_left=True) == [1, 2]


def test_without_a_count_the_same_call_is_repeated_after_a_failure() -> None:
    """But not after its client has left: it may be another question with the same words."""
    assert attempts({}, {}, {}) == [1, 2, 3]
    assert attempts({}, {}, was_left=True) == [1, 1]


def test_other_clients_and_bodies_are_other_calls() -> None:
    """Credentials, users, URLs and bodies are compared; a body that was not read equals none."""
    same: Any = ("http://here/", "hash", {"authorization": "a"}, {})
    others: Any = [
        ("http://there/", *same[1:]), (same[0], "other", *same[2:]), (*same[:2], {"x-api-key": "a"}, {}),
        (*same[:3], {"user_id": "anna"}),
    ]  # fmt: skip
    calls = RepeatedCalls()
    calls.failed(call_key(*same), {}, FIRST, was_left=False)
    assert [calls.numbered(call_key(*each), {}).attempt for each in others] == [1, 1, 1, 1]
    assert calls.numbered(call_key(*same), {})[1:] == (2, FIRST.run_id)
    unread = call_key("http://here/", "", {}, {})
    calls.failed(unread, {}, FIRST, was_left=False)
    assert calls.numbered(unread, {}).attempt == 1


def test_the_failures_that_are_remembered_are_bounded() -> None:
    """The oldest are forgotten."""
    calls = RepeatedCalls()
    keys = [call_key("http://here/", str(number), {}, {}) for number in range(10_050)]
    for key in keys:
        calls.failed(key, {}, FIRST, was_left=False)
    assert [calls.numbered(key, {}).attempt for key in (keys[0], keys[-1])] == [1, 2]
