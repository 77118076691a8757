"""Where the beginning of a request agrees with stored messages.

A client sends the whole history, a window of it, or only what is new. In a window old messages are missing at the
front, tool results may be missing in the middle, and a summary may stand in their place. Every way to lay the request
along a stored path is compared. The one in which most messages agree wins, then the newest.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

from recorder.storage.request_input import contents_of, path_of
from recorder.storage.rows import RunStart
from recorder.storage.stored_messages import KnownMessage, StoredConversation

#: The role of an answer.
_ANSWER = "assistant"
#: At most so many pairs of equal messages are compared along a path; more come from one word that is said again and
#: again, in a request of thousands of messages.
_MAX_PAIRS = 200_000
#: On the newest path so many more messages are compared than twice as many as the request has.
_LEFT_OUT = 64


class Alignment(NamedTuple):
    """The beginning of a request, up to the last message that agrees."""

    #: For each message of the beginning the stored message that it is; None for one that stands in place of others.
    messages: Sequence[KnownMessage | None]
    #: Whether it is a whole path from a root.
    from_root: bool

    @property
    def end(self) -> KnownMessage:
        """The stored message that the beginning ends with."""
        end = self.messages[-1]
        assert end is not None
        return end

    @property
    def agreeing(self) -> int:
        """How many messages agree."""
        return len(self.messages) - self.messages.count(None)


def of_request(start: RunStart, conversation: StoredConversation) -> Alignment | None:
    """How the request agrees with what is known of its conversation; None if all of it is new."""
    path, newest = path_of(start), conversation.newest
    if newest is None or not path:
        return None
    if len(path) == 1:
        found = again(start, conversation)
        return None if found is None else Alignment([found], from_root=False)
    root = from_root(path, conversation)
    if root is not None and len(root.messages) >= len(path) - 1:
        return root
    contents = contents_of(start)
    stretch = contiguous(contents, conversation)
    if stretch is None or stretch.agreeing >= len(path) - 1:
        return best_of([root, stretch], newest)
    return best_of(
        [root, stretch, along(contents, conversation.path_to(newest, compared(len(path))))], newest
    )


def compared(count: int) -> int:
    """How many messages of the newest path are compared with a request of so many messages."""
    return 2 * count + _LEFT_OUT


def from_root(path: Sequence[str], conversation: StoredConversation) -> Alignment | None:
    """The longest beginning of a request that is stored as a path from a root; `path` has the ids that it has then.

    An id depends on all ids before it, so the last stored one tells.
    """
    known = conversation.messages
    for count in range(len(path), 0, -1):
        if path[count - 1] in known:
            return Alignment([known.get(id) for id in path[:count]], from_root=True)
    return None


def again(start: RunStart, conversation: StoredConversation) -> KnownMessage | None:
    """The stored message that a request of one message repeats; None if it is new.

    It is the newest message, which has no answer yet, or a root that nothing but answers follows. The same words in the
    middle of a conversation are said again.
    """
    newest, root = conversation.newest, conversation.messages.get(path_of(start)[0])
    if newest is None or newest.content_hash == contents_of(start)[0]:
        return newest
    is_only_answered = root is not None and newest.parent_id == root.id and newest.role == _ANSWER
    return root if is_only_answered else None


def contiguous(contents: Sequence[int], conversation: StoredConversation) -> Alignment | None:
    """The longest stretch of the request that is stored as one message below the other, on any branch."""
    best: tuple[int, int, KnownMessage] | None = None
    before: dict[str | None, int] = {}
    for count, content in enumerate(contents, 1):
        here: dict[str | None, int] = {}
        for message in conversation.with_content(content):
            length = here[message.id] = before.get(message.parent_id, 0) + 1
            if best is None or (length, message.created_at) >= (best[0], best[2].created_at):
                best = length, count, message
        before = here
    if best is None:
        return None
    length, count, end = best
    return Alignment([*[None] * (count - length), *conversation.path_to(end, length)], from_root=False)


def along(contents: Sequence[int], path: Sequence[KnownMessage]) -> Alignment | None:
    """The most messages of the request that stand in the same order on this path; others may stand between them."""
    places: dict[int | None, list[int]] = {}
    for place, message in enumerate(path):
        places.setdefault(message.content_hash, []).append(place)
    if sum(len(places.get(content, ())) for content in contents) > _MAX_PAIRS:
        return None
    # The longest common subsequence, from the end, so that of several the newest is found (Hunt and Szymanski 1977).
    # `ends[n]` is the latest place at which a subsequence of n + 1 messages can begin, negated.
    ends: list[int] = []
    first: list[int] = []  # the index in `pairs` of the pair that it begins with
    pairs: list[
        tuple[int, int, int]
    ] = []  # a place in the request, one on the path, the index of the next pair or -1
    for at in range(len(contents) - 1, -1, -1):
        for place in places.get(contents[at], ()):
            length = bisect_left(ends, -place)
            ends[length : length + 1] = [-place]
            pairs.append((at, place, first[length - 1] if length else -1))
            first[length : length + 1] = [len(pairs) - 1]
    if not ends:
        return None
    found: dict[int, KnownMessage] = {}
    index = first[-1]
    while index >= 0:
        at, place, index = pairs[index]
        found[at] = path[place]
    return Alignment([found.get(at) for at in range(max(found) + 1)], from_root=False)


def best_of(candidates: Sequence[Alignment | None], newest: KnownMessage | None) -> Alignment | None:
    """The alignment in which the most agrees; of equal ones the first from a root, then the one that ends last."""
    found = [each for each in candidates if each is not None and _is_meant(each, newest)]
    return max(
        found, key=lambda each: (_strength(each, newest), each.from_root, each.end.created_at), default=None
    )


def _is_meant(each: Alignment, newest: KnownMessage | None) -> bool:
    """Whether so much agrees that it is no accident: a window, and not words that were said before, too."""
    if each.from_root or _is(each.end, newest):
        return True
    return each.agreeing > 1 and 2 * each.agreeing >= len(each.messages)


def _strength(each: Alignment, newest: KnownMessage | None) -> int:
    """How many messages agree. A beginning at a root, and an end at the newest message, count as one more each."""
    return each.agreeing + each.from_root + _is(each.end, newest)


def _is(message: KnownMessage, newest: KnownMessage | None) -> bool:
    return newest is not None and message.id == newest.id
