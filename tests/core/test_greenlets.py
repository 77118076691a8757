"""recorder refuses some of gevent's monkey patches, and works beside the others."""

from __future__ import annotations

import pytest

from tests.oracle import run_python, sql

#: Prints what each function that opens a database raises.
REFUSED = """
from gevent import monkey
monkey.patch_all({words})
import io, sys
from recorder import ChatHistoryCallback
from recorder.errors import ConfigError
from recorder.export import export
from recorder.replay import Replay
from recorder.testing import MemoryStore

url = sys.argv[1]
for call in (
    lambda: ChatHistoryCallback(url), lambda: ChatHistoryCallback(store=MemoryStore()), lambda: Replay(url),
    lambda: export(url, io.StringIO()),
):
    try:
        print("not refused:", call())
    except ConfigError as error:
        print(error)
"""

#: An application with gevent: greenlets that stream, event loops in between, and all ways to read afterwards.
BESIDE = """
from gevent import monkey
monkey.patch_all(thread=False, queue=False, select=False)
import asyncio, io, sys
import gevent
from recorder import ChatHistoryCallback
from recorder.export import export
from recorder.models import SimpleChatModel
from recorder.replay import Replay

class Counts(SimpleChatModel):
    def _stream(self, messages, stop=None, **options):
        for number in range(20):
            gevent.sleep(0)
            yield f"{number} "

async def streamed(history):
    found = [chunk.content async for chunk in Counts(callbacks=[history]).astream("async")]
    await history.flush()
    return found

def ask(number):
    for _ in Counts(callbacks=[history]).stream(f"question {number}"):
        history.stats()
    history.flush().wait(30)

url = sys.argv[1]
history = ChatHistoryCallback(url, max_queue_bytes=20_000, block_timeout=30)
gevent.joinall([gevent.spawn(ask, number) for number in range(30)], raise_error=True)
assert len(asyncio.run(streamed(history))) == 21  # the application's own loop, while a recorder is open
history.add_messages("Hi", conversation_id="c")
history.flush().wait(30)
with Replay(url) as replay:
    assert [message.content for message in replay.messages("c")] == ["Hi"]
    assert len(asyncio.run(replay.amessages("c"))) == 1
    playing = [gevent.spawn(lambda: len(list(replay.stream(speed=None)))) for _ in range(5)]
    gevent.joinall(playing, raise_error=True)
    assert {each.value for each in playing} == {22}
assert export(url, io.StringIO()).written.runs == 31
stats = history.close(30).wait(30)
print(stats.committed, stats.dropped)
"""


@pytest.mark.parametrize(
    ("words", "patched"),
    [
        ("", "thread, queue, select"),
        ("thread=False", "queue, select"),
        ("queue=False, select=False", "thread"),
        ("thread=False, queue=False", "select"),
    ],
)
def test_patched_threads_queues_and_selects_are_refused(database: str, words: str, patched: str) -> None:
    """The error says what is patched and what to write, for each function that opens a database."""
    done = run_python(REFUSED.format(words=words), database)
    assert done.stderr == ""
    refusal = (
        f"gevent has patched {patched}, but recorder runs event loops on threads and needs Python's own modules. "
        "Write: gevent.monkey.patch_all(thread=False, queue=False, select=False)"
    )
    assert done.stdout.splitlines() == [refusal] * 4


def test_recording_works_beside_other_patches(database: str) -> None:
    """No token is lost, and the application can run event loops."""
    done = run_python(BESIDE, database)
    assert (done.stdout, done.stderr) == ("620 0\n", "")
    assert sql(database, "SELECT status, token_count, count(*) FROM runs GROUP BY 1, 2") == [
        ("complete", 20, 31)
    ]
