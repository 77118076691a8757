"""Playback of a run as a generator of steps: it yields queries, tokens, frames and gaps in order, and does no I/O.

The driver sends the result of a `QueryStep` into the generator, and resumes a `WaitStep` after the next commit. The
other steps go to a listener.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Awaitable, Callable, Generator, Hashable, Iterator, Sequence
from logging import getLogger
from typing import Any, NamedTuple, TypeVar

import orjson

from recorder.core.escaping import ESCAPE, unescape
from recorder.core.trampoline import Trampoline
from recorder.errors import ConfigError, StoreError
from recorder.messages import BaseMessage
from recorder.replay.pace import Options
from recorder.replay.token_checks import checked
from recorder.storage.compression import decompress
from recorder.storage.frame_block import split
from recorder.storage.reader import Branch, DatabaseReader, RecordedRun
from recorder.storage.rows import FrameRow, GapRow, SegmentRow

log = getLogger("recorder")

#: Rows of the first query: few, so that the first token comes at once. Later queries fetch about PAGE tokens or frames.
FIRST_ROWS = 4
PAGE = 20_000
_MOST_ROWS = 5_000


class TokensStep(NamedTuple):
    """Consecutive tokens of one row."""

    #: Number of the first token in the run.
    seq: int
    #: `[at_us, text]` or `[at_us, text, kind, idx]` for each token; the text without the escapes of the stored form.
    items: list[Any]


class FramesStep(NamedTuple):
    """Consecutive frames: the provider's events byte for byte. All frames of a run joined are the response body."""

    #: Number of the first frame in the run.
    seq: int
    #: Offset from the request in microseconds, and bytes, of each frame.
    items: list[tuple[int, bytes]]


class BeginStep(NamedTuple):
    """A run begins. Offsets of later steps count from its request."""

    run: RecordedRun
    #: The messages of its prompt; empty if the listener does not need them.
    messages: Sequence[BaseMessage] = ()


class GapStep(NamedTuple):
    """`count` tokens or frames from `seq` on are missing."""

    at_us: int
    seq: int
    count: int  # type: ignore[assignment]  # hides `tuple.count`
    reason: str


class EndStep(NamedTuple):
    """The end of a run, with the status that the run has now."""

    at_us: int
    run: RecordedRun
    #: The messages that it produced; empty if the listener does not need them.
    replies: Sequence[BaseMessage] = ()


PieceT = TypeVar("PieceT", TokensStep, FramesStep, TokensStep | GapStep, FramesStep | GapStep)


class QueryStep:
    """A query: a method of `DatabaseReader` and its arguments. The driver sends the result into the generator.

    Followers of one run share results by `key`, so the arguments must be hashable. `seen_status` is the status that
    this follower has read of the run. It is part of the key, because a follower that knows the end of the run must not
    get rows that were read before the end.
    """

    __slots__ = ("arguments", "key", "method")

    def __init__(
        self, method: Callable[..., Awaitable[Any]], *arguments: Hashable, seen_status: str = ""
    ) -> None:
        self.method = method
        self.arguments = arguments
        self.key = (seen_status, method, *arguments)


class WaitStep(NamedTuple):
    """Everything that is committed was played. The driver resumes the generator after the next commit."""

    run_id: str


Step = QueryStep | WaitStep | BeginStep | TokensStep | FramesStep | GapStep | EndStep
Playback = Generator[Step, Any, None]

#: Makes the playback of one run: `tokens` or `frames`.
PlayRun = Callable[[RecordedRun, Options], Playback]


def play(id: str | None, options: Options, play_run: PlayRun, *, messages: bool = False) -> Playback:
    """Play one run, or all runs on the newest branch of a conversation one after the other.

    `id` is the id of either, or its beginning; None is the newest run. With `messages` each `BeginStep` carries the
    prompt, and each `EndStep` the replies.
    """
    found = yield QueryStep(DatabaseReader.newest) if id is None else QueryStep(DatabaseReader.find, id)
    if found.kind == "run":
        run = yield QueryStep(DatabaseReader.run, found.id)
        branch = Branch(run.conversation_id, (), (run,), False)
    else:
        _refuse_places(found.id, options)
        branch = yield QueryStep(DatabaseReader.newest_branch, found.id)
        if branch.has_others:
            log.info("Conversation %s has other branches; the newest one is played", found.id)
    if not messages:
        for run in branch.runs:
            yield BeginStep(run)
            yield from play_run(run, options)
        return
    history = yield from _history(branch)
    for run in branch.runs:
        length = history.lengths.get(run.prompt_message_id)
        if length is None or run.input is not None:
            prompt = yield QueryStep(DatabaseReader.request, run)
        else:
            instructions = yield from _instructions(run, history.instructions)
            prompt = [*instructions, *history.messages[:length]]
        yield BeginStep(run, prompt)
        yield from _with_replies(play_run(run, options))


class _History(NamedTuple):
    """The messages of a branch, read once: the prompt of each run on it is the beginning of this list."""

    messages: Sequence[BaseMessage]
    #: Id of a message -> number of messages up to and including it.
    lengths: dict[str | None, int]
    #: What was read by then, by ids.
    instructions: dict[tuple[str, ...], Sequence[BaseMessage]]


def _history(branch: Branch) -> Generator[Step, Any, _History]:
    if not branch.message_ids:
        return _History((), {}, {})
    messages = yield QueryStep(DatabaseReader.path, branch.conversation_id, branch.message_ids[-1])
    if len(messages) != len(branch.message_ids):
        return _History((), {}, {})  # some messages were deleted between the two queries
    return _History(messages, {id: length for length, id in enumerate(branch.message_ids, 1)}, {})


def _instructions(
    run: RecordedRun, known: dict[tuple[str, ...], Sequence[BaseMessage]]
) -> Generator[Step, Any, Sequence[BaseMessage]]:
    key = tuple(run.instructions or ())
    if key and key not in known:
        known[key] = yield QueryStep(DatabaseReader.instructions, run)
    return known.get(key, ())


def _with_replies(playback: Playback) -> Playback:
    """The same playback with the replies in its `EndStep`."""
    steps, answer = Trampoline(playback), None
    while (step := steps.step(answer)) is not None:
        if isinstance(step, EndStep):
            run = step.run
            step = step._replace(
                replies=(yield QueryStep(DatabaseReader.replies, run.conversation_id, run.id))
            )
        answer = yield step


def _refuse_places(conversation_id: str, options: Options) -> None:
    if options.start is not None or options.until is not None:
        raise ConfigError(
            f"{conversation_id!r} is a conversation, and start and until are places in one run; pass the id of a run"
        )


def tokens(run: RecordedRun, options: Options, page: int = PAGE) -> Playback:
    """Play the tokens of a run, with each gap before the token that follows it, then the end.

    A query reads about `page` tokens.
    """
    gaps: Sequence[GapRow] = yield QueryStep(DatabaseReader.gaps, run.id)
    seq = yield from _first_token(run, options, gaps)
    gaps_left = _Gaps(gaps, seq)
    at_us, limit = 0, FIRST_ROWS
    while True:
        rows = yield QueryStep(DatabaseReader.segments, run.id, seq, limit, seen_status=run.status)
        for row in rows:
            yield from gaps_left.before(row.seq, at_us)
            piece = _tokens_of(row, seq, at_us)
            seq, at_us = row.seq + row.count, _last_us(piece, at_us)
            yield _cut(piece, options)
            if _is_over(options, seq, at_us):
                return
        if rows:
            limit = _next_limit(sum(row.count for row in rows), len(rows), page)
            continue
        yield from gaps_left.before(None, at_us)
        if not (options.follow and run.is_open):
            yield EndStep(at_us, run)
            return
        run = yield from _next_read(run)
        gaps_left.update((yield QueryStep(DatabaseReader.gaps, run.id, seen_status=run.status)))


def frames(run: RecordedRun, options: Options) -> Playback:
    """Play the frames of a run, then the end. An integer `start` or `until` counts tokens; frames are not split."""
    seq, at_us, limit = 0, 0, FIRST_ROWS
    if options.first_token:
        seq = yield QueryStep(DatabaseReader.frame_at, run.id, options.first_token)
    while True:
        rows = yield QueryStep(DatabaseReader.frames, run.id, seq, limit, seen_status=run.status)
        for row in rows:
            piece = _frames_of(row, seq)
            seq, at_us = row.seq + row.count, _last_us(piece, at_us)
            yield _cut_by_time(piece, options)
            if _is_over(options, row.first_delta, at_us):
                return
        if rows:
            limit = _next_limit(sum(row.count for row in rows), len(rows))
            continue
        if not (options.follow and run.is_open):
            yield EndStep(at_us, run)
            return
        run = yield from _next_read(run)


def _next_read(run: RecordedRun) -> Generator[Step, Any, RecordedRun]:
    """Wait for a commit, then read the run again.

    The caller reads the rows after this. If the run has ended by now, all of its rows are stored already.
    """
    yield WaitStep(run.id)
    found: RecordedRun = yield QueryStep(DatabaseReader.run, run.id)
    return found


def _first_token(run: RecordedRun, options: Options, gaps: Sequence[GapRow]) -> Generator[Step, Any, int]:
    """The number of the first token to play. Raises `ConfigError` for a start behind the last token."""
    if options.start is None:
        return 0
    end = yield QueryStep(DatabaseReader.tokens_end, run.id)
    end = max([end, *(gap.seq + gap.count for gap in gaps)])
    start_us = options.start_us
    found = options.first_token if start_us is None else (yield from _at_time(run, start_us, end))
    if found >= end and not (options.follow and run.is_open) and found > 0:
        raise ConfigError(
            f"start is {options.start!r}, and run {run.id} has {end} tokens; choose an earlier place"
        )
    return found


def _at_time(run: RecordedRun, start_us: int, end: int) -> Generator[Step, Any, int]:
    """The number of the first token at or after a time: a binary search over rows, then inside one row."""
    low, high = 0, end
    while low < high:
        middle = (low + high) // 2
        rows = yield QueryStep(DatabaseReader.segments, run.id, middle, 1)
        piece = _tokens_of(rows[0], rows[0].seq, 0) if rows else None
        times = [item[0] for item in piece.items] if isinstance(piece, TokensStep) else []
        if not times or times[0] >= start_us:
            high = min(middle, rows[0].seq if rows else middle)
        elif times[-1] < start_us:
            low = rows[0].seq + rows[0].count
        else:
            return int(rows[0].seq + bisect_left(times, start_us))
    return low


def _tokens_of(row: SegmentRow, seq: int, at_us: int) -> TokensStep | GapStep:
    """The tokens of a row from token `seq` on. A damaged row becomes a gap."""
    try:
        items = checked(orjson.loads(row.deltas))
        if ESCAPE in row.deltas:
            items = [[at, *map(unescape, texts)] for at, *texts in items]
        if len(items) != row.count:
            raise ValueError(f"it holds {len(items)} tokens, not {row.count}")
    except (ValueError, TypeError) as error:
        log.error("Run %s: the row of tokens %d is damaged: %s", row.run_id, row.seq, error)
        return GapStep(at_us, row.seq, row.count, f"the stored row is damaged: {error}")
    first = max(seq, row.seq)
    return TokensStep(first, items[first - row.seq :] if first > row.seq else items)


def _frames_of(row: FrameRow, seq: int) -> FramesStep | GapStep:
    """The frames of a row from frame `seq` on. A damaged row becomes a gap."""
    try:
        items = split(decompress(row.data, row.dictionary))
        if len(items) != row.count:
            raise StoreError(f"it holds {len(items)} frames, not {row.count}")
    except StoreError as error:
        log.error("Run %s: the row of frames %d is damaged: %s", row.run_id, row.seq, error)
        return GapStep(row.at_us, row.seq, row.count, f"the stored row is damaged: {error}")
    first = max(seq, row.seq)
    return FramesStep(first, items[first - row.seq :] if first > row.seq else items)


def _last_us(piece: TokensStep | FramesStep | GapStep, at_us: int) -> int:
    return at_us if isinstance(piece, GapStep) or not piece.items else int(piece.items[-1][0])


def _cut(piece: TokensStep | GapStep, options: Options) -> TokensStep | GapStep:
    end = options.end_token
    if end is not None and isinstance(piece, TokensStep):
        piece = TokensStep(piece.seq, piece.items[: max(0, end - piece.seq)])
    return _cut_by_time(piece, options)


def _cut_by_time(piece: PieceT, options: Options) -> PieceT:
    start, until = options.start_us, options.until_us
    if (start is None and until is None) or isinstance(piece, GapStep):
        return piece
    first = 0 if start is None else bisect_left(piece.items, start, key=_at)
    last = len(piece.items) if until is None else bisect_left(piece.items, until, key=_at)
    return type(piece)(piece.seq + first, piece.items[first:last])


def _at(item: Any) -> int:
    return int(item[0])


def _is_over(options: Options, seq: int, at_us: int) -> bool:
    """Whether the next token or frame is at or after `until`."""
    if options.end_token is not None and seq >= options.end_token:
        return True
    return options.until_us is not None and at_us >= options.until_us


def _next_limit(count: int, rows: int, page: int = PAGE) -> int:
    """How many rows hold about `page` items, if they are as full as the last ones."""
    return max(1, min(_MOST_ROWS, page * rows // max(1, count)))


class _Gaps:
    """The gaps of a run that were not yielded yet, in order."""

    def __init__(self, gaps: Sequence[GapRow], seq: int) -> None:
        self._end_of_last = seq
        self.left: list[GapRow] = []
        self.update(gaps)

    def update(self, gaps: Sequence[GapRow]) -> None:
        self.left = [gap for gap in gaps if gap.seq + gap.count > self._end_of_last]

    def before(self, seq: int | None, at_us: int) -> Iterator[GapStep]:
        """The gaps before token `seq`; all if it is None."""
        while self.left and (seq is None or self.left[0].seq < seq):
            gap = self.left.pop(0)
            self._end_of_last = gap.seq + gap.count
            yield GapStep(at_us, gap.seq, gap.count, unescape(gap.reason))
