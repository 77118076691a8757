"""Checks what is stored against what was recorded, and offers short calls to a recorder for all tests.

EXACT means: each accepted token is stored once, in order and unchanged, or a row in `gaps` names it as missing; and the
count and hash of a sealed run match its stored tokens.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import signal
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
from recorder.storage.batch import Batch
from recorder.storage.dialects import Postgres
from recorder.storage.failures import Failure
from recorder.storage.rows import COMPLETE, INTERRUPTED, STREAMING, RunEnd, RunStart
from recorder.storage.store_interface import Store
from tests import postgres

ROOT = Path(__file__).resolve().parent.parent

_ALPHABET = 'abc de\n"\\\x00\ufdd0é中🎈\ud800'


def token(seed: int, seq: int) -> str:
    """Return the text of a token; equal arguments give equal texts."""
    chance = random.Random(seed * 1_000_003 + seq)
    return "".join(chance.choices(_ALPHABET, k=chance.randrange(12)))


# -- files ---------------------------------------------------------------------------------------------------


@cache
def _template() -> bytes:
    """Return a database file with the newest tables and no rows; making one takes a tenth of a second."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "template.db"
        migrate.upgrade(f"sqlite:///{path}")
        return path.read_bytes()


def new_url(folder: Path, name: str = "history.db") -> str:
    """Return the URL of a new database file that has its tables already."""
    (folder / name).write_bytes(_template())
    return f"sqlite:///{folder / name}"


def sql(url: str, query: str, *parameters: object) -> list[Any]:
    """Run a query on a connection of its own and return the rows; both databases return ids and times as text."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            return connection.execute(query, parameters).fetchall()
    places = count(1)
    query = re.sub(r"\?", lambda _: f"${next(places)}", query)
    plain = Postgres(make_url(url)).plain
    return [tuple(map(plain, row)) for row in postgres.fetch(url, query, *parameters)]


def copy_of(url: str, folder: Path) -> str:
    """Copy a database file and its log as they are on disk now, and return the copy's URL."""
    path = Path(url.removeprefix("sqlite:///"))
    for file in path.parent.glob(path.name + "*"):
        shutil.copy(file, folder / file.name)
    return f"sqlite:///{folder / path.name}"


# -- the verdict ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stored:
    """What a database holds of one run."""

    status: str
    #: The text of each stored token, by its number.
    texts: dict[int, str]
    #: (first number, count, reason) of each gap.
    gaps: list[tuple[int, int, str]]
    #: Count and hash of the seal; a run that is not sealed has a count of 0 and no hash.
    token_count: int
    sha256: str | None
    #: The hash of the stored tokens.
    found_sha256: str
    #: Numbers of the tokens that are stored more than once.
    doubled: list[int]

    @property
    def missing(self) -> set[int]:
        """Return the numbers of the tokens that gap rows name as missing."""
        return {number for first, count, _ in self.gaps for number in range(first, first + count)}


def stored(url: str, run_id: object) -> Stored:
    """Read one run from the tables, without recorder's reading code."""
    [found] = _read_runs(url, str(run_id)).values()
    assert found.status != ABSENT
    assert found.doubled == []
    return found


#: The status of tokens and gaps whose run has no row.
ABSENT = "without a row"


def _read_runs(url: str, run_id: str | None = None) -> dict[str, Stored]:
    """Read one run by its id, or all runs."""
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
    """Assert that each of these tokens is stored or named as missing by a gap, and that the seal matches."""
    found = stored(url, run_id)
    expected = {number: text for number, text in enumerate(texts) if number not in found.missing}
    assert found.texts == expected
    assert found.missing <= set(range(len(texts)))
    assert found.status == status
    assert (found.token_count, found.sha256) == (len(found.texts), found.found_sha256)
    return found


def assert_whole(url: str, run_id: object, texts: Sequence[str], status: str = COMPLETE) -> None:
    """Assert that all these tokens are stored without a gap, and that the seal matches."""
    assert assert_exact(url, run_id, texts, status).gaps == []


# -- the verdict on many runs ----------------------------------------------------------------------------------


@dataclass(slots=True)
class Acknowledged:
    """What a producer knows to be committed of one run: the number of tokens, and the status."""

    tokens: int = 0
    status: str | None = None


#: Returns the text of a token for the number of its run and its own number.
Text = Callable[[int, int], str]
#: What was acknowledged of each run, by its number, which is also its id and the seed of its tokens.
Ledger = dict[int, Acknowledged]


@dataclass(slots=True)
class Verdict:
    """How a database differs from what was acknowledged; it is EXACT if nothing is wrong."""

    acknowledged: int = 0
    #: Tokens that were acknowledged and are not stored.
    missing: int = 0
    #: Tokens and messages that are stored more than once.
    doubled: int = 0
    #: Tokens that are stored under the number of another token, and missing numbers without a gap row.
    disordered: int = 0
    #: Tokens that gap rows name as missing.
    gaps: int = 0
    #: Details of the above, and everything else that is wrong, one sentence each.
    breaches: list[str] = field(default_factory=list)

    @property
    def exact(self) -> bool:
        """Return whether nothing is missing, doubled, out of order or otherwise wrong."""
        return not (self.missing or self.doubled or self.disordered or self.breaches)

    def add(self, other: Verdict) -> None:
        """Add the counts of another verdict to this one."""
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

    Tokens in gap rows count as stored only with `gaps`. A run without an acknowledged end must be sealed, or have the
    status `unended` if that is not None. Each run must have one question and one answer of its own.
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
    """Report messages that are stored more than once."""
    query = "SELECT conversation_id, content, count(*) FROM messages GROUP BY 1, 2 HAVING count(*) > 1"
    for conversation_id, content, times in sql(url, query):
        verdict.doubled += times - 1
        verdict.breaches.append(f"message {content!r} of {conversation_id!r} is stored {times} times")


# -- calling the callback as a model does --------------------------------------------------------------------


def begin(
    history: ChatHistoryCallback, *messages: Any, run_id: uuid.UUID | None = None, **more: Any
) -> uuid.UUID:
    """Start a run with these messages ("Hi" by default) and return its id; `more` goes to the callback."""
    run_id = run_id or uuid.uuid4()
    history.on_chat_model_start({}, [list(messages) or [HumanMessage("Hi")]], run_id=run_id, **more)
    return run_id


def say(history: ChatHistoryCallback, run_id: uuid.UUID, texts: Iterable[str]) -> None:
    """Hand these tokens of the run to the callback."""
    for text in texts:
        history.on_llm_new_token(text, run_id=run_id)


def result(*texts: str, output: Mapping[str, Any] | None = None, **info: Any) -> LLMResult:
    """Return the result of a run with one reply for each text."""
    choices = [ChatGeneration(AIMessage(text), dict(info)) for text in texts]
    return LLMResult(generations=[choices], llm_output=dict(output or {}))


def finish(history: ChatHistoryCallback, run_id: uuid.UUID, *texts: str, **info: Any) -> None:
    """End the run with these replies."""
    history.on_llm_end(result(*texts, **info), run_id=run_id)


def record(history: ChatHistoryCallback, *messages: Any, reply: str = "Hello", **more: Any) -> uuid.UUID:
    """Record a whole run of one token and return its id."""
    run_id = begin(history, *messages, **more)
    say(history, run_id, [reply])
    finish(history, run_id, reply)
    return run_id


@contextmanager
def observed_statements(tell: Callable[[str], None], *, after: bool = False) -> Iterator[None]:
    """Inside, call `tell` with each SQL statement before or after its execution; its exceptions are raised there."""
    execute = aiosqlite.Cursor.execute

    # PRAGMA statements open a connection and are not observed.
    async def observed(cursor: Any, sql: str, parameters: Any = None) -> Any:
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
            patch.setattr(aiosqlite.Cursor, "execute", observed)
            yield
    finally:
        event.remove(Engine, moment, on_postgres)


def run_start(number: int = 0, *, conversation_id: str = "c", **fields: Any) -> RunStart:
    """Return the start of a run as the queue takes it, with an id made of a number."""
    fields = {"fresh": True, "started_at": now(), **fields}
    return RunStart(run_id=str(uuid.UUID(int=number)), conversation_id=conversation_id, **fields)


def started(queue: RecordingQueue, start: RunStart, started_us: int) -> OpenRun:
    """Put the start of a run into the queue and return the open run."""
    run = OpenRun(start, started_us)
    queue.start(run)
    return run


def run_end(status: str = COMPLETE, **fields: Any) -> RunEnd:
    """Return the end of a run as the queue takes it."""
    return RunEnd(status, now(), **fields)


# -- faults --------------------------------------------------------------------------------------------------

#: Called with a batch before or after it is stored; it may raise.
Fault = Callable[[Batch], None]


class FaultyStore:
    """A store whose appends of runs can fail: each append calls the next function of `before` with the batch, stores
    it, and calls the next function of `after`. A function may raise; None lets one append pass.
    """

    def __init__(
        self, inner: Store, *, before: Iterable[Fault | None] = (), after: Iterable[Fault | None] = ()
    ) -> None:
        self.inner = inner
        self.before: Iterator[Fault | None] = iter(before)
        self.after: Iterator[Fault | None] = iter(after)
        #: The batches with runs whose append was tried.
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
    """Raise the error of a database that cannot be reached."""
    raise ConnectionError("the database is away")


@contextmanager
def hasty() -> Iterator[None]:
    """Inside, SQLite does not wait for locks, and a writer waits at most a millisecond before its next attempt."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recorder.storage.dialects.sqlite.BUSY_TIMEOUT", 0.001)
        patch.setattr("recorder.core.deadline.MIN_RETRY", 0.0005)
        patch.setattr("recorder.core.deadline.MAX_RETRY", 0.001)
        yield


# -- other processes -----------------------------------------------------------------------------------------


#: From 3.12 on Python warns when a process with several threads forks. The writer is a thread, and tests fork.
FORKS = "ignore:This process (pid=:DeprecationWarning"


def start_python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a new Python process that runs `code` and can import recorder and these tests.

    It leads a process group of its own, so that it can be ended together with the processes that it forks.
    """
    return subprocess.Popen(
        [sys.executable, "-W", FORKS, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )


def run_python(code: str, *arguments: object, timeout: float = 30) -> subprocess.CompletedProcess[str]:
    """Run `code` in a new Python process and wait for its end; after `timeout` seconds the test fails."""
    process = start_python(code, *arguments)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate(timeout=timeout)
        raise AssertionError(
            f"the script did not end within {timeout:g} s; it wrote:\n{out}\n{err}"
        ) from None
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)
