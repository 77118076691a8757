"""What is played of a run, in order: a generator that asks for rows and gives items, without any I/O or waiting.

`Ask` is answered by whoever drives it, `Wait` when something may have come; the others are for who listens.
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
from recorder.replay.items import checked
from recorder.replay.pace import Options
from recorder.storage.compression import decompress
from recorder.storage.frame_block import split
from recorder.storage.reader import Branch, Library, RecordedRun
from recorder.storage.rows import FrameRow, GapRow, SegmentRow

log = getLogger("recorder")

#: Rows of the first question, so that the first token comes at once; later ones hold about so many tokens or frames.
FIRST_ROWS = 4
PAGE = 20_000
_MOST_ROWS = 5_000


class Tokens(NamedTuple):
    """Consecutive tokens."""

    #: Number of the first one.
    seq: int
    #: `[at_us, text]` or `[at_us, text, kind, idx]` of each, the text as it was recorded.
    items: list[Any]


class Frames(NamedTuple):
    """Consecutive events of the provider, byte for byte; a run's frames joined are its body."""

    #: Number of the first one.
    seq: int
    #: Offset in microseconds and bytes of each.
    items: list[tuple[int, bytes]]


class Begin(NamedTuple):
    """A run begins; offsets count from its request."""

    run: RecordedRun
    #: What it was asked, where the listener wants that.
    messages: Sequence[BaseMessage] = ()


class Gap(NamedTuple):
    """Tokens or frames that are missing, and why."""

    at_us: int
    seq: int
    count: int  # type: ignore[assignment]  # a tuple has a method of that name, nobody needs it
    reason: str


class End(NamedTuple):
    """The end of a run, as it is known now."""

    at_us: int
    run: RecordedRun
    #: What it replied, where the listener wants that.
    replies: Sequence[BaseMessage] = ()


PieceT = TypeVar("PieceT", Tokens, Frames, Tokens | Gap, Frames | Gap)


class Ask:
    """A question to the library, a method of it and what it is given; the answer is sent into the generator.

    Followers of one run share an answer, so what is given must be of a kind that can be a key. The status that the run
    was seen with, `knowing`, is part of the key: who knows that the run has ended gets no answer from before.
    """

    __slots__ = ("given", "key", "method")

    def __init__(self, method: Callable[..., Awaitable[Any]], *given: Hashable, knowing: str = "") -> None:
        self.method = method
        self.given = given
        self.key = (knowing, method, *given)


class Wait(NamedTuple):
    """All that is committed was played: go on when the run has more, or has ended."""

    run_id: str


Step = Ask | Wait | Begin | Tokens | Frames | Gap | End
Play = Generator[Step, Any, None]


#: Plays one run: `tokens` or `frames`.
Part = Callable[[RecordedRun, Options], Play]


def whole(given: str | None, options: Options, part: Part, *, messages: bool = False) -> Play:
    """A run, or the runs of a conversation along its newest branch one after the other; by id or its beginning.
    Without one the newest run.

    With `messages` what each was asked and what it replied comes with its begin and its end.
    """
    found = yield Ask(Library.newest) if given is None else Ask(Library.find, given)
    if found.kind == "run":
        run = yield Ask(Library.run, found.id)
        branch = Branch(run.conversation_id, (), (run,), False)
    else:
        _refuse_places(found.id, options)
        branch = yield Ask(Library.newest_branch, found.id)
        if branch.has_others:
            log.info("Conversation %s has other branches; played is the newest", found.id)
    if not messages:
        for run in branch.runs:
            yield Begin(run)
            yield from part(run, options)
        return
    history = yield from _history(branch)
    for run in branch.runs:
        length = history.lengths.get(run.prompt_message_id)
        if length is None:
            asked = yield Ask(Library.path, run.conversation_id, run.prompt_message_id)
        else:
            asked = history.messages[:length]
        yield Begin(run, asked)
        yield from _with_replies(part(run, options))


class _History(NamedTuple):
    """The messages of a branch. What a run of it was asked is a beginning of them, so they are read once."""

    messages: Sequence[BaseMessage]
    #: How long the beginning is that ends with a message, by its id.
    lengths: dict[str | None, int]


def _history(branch: Branch) -> Generator[Step, Any, _History]:
    if not branch.message_ids:
        return _History((), {})
    messages = yield Ask(Library.path, branch.conversation_id, branch.message_ids[-1])
    if len(messages) != len(branch.message_ids):
        return _History((), {})  # some were deleted meanwhile
    return _History(messages, {id: length for length, id in enumerate(branch.message_ids, 1)})


def _with_replies(play: Play) -> Play:
    """The same, with what was replied at the end."""
    steps, answer = Trampoline(play), None
    while (step := steps.step(answer)) is not None:
        if isinstance(step, End):
            run = step.run
            step = step._replace(replies=(yield Ask(Library.replies, run.conversation_id, run.id)))
        answer = yield step


def _refuse_places(given: str, options: Options) -> None:
    if options.start is not None or options.until is not None:
        raise ConfigError(
            f"{given!r} is a conversation, and start and until are places in one run; pass the id of a run"
        )


def tokens(run: RecordedRun, options: Options) -> Play:
    """The tokens of a run, its gaps where they are, and its end."""
    gaps: Sequence[GapRow] = yield Ask(Library.gaps, run.id)
    seq = yield from _first_token(run, options, gaps)
    missing = _Missing(gaps, seq)
    at_us, limit = 0, FIRST_ROWS
    while True:
        rows = yield Ask(Library.segments, run.id, seq, limit, knowing=run.status)
        for row in rows:
            yield from missing.before(row.seq, at_us)
            piece = _tokens_of(row, seq, at_us)
            seq, at_us = row.seq + row.count, _last_us(piece, at_us)
            yield _cut(piece, options)
            if _is_over(options, seq, at_us):
                return
        if rows:
            limit = _next_limit(sum(row.count for row in rows), len(rows))
            continue
        yield from missing.before(None, at_us)
        if not (options.follow and run.is_open):
            yield End(at_us, run)
            return
        run = yield from _next_look(run)
        missing.update((yield Ask(Library.gaps, run.id, knowing=run.status)))


def frames(run: RecordedRun, options: Options) -> Play:
    """The frames of a run, and its end. A number as `start` or `until` is a token's; a frame is not cut."""
    seq, at_us, limit = 0, 0, FIRST_ROWS
    if options.first_token:
        seq = yield Ask(Library.frame_at, run.id, options.first_token)
    while True:
        rows = yield Ask(Library.frames, run.id, seq, limit, knowing=run.status)
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
            yield End(at_us, run)
            return
        run = yield from _next_look(run)


def _next_look(run: RecordedRun) -> Generator[Step, Any, RecordedRun]:
    """Wait for news. The run is looked at before its rows: then what was stored before its end is not missed.

    Nor may the rows be an answer that was given before: who knows that the run has ended asks anew.
    """
    yield Wait(run.id)
    found: RecordedRun = yield Ask(Library.run, run.id)
    return found


def _first_token(run: RecordedRun, options: Options, gaps: Sequence[GapRow]) -> Generator[Step, Any, int]:
    """The number of the first token to play. Raises `ConfigError` for a start beyond the end."""
    if options.start is None:
        return 0
    end = yield Ask(Library.tokens_end, run.id)
    end = max([end, *(gap.seq + gap.count for gap in gaps)])
    start_us = options.start_us
    found = options.first_token if start_us is None else (yield from _at_time(run, start_us, end))
    if found >= end and not (options.follow and run.is_open) and found > 0:
        raise ConfigError(
            f"start is {options.start!r}, and run {run.id} has {end} tokens; choose an earlier place"
        )
    return found


def _at_time(run: RecordedRun, start_us: int, end: int) -> Generator[Step, Any, int]:
    """The number of the first token at or after a time: bisected by rows, then looked for in one."""
    low, high = 0, end
    while low < high:
        middle = (low + high) // 2
        rows = yield Ask(Library.segments, run.id, middle, 1)
        piece = _tokens_of(rows[0], rows[0].seq, 0) if rows else None
        times = [item[0] for item in piece.items] if isinstance(piece, Tokens) else []
        if not times or times[0] >= start_us:
            high = min(middle, rows[0].seq if rows else middle)
        elif times[-1] < start_us:
            low = rows[0].seq + rows[0].count
        else:
            return int(rows[0].seq + bisect_left(times, start_us))
    return low


def _tokens_of(row: SegmentRow, seq: int, at_us: int) -> Tokens | Gap:
    """The tokens of a row from number `seq` on; a damaged row is a gap."""
    try:
        items = checked(orjson.loads(row.deltas))
        if ESCAPE in row.deltas:
            items = [[at, *map(unescape, said)] for at, *said in items]
        if len(items) != row.count:
            raise ValueError(f"it holds {len(items)} tokens, not {row.count}")
    except (ValueError, TypeError) as error:
        log.error("Run %s: the row of tokens %d is damaged: %s", row.run_id, row.seq, error)
        return Gap(at_us, row.seq, row.count, f"the stored row is damaged: {error}")
    first = max(seq, row.seq)
    return Tokens(first, items[first - row.seq :] if first > row.seq else items)


def _frames_of(row: FrameRow, seq: int) -> Frames | Gap:
    """The frames of a row from number `seq` on; a damaged row is a gap."""
    try:
        items = split(decompress(row.data, row.dictionary))
        if len(items) != row.count:
            raise StoreError(f"it holds {len(items)} frames, not {row.count}")
    except StoreError as error:
        log.error("Run %s: the row of frames %d is damaged: %s", row.run_id, row.seq, error)
        return Gap(row.at_us, row.seq, row.count, f"the stored row is damaged: {error}")
    first = max(seq, row.seq)
    return Frames(first, items[first - row.seq :] if first > row.seq else items)


def _last_us(piece: Tokens | Frames | Gap, at_us: int) -> int:
    return at_us if isinstance(piece, Gap) or not piece.items else int(piece.items[-1][0])


def _cut(piece: Tokens | Gap, options: Options) -> Tokens | Gap:
    end = options.end_token
    if end is not None and isinstance(piece, Tokens):
        piece = Tokens(piece.seq, piece.items[: max(0, end - piece.seq)])
    return _cut_by_time(piece, options)


def _cut_by_time(piece: PieceT, options: Options) -> PieceT:
    start, until = options.start_us, options.until_us
    if (start is None and until is None) or isinstance(piece, Gap):
        return piece
    first = 0 if start is None else bisect_left(piece.items, start, key=_at)
    last = len(piece.items) if until is None else bisect_left(piece.items, until, key=_at)
    return type(piece)(piece.seq + first, piece.items[first:last])


def _at(item: Any) -> int:
    return int(item[0])


def _is_over(options: Options, seq: int, at_us: int) -> bool:
    """Whether what follows is beyond `until`."""
    if options.end_token is not None and seq >= options.end_token:
        return True
    return options.until_us is not None and at_us >= options.until_us


def _next_limit(count: int, rows: int) -> int:
    """How many rows hold about a page, if they are like those."""
    return max(1, min(_MOST_ROWS, PAGE * rows // max(1, count)))


class _Missing:
    """The gaps that are still to be shown, in order."""

    def __init__(self, gaps: Sequence[GapRow], seq: int) -> None:
        self._shown = seq
        self.left: list[GapRow] = []
        self.update(gaps)

    def update(self, gaps: Sequence[GapRow]) -> None:
        self.left = [gap for gap in gaps if gap.seq + gap.count > self._shown]

    def before(self, seq: int | None, at_us: int) -> Iterator[Gap]:
        """Those before token `seq`, or all."""
        while self.left and (seq is None or self.left[0].seq < seq):
            gap = self.left.pop(0)
            self._shown = gap.seq + gap.count
            yield Gap(at_us, gap.seq, gap.count, unescape(gap.reason))
