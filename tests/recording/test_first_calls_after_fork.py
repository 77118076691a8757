"""The first thing that a forked child asks of a recorder: any call works at once, on an event loop and off it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.oracle import new_url, run_python, sql
from tests.recording.test_forks import SHARED, assert_all_stored, run_script

#: A child for each first call, before and after the parent has recorded. No call needs long; a child that hangs is
#: ended by its alarm.
CHILDREN = """
import asyncio, signal
history.close().wait(10)
history = ChatHistoryCallback(sys.argv[1], flush_interval=0, strict=True, open_timeout=3600)

def add():
    history.add_messages("Hi", conversation_id="c")

def enter():
    with history:
        record(number, size=30)

async def enter_on_a_loop():
    async with history:
        await asyncio.to_thread(record, number, None, 30)

async def wait_for(call):
    await getattr(history, call)()

OFF_A_LOOP = {
    "opened": lambda: history.opened().wait(), "flush": lambda: history.flush().wait(),
    "stats": lambda: history.stats(), "add_messages": add, "with": enter,
    "a run": lambda: record(100 + number, size=30),
}
ON_A_LOOP = {
    "opened": lambda: asyncio.run(wait_for("opened")), "flush": lambda: asyncio.run(wait_for("flush")),
    "async with": lambda: asyncio.run(enter_on_a_loop()),
}

number = 1
for warm in (False, True):
    if warm:
        record(1, size=30)
    for name, call in {"off": OFF_A_LOOP, "on": ON_A_LOOP}[sys.argv[2]].items():
        number += 1
        if not (child := os.fork()):
            signal.alarm(40)
            call()
            if "with" not in name:
                record(number, size=30)
                history.close().wait(20)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0, (name, warm)
history.close().wait(20)
print(number)
"""


@pytest.mark.parametrize("loop", ["off", "on"])
def test_the_first_call_of_a_child(database: str, loop: str) -> None:
    """As in a server that loads the application, forks, and enters `async with history` in each worker."""
    done = run_python(SHARED + CHILDREN, database, loop, timeout=50)
    assert (done.returncode, done.stderr) == (0, "")
    assert_all_stored(database, range(1, int(done.stdout) + 1), size=30)


CLOSE = """
import asyncio, signal
if not (child := os.fork()):
    signal.alarm(40)
    assert history.close().wait().accepted == 0
    history.opened().wait()
    os._exit(0)
wait(child)
history.close().wait(10)
if not (child := os.fork()):
    signal.alarm(40)
    async def story():
        await history.opened()
        await history.close()
    asyncio.run(story())
    try:
        history.flush()
    except Exception as error:
        assert "is closed" in str(error), error
    os._exit(0)
wait(child)
"""


def test_a_closed_recorder_opens_nothing(database: str) -> None:
    """It was closed in the child before it began, or in the parent before the fork: `opened` is over."""
    run_script(CLOSE, database)
    assert sql(database, "SELECT count(*) FROM producers") == [(1,)]


OPEN = """
import signal
if not (child := os.fork()):
    signal.alarm(40)
    history.opened().wait()
    print(os.getpid(), flush=True)
    os._exit(0)
wait(child)
history.close().wait(10)
"""


def test_opened_waits_until_the_child_has_the_database_open(database: str) -> None:
    """Its heartbeat is stored by then."""
    done = run_python(SHARED + OPEN, database)
    assert (done.returncode, done.stderr) == (0, "")
    assert sql(database, "SELECT count(*) FROM producers WHERE pid = ?", int(done.stdout)) == [(1,)]


AWAY = """
import asyncio, logging, signal
from recorder.errors import StoreError
from recorder.testing import MemoryStore
logging.disable()
parent = os.getpid()

class Away(MemoryStore):
    async def open(self):
        if os.getpid() != parent:
            raise ConnectionError("nobody there")

history.close().wait(10)
history = ChatHistoryCallback(store=Away(), strict=True, open_timeout=3600)
if not (child := os.fork()):
    signal.alarm(40)
    for waited in (lambda: history.opened().wait(), lambda: asyncio.run(opened())):
        async def opened():
            await history.opened()
        try:
            waited()
        except ConnectionError as error:
            assert str(error) == "nobody there", error
        else:
            raise AssertionError("it is open")
    if not (grandchild := os.fork()):
        try:
            history.opened().wait()
        except (StoreError, ConnectionError) as error:  # the latter if the child's writer had not ended at the fork
            assert "nobody there" in str(error), error
        else:
            raise AssertionError("it is open")
        os._exit(0)
    wait(grandchild)
    os._exit(0)
wait(child)
"""


def test_opened_raises_what_the_child_met(database: str) -> None:
    """The database is away in the child only, and `strict` says so there, and in the child's own child."""
    run_script(AWAY, database)


INTERRUPTED = """
import signal
from recorder.testing import MemoryStore
from tests.interrupts import ctrl_c, interrupted

store = MemoryStore()
history.close().wait(10)
history = ChatHistoryCallback(store=store, flush_interval=0)
signal.signal(signal.SIGUSR1, lambda *_: finish(history, begin(history, run_id=uuid.UUID(int=1)), "done"))

def in_child(place):
    signal.alarm(40)
    if sys.argv[2] == "a run":
        reached = interrupted(first, place, lambda: signal.raise_signal(signal.SIGUSR1))
        expected = {str(uuid.UUID(int=1))} if reached else set()
    else:
        try:
            interrupted(first, place, ctrl_c)
            reached = False
        except KeyboardInterrupt:
            reached = True
        expected = set()
    record(2, size=2)
    history.opened().wait()
    assert store.seals.keys() == expected | {str(uuid.UUID(int=2))}, (place, store.seals.keys())
    os._exit(0 if reached else 1)

def first():
    history.opened()

place, ended = 0, 0
while not ended:
    if not (child := os.fork()):
        in_child(place)
    ended = os.waitpid(child, 0)[1]
    place += 1
assert os.waitstatus_to_exitcode(ended) == 1, (place, ended)
assert place > 5
"""


@pytest.mark.parametrize("signal", ["a run", "Ctrl-C"])
def test_a_signal_while_the_first_call_begins_the_writer(tmp_path: Path, signal: str) -> None:
    """Its handler begins a run or raises, at each place of the call: nothing waits for itself, and runs are stored."""
    run_script(INTERRUPTED, new_url(tmp_path), signal)
