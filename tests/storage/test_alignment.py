"""Where the beginning of a request agrees with stored messages."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from recorder.storage import alignment
from recorder.storage.alignment import Alignment, along, best_of, contiguous
from recorder.storage.stored_messages import StoredConversation, StoredMessage

START = datetime(2026, 11, 28, tzinfo=UTC)


def path_of(
    contents: Sequence[int], first: int = 0, parent: StoredMessage | None = None
) -> list[StoredMessage]:
    """A path of messages with these contents, each below the one before; `first` numbers them."""
    path: list[StoredMessage] = []
    for number, content in enumerate(contents, first):
        above = path[-1] if path else parent
        parent_id, position = (above.id, above.position + 1) if above is not None else (None, 0)
        at = START + timedelta(seconds=number)
        path.append(StoredMessage("c", str(uuid.UUID(int=number)), parent_id, position, "user", at, content))
    return path


def conversation_of(*paths: Sequence[StoredMessage]) -> StoredConversation:
    found = StoredConversation("c")
    for message in chain.from_iterable(paths):
        found.add(message)
    found.newest = paths[-1][-1]
    return found


def contents(found: Alignment | None) -> list[int | None]:
    return [] if found is None else [each and each.content_hash for each in found.messages]


def longest(one: Sequence[int], other: Sequence[int]) -> int:
    """The length of the longest common subsequence, by the plain recursion."""

    @cache
    def length(a: int, b: int) -> int:
        if a == len(one) or b == len(other):
            return 0
        if one[a] == other[b]:
            return 1 + length(a + 1, b + 1)
        return max(length(a + 1, b), length(a, b + 1))

    return length(0, 0)


FEW = st.lists(st.integers(0, 4), max_size=9)


@given(FEW, FEW)
def test_the_most_messages_agree_along_a_path(request: list[int], stored: list[int]) -> None:
    """As many as in the longest common subsequence, in the order of both."""
    path = path_of(stored)
    found = along(request, path)
    assert (found.agreeing if found is not None else 0) == longest(request, stored)
    if found is not None:
        positions = [each.position for each in found.messages if each is not None]
        assert positions == sorted(set(positions))
        assert all(each is None or each.content_hash == request[at] for at, each in enumerate(found.messages))


def test_of_equal_agreements_the_newest_is_found() -> None:
    """The same words stand at two places of the path."""
    path = path_of([1, 2, 1, 2, 3])
    found = along([1, 2], path)
    assert found is not None
    assert [each and each.position for each in found.messages] == [2, 3]


def test_one_word_that_is_said_a_thousand_times_is_not_compared_along_a_path() -> None:
    """The pairs would be a million; the stretches are compared all the same."""
    path = path_of([7] * 1_000)
    assert along([7] * 1_000, path) is None
    found = contiguous([7] * 1_000, conversation_of(path))
    assert found is not None
    assert (found.agreeing, found.end) == (1_000, path[-1])


def test_a_stretch_is_found_on_an_older_branch() -> None:
    """What stands before it in the request is in place of older messages."""
    path = path_of([1, 2, 3, 4])
    edited = path_of([5, 6], first=10, parent=path[1])
    found = contiguous([9, 3, 4, 8], conversation_of(path, edited))
    assert (contents(found), found and found.end) == ([None, 3, 4], path[-1])


def test_a_single_message_in_the_middle_is_an_accident() -> None:
    """Two messages of the end are none, and neither is the newest message alone."""
    path = path_of([1, 2, 3, 4])
    conversation = conversation_of(path)
    for request, expected in (([2, 8], []), ([3, 4, 8], [3, 4]), ([4, 8], [4]), ([9, 9, 9, 2, 3], [])):
        found = best_of([contiguous(request, conversation)], conversation.newest)
        assert contents(found) == expected


def test_a_beginning_from_a_root_wins_against_as_many_elsewhere() -> None:
    """The alignment says so, and not the order in which the candidates are given."""
    path = path_of([1, 2, 3, 1, 2, 4])
    root = Alignment(path[:2], from_root=True)
    other = Alignment(path[3:5], from_root=False)
    assert best_of([other, root], path[-1]) is root
    assert best_of([None, other], path[-1]) is other
    assert best_of([None, None], path[-1]) is None


def test_the_longest_beginning_from_a_root_is_found_by_its_ids() -> None:
    """An id that is stored tells that all before it are."""
    path = path_of([1, 2, 3])
    ids = [each.id for each in path]
    found = alignment.from_root([*ids[:2], "unknown"], conversation_of(path))
    assert contents(found) == [1, 2]
    assert alignment.from_root(["unknown", *ids], conversation_of(path[1:])) is not None
    assert alignment.from_root(["unknown"], conversation_of(path)) is None
