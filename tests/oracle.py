"""What every story about recording is judged by, and how the stories speak to a recorder.

EXACT means: each accepted token is stored once, in order, unchanged, or an explicit gap says that it is not;
and a sealed run's count and hash match what is stored.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from sqlalchemy import Engine, event, make_url

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.core.clock import now
from recorder.core.escaping import unescape
from recorder.messages import AIMessage, ChatGeneration, HumanMessage, LLMResult
from recorder.recording.buffer import OpenRun
from recorder.recording.queue import RecordingQueue
from recorder.storage import migrate
from recorder.storage.dialects import Failure, Postgres
from recorder.storage.rows import COMPLETE, INTERRUPTED, STREAMING, Batch, RunEnd, RunStart
from recorder.storage.store import Store
from tests import postgres

ROOT = Path(__file__).resolve().parent.parent

_ALPHABET = 'abc de\n"\\\x00\ufdd0é中🎈\ud800'


def token(seed: int, seq: int) -> str:
    """The text of a token, the same whenever it is asked for."""
    chance = random.Random(seed * 1_000_003 + seq)
    return "".join(chance.choices(_ALPHABET, k=chance.randrange(12)))


# -- files ---------------------------------------------------------------------------------------------------


@cache
def _template() -> bytes:
    """A database with the newest tables and nothing in it; making one takes a tenth of a second."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "template.db"
        migrate.upgrade(f"sqlite:///{path}")
        return path.read_bytes()


def new_url(folder: Path, name: str = "history.db") -> str:
    """The URL of a new database file that has its tables already."""
    (folder / name).write_bytes(_template())
    return f"sqlite:///{folder / name}"


def sql(url: str, query: str, *parameters: object) -> list[Any]:
    """What a query finds, as another program would see it: on both databases ids and times as text."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            return connection.execute(query, parameters).fetchall()
    places = count(1)
    query = re.sub(r"\?", lambda _: f"${next(places)}", query)
    plain = Postgres(make_url(url)).plain
    return [tuple(map(plain, row)) for row in postgres.fetch(url, query, *parameters)]


def copy_of(url: str, folder: Path) -> str:
    """A copy of the database and its log as they are on disk right now."""
    path = Path(url.removeprefix("sqlite:///"))
    for file in path.parent.glob(path.name + "*"):
        shutil.copy(file, folder / file.name)
    return f"sqlite:///{folder / path.name}"


# -- the verdict ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stored:
    """What a database holds of one run."""

    status: str
    #: The text of each stored token by its number.
    texts: dict[int, str]
    #: (first number, count, reason) of each gap.
    gaps: list[tuple[int, int, str]]
    #: Of the seal; a run that was never sealed has a count of 0 and no hash.
    token_count: int
    sha256: str | None
    #: The hash of what is stored.
    found_sha256: str
    #: Numbers of the tokens that are stored more than once.
    doubled: list[int]

    @property
    def missing(self) -> set[int]:
        """Numbers of the tokens that gaps speak of."""
        return {number for first, count, _ in self.gaps for number in range(first, first + count)}


def stored(url: str, run_id: object) -> Stored:
    """Read one run from the tables, without any of recorder's own reading."""
    [found] = _read_runs(url, str(run_id)).values()
    assert found.status != ABSENT
    assert found.doubled == []
    return found


#: The status of tokens and gaps whose run has no row.
ABSENT = "without a row"


def _read_runs(url: str, run_id: str | None = None) -> dict[str, Stored]:
    """One run by its id, or all of them."""
    given = (run_id,) if run_id else ()
    where, of_run = ("WHERE id = ?", "WHERE run_id = ?") if run_id else ("", "")
    found = sql(url, f"SELECT id, status, token_count, sha256 FROM runs {where}", *given)
    segments = sql(url, f"SELECT run_id, seq, count, deltas FROM segments {of_run} ORDER BY 1, 2", *given)
    gaps = sql(url, f"SELECT run_id, seq, count, reason FROM gaps {of_run} ORDER BY 1, 2", *given)
    runs = {
        id: Stored(status, {}, [], token_count, sha256, "", []) for id, status, token_count, sha256 in found
    }
    for id, *_ in [*segments, *gaps]:
        runs.setdefault(id, Stored(ABSENT, {}, [], 0, None, "", []))
    digests = {id: hashlib.sha256() for id in runs}
    for id, seq, size, deltas in segments:
        items = json.loads(deltas)
        assert len(items) == size
        digests[id].update((("," if runs[id].texts else "") + deltas[1:-1]).encode())
        for place, item in enumerate(items, seq):
            if place in runs[id].texts:
                runs[id].doubled.append(place)
            runs[id].texts[place] = unescape(item[1])
    for id, *gap in gaps:
        runs[id].gaps.append((gap[0], gap[1], gap[2]))
    return {id: replace(run, found_sha256=digests[id].hexdigest()) for id, run in runs.items()}


def assert_exact(url: str, run_id: object, texts: Sequence[str], status: str = COMPLETE) -> Stored:
    """All these tokens were accepted, so all are stored, or named as missing; and the seal proves it."""
    found = stored(url, run_id)
    expected = {number: text for number, text in enumerate(texts) if number not in found.missing}
    assert found.texts == expected
    assert found.missing <= set(range(len(texts)))
    assert found.status == status
    assert (found.token_count, found.sha256) == (len(found.texts), found.found_sha256)
    return found


def assert_whole(url: str, run_id: object, texts: Sequence[str], status: str = COMPLETE) -> None:
    """EXACT, and not one token is missing."""
    assert assert_exact(url, run_id, texts, status).gaps == []


# -- the verdict on many runs ----------------------------------------------------------------------------------


@dataclass(slots=True)
class Acknowledged:
    """What a producer was promised about one run: so many tokens, and this status, are committed."""

    tokens: int = 0
    status: str | None = None


#: The text of a token, by the number of its run and its own.
Text = Callable[[int, int], str]
#: By the number of the run, which is its id and the seed of its tokens.
Ledger = dict[int, Acknowledged]


@dataclass(slots=True)
class Verdict:
    """How the database compares with what was acknowledged; EXACT when nothing is wrong."""

    acknowledged: int = 0
    #: Tokens that were acknowledged and are not stored.
    missing: int = 0
    #: Tokens and messages that are stored more than once.
    doubled: int = 0
    #: Tokens that are stored under another's number, and holes that no gap row explains.
    disordered: int = 0
    #: Tokens that gap rows speak of.
    gaps: int = 0
    #: Everything else that is wrong, and details of the above.
    breaches: list[str] = field(default_factory=list)

    @property
    def exact(self) -> bool:
        """Whether nothing is missing, doubled, out of order or otherwise wrong."""
        return not (self.missing or self.doubled or self.disordered or self.breaches)

    def add(self, other: Verdict) -> None:
        """Count another verdict in."""
        self.acknowledged += other.acknowledged
        self.missing += other.missing
        self.doubled += other.doubled
        self.disordered += other.disordered
        self.gaps += other.gaps
        self.breaches += other.breaches


def judge(
    url: str, ledger: Ledger, *, gaps: bool = False, unended: str | None = INTERRUPTED, text: Text = token
) -> Verdict:
    """Compare all runs of a database with what was acknowledged, each token with `text(number of the run, seq)`.

    Tokens in gap rows count as stored only with `gaps`. Runs without an acknowledged end must be sealed or have
    the status `unended`, where it is not None. Each run has one question and one answer of its own.
    """
    verdict = Verdict(acknowledged=sum(known.tokens for known in ledger.values()))
    try:
        found = {uuid.UUID(id).int: run for id, run in _read_runs(url).items()}
    except sqlite3.DatabaseError as error:
        verdict.missing = verdict.acknowledged
        verdict.breaches.append(f"the file cannot be read: {error}")
        return verdict
    for number in ledger.keys() - found.keys():
        verdict.missing += ledger[number].tokens
        verdict.breaches.append(f"run {number} was acknowledged and is not stored")
    for number, run in found.items():
        _judge_run(verdict, number, run, ledger.get(number, Acknowledged()), gaps, text)
        if run.status == ABSENT or (run.status == STREAMING and unended not in (None, STREAMING)):
            verdict.breaches.append(f"run {number} is {run.status}")
    _judge_messages(verdict, url)
    if url.startswith("sqlite") and (found_wrong := sql(url, "PRAGMA integrity_check")) != [("ok",)]:
        verdict.breaches.append(f"the file is malformed: {found_wrong[:2]}")
    return verdict


def _judge_run(
    verdict: Verdict, number: int, run: Stored, known: Acknowledged, gaps: bool, text: Text
) -> None:
    explained = run.missing
    present = run.texts.keys() | explained if gaps else run.texts.keys()
    missing = set(range(known.tokens)) - present
    holes = set(range(known.tokens, max(run.texts, default=0))) - run.texts.keys() - explained
    wrong = [seq for seq, found in run.texts.items() if found != text(number, seq)]
    verdict.missing += len(missing)
    verdict.doubled += len(run.doubled) + len(run.texts.keys() & explained)
    verdict.disordered += len(holes) + len(wrong)
    verdict.gaps += len(explained)
    where = f"run {number} ({run.status}, {known.tokens} acknowledged, {len(run.texts)} stored)"
    for name, tokens in (("missing", missing), ("not stored before later ones", holes), ("wrong", wrong)):
        if tokens:
            verdict.breaches.append(f"{where}: {len(tokens)} {name}, the first is {min(tokens)}")
    if run.gaps and not gaps:
        verdict.breaches.append(f"{where}: gap rows {run.gaps[:3]}")
    if known.status is not None and run.status != known.status:
        verdict.breaches.append(f"{where}: {known.status} was acknowledged")
    if run.sha256 is not None and (run.token_count, run.sha256) != (len(run.texts), run.found_sha256):
        verdict.breaches.append(f"{where}: the seal says {run.token_count} tokens or another hash")


def _judge_messages(verdict: Verdict, url: str) -> None:
    """No message is there twice."""
    query = "SELECT conversation_id, content, count(*) FROM messages GROUP BY 1, 2 HAVING count(*) > 1"
    for conversation_id, content, times in sql(url, query):
        verdict.doubled += times - 1
        verdict.breaches.append(f"message {content!r} of {conversation_id!r} is stored {times} times")


# -- speaking as a model does --------------------------------------------------------------------------------


def begin(
    history: ChatHistoryCallback, *messages: Any, run_id: uuid.UUID | None = None, **more: Any
) -> uuid.UUID:
    """A run begins with these messages, "Hi" unless given; `more` goes to the callback."""
    run_id = run_id or uuid.uuid4()
    history.on_chat_model_start({}, [list(messages) or [HumanMessage("Hi")]], run_id=run_id, **more)
    return run_id


def say(history: ChatHistoryCallback, run_id: uuid.UUID, texts: Iterable[str]) -> None:
    """The run's tokens come."""
    for text in texts:
        history.on_llm_new_token(text, run_id=run_id)


def result(*texts: str, output: Mapping[str, Any] | None = None, **info: Any) -> LLMResult:
    """The end of a run that replies with each of the texts."""
    choices = [ChatGeneration(AIMessage(text), dict(info)) for text in texts]
    return LLMResult(generations=[choices], llm_output=dict(output or {}))


def finish(history: ChatHistoryCallback, run_id: uuid.UUID, *texts: str, **info: Any) -> None:
    """The run ends well."""
    history.on_llm_end(result(*texts, **info), run_id=run_id)


def record(history: ChatHistoryCallback, *messages: Any, reply: str = "Hello", **more: Any) -> uuid.UUID:
    """A whole run of one token."""
    run_id = begin(history, *messages, **more)
    say(history, run_id, [reply])
    finish(history, run_id, reply)
    return run_id


@contextmanager
def told_statements(tell: Callable[[str], None], *, after: bool = False) -> Iterator[None]:
    """Inside, `tell` hears each statement that a driver is given, before or after it did it; what it raises is
    raised there. Without what a new connection is asked."""
    execute = aiosqlite.Cursor.execute

    async def told(cursor: Any, sql: str, parameters: Any = None) -> Any:
        if sql.startswith("PRAGMA"):
            return await execute(cursor, sql, parameters)
        if not after:
            tell(sql)
        found = await execute(cursor, sql, parameters)
        if after:
            tell(sql)
        return found

    def on_postgres(connection: Any, *given: Any) -> None:
        if connection.dialect.name != "sqlite":
            tell(given[1])

    moment = "after_cursor_execute" if after else "before_cursor_execute"
    event.listen(Engine, moment, on_postgres)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(aiosqlite.Cursor, "execute", told)
            yield
    finally:
        event.remove(Engine, moment, on_postgres)


def run_start(number: int = 0, *, conversation_id: str = "c", **fields: Any) -> RunStart:
    """The start of a run below the callback, its id made of a number."""
    fields = {"fresh": True, "started_at": now(), **fields}
    return RunStart(run_id=str(uuid.UUID(int=number)), conversation_id=conversation_id, **fields)


def started(queue: RecordingQueue, start: RunStart, started_us: int) -> OpenRun:
    """A run whose start is in the queue."""
    run = OpenRun(start, started_us)
    queue.start(run)
    return run


def run_end(status: str = COMPLETE, **fields: Any) -> RunEnd:
    """The end of a run below the callback."""
    return RunEnd(status, now(), **fields)


# -- faults --------------------------------------------------------------------------------------------------

#: Called with the batch and what stores it: `await inner()` where the fault lets it be stored.
Fault = Callable[[Batch], None]


class FaultyStore:
    """A store whose appends of runs fail as told: each of `before` and `after` is called once with the batch,
    before and after it is stored, and may raise. None lets one append pass.
    """

    def __init__(
        self, inner: Store, *, before: Iterable[Fault | None] = (), after: Iterable[Fault | None] = ()
    ) -> None:
        self.inner = inner
        self.before: Iterator[Fault | None] = iter(before)
        self.after: Iterator[Fault | None] = iter(after)
        #: The appends of runs that were tried.
        self.tried: list[Batch] = []

    async def open(self) -> None:
        await self.inner.open()

    async def append(self, batch: Batch) -> None:
        if batch.parts:
            self.tried.append(batch)
        if batch.parts and (fault := next(self.before, None)) is not None:
            fault(batch)
        await self.inner.append(batch)
        if batch.parts and (fault := next(self.after, None)) is not None:
            fault(batch)

    async def sweep(self, dead: Any, moment: Any) -> int:
        return await self.inner.sweep(dead, moment)

    async def close(self) -> None:
        await self.inner.close()

    def failure(self, error: BaseException) -> Failure:
        return self.inner.failure(error)


def away(_batch: Batch) -> None:
    """The fault of a database that cannot be reached."""
    raise ConnectionError("the database is away")


@contextmanager
def hasty() -> Iterator[None]:
    """Inside, SQLite does not wait for locks, and a writer not for its next attempt."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recorder.storage.dialects.sqlite.BUSY_TIMEOUT", 0.001)
        patch.setattr("recorder.core.deadline.MIN_RETRY", 0.0005)
        patch.setattr("recorder.core.deadline.MAX_RETRY", 0.001)
        yield


# -- other processes -----------------------------------------------------------------------------------------


#: Since 3.12 Python warns of a fork where other threads run. The writer is one, and programs here fork on purpose.
FORKS = "ignore:This process (pid=:DeprecationWarning"


def start_python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A Python of its own that runs `code`, with recorder and these tests within reach."""
    return subprocess.Popen(
        [sys.executable, "-W", FORKS, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_python(code: str, *arguments: object, timeout: float = 30) -> subprocess.CompletedProcess[str]:
    """The same, to its end; more than `timeout` seconds fail the test."""
    process = start_python(code, *arguments)
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)
