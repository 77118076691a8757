"""Redacts one stored run: its tokens and its row. The provider's bytes are removed, because they hold everything."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Executable, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from recorder.analysis.feed import text_by_choice
from recorder.core.escaping import escape, escape_json, unescape, unescape_json
from recorder.core.json import dumps, loads
from recorder.recording.buffer import StoredToken
from recorder.recording.held_tokens import HeldToken, HeldTokens
from recorder.recording.run_totals import RunTotals
from recorder.recording.serialize import encode_deltas
from recorder.redaction.redaction import MatchCounts, Redaction
from recorder.storage import schema
from recorder.storage.row_checks import json_of
from recorder.storage.rows import SegmentRow
from recorder.storage.schema import frames, gaps, runs, segments
from recorder.upkeep.moved_evaluations import MovedEvaluations
from recorder.wire.deltas import TEXT, Delta

#: Columns of a run with JSON, and those that are text. Ids, names of models and usage are not redacted.
_JSON, _TEXTS = ("request", "tags", "metadata", "output"), ("error_message",)


#: Rows of one statement: both databases limit its parameters.
MOST_ROWS = 1_000


class Change(NamedTuple):
    """What changes one thing in the database, and how much."""

    #: In order. Empty if nothing changes.
    statements: Sequence[Executable] = ()
    #: How many frames are removed.
    frames: int = 0


async def changed_run(
    connection: AsyncConnection, run: Any, redaction: Redaction, counts: MatchCounts
) -> Change:
    """What redacts a run that has ended. `run` is its row; `counts` gets what is replaced."""
    values = redacted_columns(run, redaction, counts, _JSON, _TEXTS)
    if "request" in values and run.input_hash is not None:
        values["input_hash"] = None  # it is that of the text that is removed
    statements, sha256 = await _changed_tokens(connection, run, redaction, counts)
    if statements:
        values["token_count"], values["sha256"] = sha256
    counted = select(func.coalesce(func.sum(frames.c["count"]), 0)).where(frames.c.run_id == run.id)
    removed = int((await connection.execute(counted)).scalar_one())
    if removed:
        statements = [*statements, delete(frames).where(frames.c.run_id == run.id)]
        values["frames_sha256"] = None
    if (mark := merged(run.redaction, counts)) != run.redaction:
        values["redaction"] = mark
    if values:
        statements = [*statements, update(runs).where(runs.c.id == run.id).values(values)]
    return Change(statements, removed)


def redacted_columns(
    row: Any, redaction: Redaction, counts: MatchCounts, json: Sequence[str], texts: Sequence[str]
) -> dict[str, Any]:
    """New values of those columns of a row that have a match."""
    changed: dict[str, Any] = {}
    for name in json:
        if (stored := getattr(row, name)) is not None:
            value = unescape_json(loads(stored))
            if (new := redaction.value(value, counts)) is not value and new != value:
                changed[name] = escape_json(new)
    for name in texts:
        if stored := getattr(row, name):
            text = unescape(stored)
            if (new := redaction.text(text, counts)) != text:
                changed[name] = escape(new)
    return changed


def merged(mark: str | None, counts: MatchCounts) -> str:
    """The column `redaction` with more counts."""
    found = MatchCounts(counts.redaction)
    found.add((loads(mark) if mark else {}).items())
    found.add(counts.items())
    return dumps(dict(sorted(found.items())))


async def _changed_tokens(
    connection: AsyncConnection, run: Any, redaction: Redaction, counts: MatchCounts
) -> tuple[list[Executable], tuple[int, str | None]]:
    """What replaces the tokens, with their number and hash; nothing if they do not change."""
    query = select(segments).where(segments.c.run_id == run.id).order_by(segments.c.seq)
    rows = (await connection.execute(query)).all()
    before = dict(_tokens(rows))
    after = _redacted(before, redaction, counts)
    if after == before:
        return [], (run.token_count, run.sha256)
    removed = sorted(before.keys() - after.keys())
    statements: list[Executable] = [delete(segments).where(segments.c.run_id == run.id)]
    totals, new = RunTotals(), []
    for row in rows:
        items = [after[seq] for seq in range(row.seq, row.seq + row.count) if seq in after]
        if items:
            text = encode_deltas(items)
            totals.add_tokens(len(items), text)
            new.append(SegmentRow(run.id, _moved(row.seq, removed), len(items), text.decode()))
    for start in range(0, len(new), MOST_ROWS):
        part = new[start : start + MOST_ROWS]
        statements.append(insert(segments).values([row._asdict() for row in part]))
    statements += await _moved_gaps(connection, run.id, removed)
    if run.response_message_id is None:
        statements += await _moved_sentences(connection, run.id, before, after, redaction)
    return statements, (totals.token_count, None if run.sha256 is None else totals.tokens_sha256())


def _tokens(rows: Sequence[Any]) -> Iterator[tuple[int, StoredToken]]:
    """The tokens of segments, unescaped, each with its number."""
    for row in rows:
        for number, (at_us, *texts) in enumerate(json_of(row.deltas, f"run {row.run_id}")):
            yield row.seq + number, (at_us, *map(unescape, texts))


def _redacted(
    tokens: dict[int, StoredToken], redaction: Redaction, counts: MatchCounts
) -> dict[int, StoredToken]:
    """The tokens that are left, as the recorder would have stored them."""
    held = HeldTokens(redaction, counts)
    found: list[HeldToken] = []
    for seq, (_, text, *place) in tokens.items():
        kind, idx = (*place, *(TEXT, "0")[len(place) :])
        found += held.add(Delta(text, kind, idx), seq)  # its number stands in place of its time
    texts = {token.at_us: token.text for token in (*found, *held.finish())}
    return {seq: (token[0], texts[seq], *token[2:]) for seq, token in tokens.items() if seq in texts}


async def _moved_sentences(
    connection: AsyncConnection, run_id: str, before: dict[int, StoredToken], after: dict[int, StoredToken],
    redaction: Redaction,
) -> list[Executable]:  # fmt: skip
    """What moves the evaluations of sentences of a run without a message."""
    evaluations = MovedEvaluations({}, redaction)
    old, new = (text_by_choice(encode_deltas(list(each.values())).decode()) for each in (before, after))
    for choice, text in old.items():
        evaluations.add((run_id, choice), text, new.get(choice, ""))
    rows = (
        await connection.execute(select(schema.annotations).where(schema.annotations.c.run_id == run_id))
    ).all()
    return list(evaluations.statements(rows))


async def _moved_gaps(connection: AsyncConnection, run_id: str, removed: Sequence[int]) -> list[Executable]:
    """What gives the gaps the numbers that they have without the tokens that are left out."""
    if not removed:
        return []
    rows = (await connection.execute(select(gaps).where(gaps.c.run_id == run_id))).all()
    if not rows:
        return []
    moved = [{**row._asdict(), "seq": _moved(row.seq, removed)} for row in rows]
    return [delete(gaps).where(gaps.c.run_id == run_id), insert(gaps).values(moved)]


def _moved(seq: int, removed: Sequence[int]) -> int:
    return seq - bisect_left(removed, seq)
