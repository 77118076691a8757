"""A process that ends stores what is in its queue, also where it does not wait for `close` or ends without `atexit`."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import uuid
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import pytest

from recorder.core import at_exit
from tests.faults.proxy import proxy
from tests.oracle import assert_whole, new_url, run_python, start_python, token

NO_THREADS = """
import asyncio, atexit, sys, threading, uuid
from recorder import ChatHistoryCallback
from recorder.storage.store import SqlStore
from tests.oracle import record

exit_began = threading.Event()

class SlowToOpen(SqlStore):
    async def open(self):
        assert exit_began.wait(20)
        await super().open()

def start(thread):
    raise RuntimeError("can't create new thread at interpreter shutdown")

@atexit.register
def begin_exit():
    threading.Thread.start = start
    exit_began.set()

async def main():
    url = sys.argv[1]
    record(ChatHistoryCallback(url, store=SlowToOpen(url)), run_id=uuid.UUID(int=1), reply="a")

asyncio.run(main())
"""


def test_everything_is_stored_where_no_thread_can_be_started_any_more(database: str) -> None:
    """The exit begins before the database is open, and the driver of Postgres has to look the host name up."""
    with proxy(database) if database.startswith("postgresql") else nullcontext() as named:
        url = database if named is None else named.url.replace("127.0.0.1", "localhost")
        done = run_python(NO_THREADS, url)
    assert (done.returncode, done.stderr) == (0, "")
    assert_whole(database, uuid.UUID(int=1), ["a"])


CLOSED = """
import sys, uuid
from recorder import ChatHistoryCallback
from tests.oracle import begin, finish, say, token

history = ChatHistoryCallback(sys.argv[1], flush_interval=3600)
begin(history)
history.flush().wait(10)
for number in range(100):
    run_id = begin(history, run_id=uuid.UUID(int=number))
    say(history, run_id, (token(number, seq) for seq in range(50)))
    finish(history, run_id, "done")
history.close()
"""


def test_everything_is_stored_when_the_script_does_not_wait_for_close(database: str) -> None:
    """The script ends right after the call."""
    done = run_python(CLOSED, database)
    assert (done.returncode, done.stderr) == (0, "")
    for number in range(100):
        assert_whole(database, uuid.UUID(int=number), [token(number, seq) for seq in range(50)])


ENDS = {
    "closed without waiting": "history.close(timeout=3600)",
    "not closed": "while history.stats().healthy: pass",
}


@pytest.mark.parametrize("end", ENDS)
def test_the_exit_gives_up_when_the_file_stays_locked(tmp_path: Path, end: str) -> None:
    """The exit waits for at most EXIT_TIMEOUT, and one line on stderr says how many tokens were not stored."""
    code = """
import logging, sys
import recorder.storage.dialects.sqlite, recorder.recording.recorder
from recorder import ChatHistoryCallback
from tests.oracle import begin, say

logging.disable()
recorder.storage.dialects.sqlite.BUSY_TIMEOUT = 0.001
recorder.recording.recorder.EXIT_TIMEOUT = 0.1
history = ChatHistoryCallback(sys.argv[1])
begin(history)
history.flush().wait(10)
print("ready", flush=True)
sys.stdin.readline()
say(history, begin(history), ["a", "b", "c"])
"""
    url = new_url(tmp_path)
    script = start_python(code + ENDS[end], url)
    assert script.stdout is not None
    assert script.stdout.readline() == "ready\n"
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        _, printed = script.communicate("go\n", timeout=20)
    assert script.returncode == 0
    assert printed == "recorder: 3 tokens were not stored: storing: database is locked\n"


def test_the_exit_does_not_count_the_import_of_the_databases_libraries(tmp_path: Path) -> None:
    """On an event loop the writer's thread imports them, which takes seconds on a slow machine."""
    code = """
import asyncio, sys, threading, uuid
import recorder.recording.recorder
from recorder import ChatHistoryCallback
from recorder.recording.deferred_store import DeferredStore
from tests.oracle import record

recorder.recording.recorder.EXIT_TIMEOUT = 0.1
load, histories, late = DeferredStore.load, [], threading.Event()

def slow_load(store):
    while not (histories and histories[0].recorder.closed):
        late.wait(0.01)
    late.wait(0.2)  # longer than EXIT_TIMEOUT
    histories[0].recorder._exit_timeout = 60  # a busy machine may take long to open the file
    load(store)

DeferredStore.load = slow_load

async def main():
    histories.append(ChatHistoryCallback(sys.argv[1]))
    record(histories[0], run_id=uuid.UUID(int=1), reply="a")

asyncio.run(main())
"""
    url = new_url(tmp_path)
    done = run_python(code, url)
    assert (done.returncode, done.stderr) == (0, "")
    assert_whole(url, uuid.UUID(int=1), ["a"])


def test_everything_is_stored_when_ctrl_c_ends_the_wait_of_a_with_block(tmp_path: Path) -> None:
    """The block raises KeyboardInterrupt, and the exit of the process stores the tokens."""
    code = """
import os, signal, sys, threading, uuid
from recorder import ChatHistoryCallback
from recorder.storage.store import SqlStore
from recorder.core.waitable import Wait
from tests.oracle import FaultyStore, begin, finish, say, token

gate = Wait()

class Slow(FaultyStore):
    async def append(self, batch):
        if batch.parts:
            await gate
        await super().append(batch)

def interrupt():
    while not history.recorder.closed:
        pass
    os.kill(os.getpid(), signal.SIGINT)

history = ChatHistoryCallback(sys.argv[1], store=Slow(SqlStore(sys.argv[1])))
try:
    with history:
        run_id = begin(history, run_id=uuid.UUID(int=1))
        say(history, run_id, (token(1, seq) for seq in range(300)))
        finish(history, run_id, "done")
        threading.Thread(target=interrupt).start()
except KeyboardInterrupt:
    print("interrupted")
    gate.set(None)
"""
    url = new_url(tmp_path)
    done = run_python(code, url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")
    assert_whole(url, uuid.UUID(int=1), [token(1, seq) for seq in range(300)])


WORKERS = """
import sys, uuid, warnings
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from recorder import ChatHistoryCallback
from recorder.messages import AIMessage, ChatGeneration, HumanMessage, LLMResult

url, method, made = sys.argv[1:]
warnings.filterwarnings("ignore", "This process", DeprecationWarning)  # of Python 3.12: it forks beside threads

if made == "of the module":
    history = ChatHistoryCallback(url, flush_interval=3600)

def record(number):
    history = globals().get("history") or ChatHistoryCallback(url, flush_interval=3600)
    run_id = uuid.UUID(int=number)
    history.on_chat_model_start({}, [[HumanMessage("Hi")]], run_id=run_id)
    history.flush().wait(10)
    for seq in range(50):
        history.on_llm_new_token(f"{number}:{seq}", run_id=run_id)
    history.on_llm_end(LLMResult(generations=[[ChatGeneration(AIMessage("done"), {})]], llm_output={}), run_id=run_id)

if __name__ == "__main__":
    context = multiprocessing.get_context(method)
    worker = context.Process(target=record, args=(1,))
    worker.start()
    worker.join()
    assert worker.exitcode == 0
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        pool.submit(record, 2).result()
"""


@pytest.mark.parametrize(
    ("method", "made"),
    [
        ("fork", "of the module"),
        ("fork", "of the worker"),
        ("spawn", "of the module"),
        ("forkserver", "of the worker"),
    ],
)
def test_workers_of_multiprocessing_store_everything_at_their_end(
    tmp_path: Path, method: str, made: str
) -> None:
    """They end without `atexit`; the workers are those of `Process` and of an executor."""
    (tmp_path / "script.py").write_text(WORKERS)
    url = new_url(tmp_path)
    command = [sys.executable, str(tmp_path / "script.py"), url, method, made]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for number in (1, 2):
        assert_whole(url, uuid.UUID(int=number), [f"{number}:{seq}" for seq in range(50)])


class Util:
    """A fake of the module `util` of a library like multiprocessing."""

    def __init__(self) -> None:
        self.after_fork: list[tuple[Any, Any]] = []
        self.at_end: list[tuple[Any, int]] = []

    def register_after_fork(self, owner: object, function: object) -> None:
        self.after_fork.append((owner, function))

    def Finalize(self, _owner: object, function: object, exitpriority: int) -> None:
        self.at_end.append((function, exitpriority))


class Process:
    """A fake of the module with the current process, which is a worker or the main process."""

    def __init__(self, kind: str) -> None:
        self.current_process = type(kind, (), {})


@pytest.mark.parametrize(("kind", "times"), [("_MainProcess", 0), ("ForkProcess", 1)])
def test_in_worker_calls_a_function_at_the_end_of_a_worker(
    monkeypatch: pytest.MonkeyPatch, kind: str, times: int
) -> None:
    """A main process uses `atexit`, and the function is registered once for its workers."""
    util = Util()
    monkeypatch.setitem(sys.modules, "billiard.util", util)
    monkeypatch.setitem(sys.modules, "billiard.process", Process(kind))
    monkeypatch.setattr(at_exit, "_known", {"multiprocessing"})

    def function() -> None:
        """Do nothing."""

    at_exit.in_worker(function)
    assert util.at_end == [(function, 0)] * times
    at_exit.in_worker(function)
    [(owner, begin)] = util.after_fork
    assert owner is function
    util.at_end.clear()
    begin(owner)  # as the library does in each worker
    assert util.at_end == [(function, 0)]
