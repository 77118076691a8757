"""Parent and child go on recording after a fork, and every token is stored once."""

from __future__ import annotations

import sqlite3
import uuid
from contextlib import closing
from pathlib import Path

import pytest

from recorder.storage.fork_safe import Handle
from tests import postgres
from tests.oracle import assert_whole, new_url, run_python, sql, start_python, token

#: The beginning of each script. `record(number)` records and flushes a run of 300 tokens; `wait(child)` asserts that
#: the child ends without an error; `until(pipe)` waits for `ready(pipe)` in the other process, which may have failed.
SHARED = """
import os, sys, threading, uuid, warnings
warnings.filterwarnings("ignore", "This process", DeprecationWarning)  # of Python 3.12: it forks beside threads
from recorder import ChatHistoryCallback
from tests.oracle import begin, finish, say, token

def record(number, history=None, size=300):
    history = history or globals()["history"]
    run_id = begin(history, run_id=uuid.UUID(int=number))
    for seq in range(size):
        say(history, run_id, [token(number, seq)])
        if seq == size // 2:
            history.flush().wait(20)
    finish(history, run_id, "done")
    history.flush().wait(20)

def wait(child):
    assert os.waitpid(child, 0)[1] == 0

def ready(pipe):
    os.write(pipe[1], b"1")

def until(pipe):
    os.close(pipe[1])  # otherwise the read would wait without end for a process that failed
    assert os.read(pipe[0], 1), "the other process failed"

history = ChatHistoryCallback(sys.argv[1], flush_interval=0)
"""


def run_script(code: str, *arguments: object) -> None:
    """Run the script, and assert that it ends without an error and writes nothing to stderr."""
    done = run_python(SHARED + code, *arguments, timeout=50)
    assert (done.returncode, done.stderr) == (0, "")


def assert_all_stored(url: str, numbers: range | list[int], size: int = 300) -> None:
    """All tokens of these runs are stored, and a SQLite file passes the integrity check."""
    for number in numbers:
        assert_whole(url, uuid.UUID(int=number), [token(number, seq) for seq in range(size)])
    if url.startswith("sqlite"):
        assert sql(url, "PRAGMA integrity_check") == [("ok",)]


WHO_CLOSES_FIRST = """
one, two = os.pipe(), os.pipe()
record(1)
if not (child := os.fork()):
    record(2)
    if sys.argv[2] == "parent":
        ready(one), until(two)
        record(3)
    history.close().wait(20)
    ready(one)
    os._exit(0)
if sys.argv[2] == "parent":
    until(one)
    history.close().wait(20)
    with ChatHistoryCallback(sys.argv[1], flush_interval=0) as another:
        ready(two)
        record(4, another)
else:
    record(3)
    until(one)
    record(4)
wait(child)
"""


@pytest.mark.parametrize("first", ["parent", "child"])
def test_parent_and_child_may_close_in_either_order(database: str, first: str) -> None:
    """The process that still records stores what it flushes after the other one has closed."""
    run_script(WHO_CLOSES_FIRST, database, first)
    assert_all_stored(database, range(1, 5))


IN_TRANSACTIONS = """
stop = threading.Event()
parents = []

def load():
    number = 1000
    while not stop.is_set():
        record(number, size=30)
        parents.append(number)
        number += 1

loading = threading.Thread(target=load)
loading.start()
children = []
for number in range(1, 9):
    if not (child := os.fork()):
        record(number)
        os._exit(0)
    children.append(child)
[wait(child) for child in children]
stop.set()
loading.join()
history.close().wait(20)
print(len(parents))
"""


WHILE_OPENING = """
from recorder.storage.fork_safe import Handle

create_function, forked = Handle.create_function, []

def fork_once(handle, *given, **options):
    create_function(handle, *given, **options)
    if not forked:  # SQLAlchemy calls this for a connection that was opened just now
        forked.append(os.getpid())
        if not os.fork():
            os._exit(0)

record(1)
Handle.create_function = fork_once
if not os.fork():  # closes the connection, so that the next batch opens one
    os._exit(0)
record(2)
os.wait(), os.wait()
history.close().wait(20)
"""


def test_a_process_may_fork_just_after_its_connection_was_opened(tmp_path: Path) -> None:
    """The connection is closed before it is set up. Another one is opened, and nothing is logged."""
    url = new_url(tmp_path)
    done = run_python(SHARED + WHILE_OPENING, url, timeout=50)
    assert (done.returncode, done.stderr) == (0, "")
    assert_all_stored(url, range(1, 3))


def test_a_process_may_fork_while_its_writer_writes(database: str) -> None:
    """Eight forks come in the middle of a transaction, between two, and while the connection is opened again."""
    done = run_python(SHARED + IN_TRANSACTIONS, database, timeout=50)
    assert (done.returncode, done.stderr) == (0, "")
    assert_all_stored(database, range(1, 9))
    assert_all_stored(database, range(1000, 1000 + int(done.stdout)), size=30)


GENERATIONS = """
if not (child := os.fork()):
    record(1)
    if not (grandchild := os.fork()):
        record(2)
        sys.exit()
    record(3)
    wait(grandchild)
    sys.exit()
record(4)
wait(child)
"""


def test_a_child_may_fork_again(database: str) -> None:
    """Parent, child and grandchild each record runs that are stored."""
    run_script(GENERATIONS, database)
    assert_all_stored(database, range(1, 5))


PREFORK = """
import select, signal
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
workers, pipes = [], []
for number in (1, 2, 3):
    pipes.append(os.pipe())
    if not (worker := os.fork()):
        record(number)
        run_id = begin(history, run_id=uuid.UUID(int=10 + number))
        say(history, run_id, ["not flushed"])
        # Not signal.pause(), which would miss a signal that comes between the call and its beginning.
        signalled, wakeup = os.pipe()
        os.set_blocking(wakeup, False)
        signal.set_wakeup_fd(wakeup)
        ready(pipes[-1])
        select.select([signalled], [], [])
        assert False, "the handler of SIGTERM raises SystemExit"
    workers.append(worker)
record(4)
for worker, pipe in zip(workers, pipes):
    until(pipe)
    os.kill(worker, signal.SIGTERM)
    wait(worker)
"""


def test_workers_of_a_preforking_server_record(database: str) -> None:
    """The history is made before the fork, and a worker that ends on SIGTERM stores what is in its queue."""
    run_script(PREFORK, database)
    assert_all_stored(database, range(1, 5))
    for number in (11, 12, 13):
        assert_whole(database, uuid.UUID(int=number), ["not flushed"], status="interrupted")


CLOSING = """
import pytest
from tests.oracle import FaultyStore
from recorder.errors import StoreError
from recorder.storage.store import SqlStore
from recorder.core.waitable import Wait

class Slow(FaultyStore):
    gate = Wait()
    async def append(self, batch):
        if batch.parts:
            await self.gate
        await super().append(batch)

history.close().wait(10)
history = ChatHistoryCallback(sys.argv[1], store=Slow(SqlStore(sys.argv[1])))
run_id = begin(history, run_id=uuid.UUID(int=1))
say(history, run_id, (token(1, seq) for seq in range(300)))
finish(history, run_id, "done")
flushing, closing = history.flush(), history.close()
if not (child := os.fork()):
    assert history.close().wait(10).accepted == 0
    assert closing.wait(10).accepted == 0
    with pytest.raises(StoreError, match="the parent's"):
        flushing.wait(10)
    with ChatHistoryCallback(sys.argv[1]) as another:
        record(2, another)
    sys.exit()
wait(child)
Slow.gate.set(None)
assert closing.wait(10).committed == 300
"""


def test_a_child_does_not_wait_for_the_parent_when_the_fork_comes_during_close(database: str) -> None:
    """`close` and `flush` of the child end while the parent's still wait, and the child can open a new history."""
    run_script(CLOSING, database)
    assert_all_stored(database, range(1, 3))


FILES = """
from recorder.replay import Replay

def files():
    links = (f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd"))
    return [link for link in links if ".db" in os.path.realpath(link)]

run_id = begin(history, run_id=uuid.UUID(int=1))
say(history, run_id, ["a", "b"])
history.flush().wait(10)
with Replay(sys.argv[1]) as replay:
    following = replay.stream(speed=None, follow=True)
    assert next(following).content == "a"
    assert len(files()) >= 3, files()  # of the recorder, the replay and the replay's watcher
    if not (child := os.fork()):
        assert files() == []
        assert [chunk.content for chunk in replay.stream(speed=None)] == ["a", "b", ""]
        assert next(replay.stream(speed=None, follow=True)).content == "a"
        replay.close()
        sys.exit()
    wait(child)
    say(history, run_id, ["c"])
    finish(history, run_id, "abc")
    assert "".join(chunk.content for chunk in following) == "bc"
"""


def test_a_child_has_none_of_the_parents_files_open(tmp_path: Path) -> None:
    """The files of the recorder and of a follower are closed in the child; both processes can go on reading."""
    url = new_url(tmp_path)
    run_script(FILES, url)
    assert_whole(url, uuid.UUID(int=1), ["a", "b", "c"])


OTHERS_LOCK = """
import recorder.storage.fork_safe as handles
record(1)
print("recorded", flush=True)
sys.stdin.readline()
refused, sleep = threading.Event(), handles.sleep
handles.sleep = lambda seconds: (refused.set(), sleep(seconds))
run_id = begin(history, run_id=uuid.UUID(int=2))
say(history, run_id, (token(2, seq) for seq in range(300)))
finish(history, run_id, "done")
assert refused.wait(20)  # the writer has drained some of the run, and waits for the lock
if not (child := os.fork()):
    record(3)
    os._exit(0)
print("forked", flush=True)
wait(child)
"""


def test_a_process_may_fork_while_another_program_locks_the_file(tmp_path: Path) -> None:
    """The fork comes between two attempts of the writer to get the lock; both processes store their runs afterwards."""
    url = new_url(tmp_path)
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as other:
        script = start_python(SHARED + OTHERS_LOCK, url)
        try:
            assert script.stdout is not None
            assert script.stdout.readline() == "recorded\n"
            other.execute("BEGIN IMMEDIATE")
            assert script.stdin is not None
            script.stdin.write("go\n")
            script.stdin.flush()
            assert script.stdout.readline() == "forked\n"
            other.execute("ROLLBACK")
            out, err = script.communicate(timeout=30)
        finally:
            script.kill()
    assert (script.returncode, out, err) == (0, "", "")
    assert_all_stored(url, range(1, 4))


IN_A_CALL = """
import logging
import recorder.storage.fork_safe as handles
from pathlib import Path
handles.TRANSACTION_TIMEOUT, handles.FORK_TIMEOUT = 0.5, 1.0
record(1)
path = Path(sys.argv[1].removeprefix("sqlite:///"))
handle, began, over = handles.Handle(str(path), path=path), threading.Event(), threading.Event()
handle.create_function("hang", 0, lambda: (began.set(), over.wait(30), 1)[-1])
hanging = threading.Thread(target=handle.execute, args=("SELECT hang()",))
hanging.start()
began.wait(10)
if not (child := os.fork()):
    logging.disable()
    run_id = begin(history, run_id=uuid.UUID(int=3))
    say(history, run_id, ["lost"])
    stats = history.close().wait(20)
    assert (stats.committed, stats.dropped, stats.healthy) == (0, 1, False), stats
    assert "forked" in stats.last_error, stats
    os._exit(0)
record(2)
wait(child)
over.set()
hanging.join()
"""


def test_a_connection_counts_as_open_until_sqlite_has_closed_it(tmp_path: Path) -> None:
    """SQLite holds locks while it closes, so a fork waits for the connection until then."""
    seen = []

    class Slow(sqlite3.Connection):
        def close(self) -> None:
            assert isinstance(self, Handle)
            seen.append((self.closed, self.lock.locked()))
            super().close()

    class SlowHandle(Handle, Slow):
        pass

    path = tmp_path / "history.db"
    handle = SlowHandle(str(path), path=path)
    handle.close()
    assert seen == [(False, True)]
    assert handle.closed


def test_a_child_does_not_use_a_file_that_could_not_be_closed(tmp_path: Path) -> None:
    """A call of SQLite hangs during the fork; the child drops its tokens and reports why, and the parent goes on."""
    url = new_url(tmp_path)
    run_script(IN_A_CALL, url)
    assert_all_stored(url, range(1, 3))
    assert sql(url, "SELECT count(*) FROM runs") == [(2,)]


CONNECTED = """
import gc
record(1)
print("recorded", flush=True)
sys.stdin.readline()
if not (child := os.fork()):
    gc.collect()
    record(2)
    gc.collect()
    sys.exit()
wait(child)
record(3)
print("recorded", flush=True)
sys.stdin.readline()
"""


def test_a_child_leaves_the_parents_connection_alone(postgres_url: str) -> None:
    """The child sends nothing over the parent's connection, and the parent uses the same connection afterwards."""
    pids = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    script = start_python(SHARED + CONNECTED, postgres_url)
    assert script.stdout is not None
    assert script.stdin is not None
    found = []
    for _ in range(2):
        assert script.stdout.readline() == "recorded\n"
        found.append(postgres.fetch(postgres_url, pids))
        script.stdin.write("go\n")
        script.stdin.flush()
    out, err = script.communicate(timeout=30)
    assert (script.returncode, out, err) == (0, "", "")
    assert found[0] == found[1]
    assert len(found[0]) == 1
    assert_all_stored(postgres_url, range(1, 4))


def test_a_collected_cursor_is_closed_between_two_calls(tmp_path: Path) -> None:
    """A finalizer that called SQLite beside a fork would leave a lock of SQLite held in the child for ever."""
    path = tmp_path / "history.db"
    with closing(Handle(str(path), path=path)) as handle:
        cursor = handle.execute("SELECT 1 UNION SELECT 2")
        with handle.lock:  # as during a call on another thread
            del cursor
            assert len(handle.cursors) == 1
        handle.execute("SELECT 3").fetchall()
        assert handle.cursors == []
        cursor = handle.execute("SELECT 1 UNION SELECT 2")
        del cursor
        assert handle.cursors == []
