"""Following a run that is still recorded, here or in another process: nothing lost, nothing twice, its end noticed."""

from __future__ import annotations

import asyncio
import gc
import random
import tempfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from recorder.callbacks import BaseCallbackHandler
from recorder.chat_history_callback import ChatHistoryCallback
from recorder.errors import StoreError
from recorder.messages import AIMessageChunk
from recorder.replay import Replay
from recorder.replay.reader_thread import shared
from recorder.wire.deltas import Delta
from tests import postgres
from tests.oracle import begin, finish, record, say, sql, start_python, stored, token
from tests.pooler import road


@pytest.fixture
def replay(database: str) -> Iterator[Replay]:
    """A replay of the test's database."""
    with Replay(database) as found:
        yield found


def test_a_run_is_followed_to_its_end(database: str, replay: Replay) -> None:
    """What is there already, what comes while we look, and how it ends."""
    texts = [token(1, seq) or "." for seq in range(200)]
    history = ChatHistoryCallback(database, flush_interval=0.01)
    run_id = begin(history)
    say(history, run_id, texts[:20])
    history.flush().wait(10)
    chunks = replay.stream(str(run_id), speed=None, follow=True)
    came = [next(chunks).content for _ in range(20)]
    for text in texts[20:]:
        say(history, run_id, [text])
        came.append(next(chunks).content)
    finish(history, run_id, "done")
    rest = list(chunks)
    history.close().wait(10)
    assert came == texts
    assert [chunk.content for chunk in rest] == ["", ""]
    assert rest[-1].chunk_position == "last"


@pytest.mark.parametrize("how", ["stream", "frames", "into"])
def test_a_run_with_a_request_is_followed(database: str, replay: Replay, how: str) -> None:
    """As each run of a real model has one; in every form."""

    class Texts(BaseCallbackHandler):
        """What handlers hear."""

        def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
            heard.append(token)

    heard: list[Any] = []
    with ChatHistoryCallback(database, flush_interval=0.01, frames_interval=0) as history:
        parameters = {"model": "m", "tools": [{"name": "t"}]}
        run_id = begin(history, invocation_params=parameters, tags=["a"], metadata={"ls_provider": "p"})
        history.on_stream_frame(b"data: 1\n\n", 1, [Delta("1")], run_id=run_id)
        history.flush().wait(10)

        def rest() -> None:
            for number in (2, 3):
                frame = b"data: %d\n\n" % number
                history.on_stream_frame(frame, number, [Delta(str(number))], run_id=run_id)
                history.flush().wait(10)
            finish(history, run_id, "123")

        recording = threading.Thread(target=rest)
        recording.start()
        if how == "into":
            replay.into(Texts(), follow=True)
        elif how == "frames":
            heard = [frame.decode()[-3] for frame in replay.frames(speed=None, follow=True)]
        else:
            heard = [chunk.text for chunk in replay.stream(speed=None, follow=True)]
        recording.join()
    assert "".join(heard) == "123"


def test_it_may_begin_anywhere(database: str, replay: Replay) -> None:
    """From any token on, one that is still to come included; frames are followed as well."""
    with ChatHistoryCallback(database, flush_interval=0, frames_interval=0) as history:
        run_id = begin(history)

        def frame(number: int) -> None:
            data = b"data: %d\n\n" % number
            history.on_stream_frame(data, number, [Delta(str(number))], run_id=run_id)
            history.flush().wait(10)

        for number in range(5):
            frame(number)
        later = replay.stream(str(run_id), speed=None, follow=True, start=7)
        frames = replay.frames(str(run_id), speed=None, follow=True)
        assert [next(frames) for _ in range(5)][-1] == b"data: 4\n\n"
        for number in range(5, 10):
            frame(number)
        assert next(frames) == b"data: 5\n\n"
        finish(history, run_id, "done")
    assert "".join(chunk.text for chunk in later) == "789"
    assert list(frames)[-1] == b"data: 9\n\n"


def test_what_ended_before_is_just_played(database: str, replay: Replay) -> None:
    """Following it waits for nothing."""
    with ChatHistoryCallback(database) as history:
        run_id = begin(history)
        say(history, run_id, "abc")
        finish(history, run_id, "abc")
    assert "".join(chunk.text for chunk in replay.stream(str(run_id), speed=None, follow=True)) == "abc"


def test_a_thousand_followers_ask_as_one(database: str, replay: Replay) -> None:
    """Between two commits each question is put to the database once, whoever asks it."""
    history = ChatHistoryCallback(database, flush_interval=0.02)
    run_id = begin(history)
    history.flush().wait(10)
    queries: list[str] = []

    def seen(*given: Any) -> None:
        if "segments.deltas" in given[2]:
            queries.append(given[2])

    async def follow() -> str:
        chunks = replay.astream(str(run_id), speed=None, follow=True)
        return "".join([chunk.text async for chunk in chunks])

    def record() -> None:
        for number in range(50):
            say(history, run_id, [f"{number} "])
            history.flush().wait(10)
        finish(history, run_id, "done")
        history.flush().wait(10)

    async def story() -> list[str]:
        followers = [asyncio.create_task(follow()) for _ in range(1_000)]
        recording = asyncio.create_task(asyncio.to_thread(record))
        found = await asyncio.gather(*followers)
        await recording
        return found

    reader = shared(database)
    before = reader.version
    event.listen(Engine, "before_cursor_execute", seen)
    try:
        found = asyncio.run(story())
    finally:
        event.remove(Engine, "before_cursor_execute", seen)
    looks = reader.version - before
    reader.close()
    history.close().wait(10)
    assert set(found) == {"".join(f"{number} " for number in range(50))}
    # Each look may find followers at two places: those who were quick, and those who were not.
    assert len(queries) <= 3 * looks + 10, f"{looks} looks"


ENDLESS = """
import sys, uuid
from recorder.callbacks import BaseCallbackHandler
from recorder.errors import StoreError
from recorder.chat_history_callback import ChatHistoryCallback
from tests.oracle import begin, say, token
history = ChatHistoryCallback(sys.argv[1], flush_interval=0.005)
run_id = begin(history, run_id=uuid.UUID(sys.argv[2]))
history.flush().wait(10)
print("begun", flush=True)
seq = 0
while True:
    say(history, run_id, [token(9, seq) or "."])
    seq += 1
    if seq % 50 == 0:
        history.flush().wait(10)
"""

FOLLOWER = """
import sys
from recorder.replay import Replay
with Replay(sys.argv[1]) as replay:
    for chunk in replay.stream(sys.argv[2], speed=None, follow=True, start=int(sys.argv[3])):
        if chunk.chunk_position == "last":
            print("end", chunk.response_metadata["status"], flush=True)
        else:
            print(ascii(chunk.content), flush=True)
"""


def test_followed_from_another_process_with_kills(database: str) -> None:
    """The follower is killed now and then and goes on where it was; at last the recording process is killed, and the
    follower notices: what it has is what is stored, in order, each once."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    run_id = uuid.uuid4()
    recording = start_python(ENDLESS, database, run_id)
    assert recording.stdout is not None
    assert recording.stdout.readline() == "begun\n"
    came: list[str] = []
    for turn in range(4):
        following = start_python(FOLLOWER, database, run_id, len(came))
        assert following.stdout is not None
        enough = len(came) + chance.randrange(100, 400)
        for line in following.stdout:
            if line.startswith("end "):
                break
            came.append(line)
            if len(came) == enough:
                (recording if turn == 3 else following).kill()
        following.kill()
        following.communicate()
    recording.communicate()
    assert line == "end interrupted\n"
    found = stored(database, run_id)
    texts = [text for _, text in sorted(found.texts.items())]
    assert [eval(each) for each in came] == texts[: len(came)]
    # SQLite: a process that dies after it wrote a COMMIT and before it told the others leaves that for the next one
    # that opens the file, as `stored` did after the follower had left. One batch at most.
    assert len(texts) - len(came) in ((0, 50) if database.startswith("sqlite") else (0,))
    assert len(came) >= 100


def test_a_connection_that_listens_and_is_cut(postgres_url: str) -> None:
    """It is made again, and meanwhile nothing is lost: now and then the follower looks by itself."""
    with ChatHistoryCallback(postgres_url, flush_interval=0) as history, Replay(postgres_url) as replay:
        run_id = begin(history)
        say(history, run_id, "a")
        history.flush().wait(10)
        chunks = replay.stream(str(run_id), speed=None, follow=True)
        assert next(chunks).content == "a"
        listening = "FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory'"
        assert sql(postgres_url, f"SELECT pg_terminate_backend(pid) {listening}") == [(True,)]
        for text in "bc":
            say(history, run_id, text)
            history.flush().wait(10)
            assert next(chunks).content == text
        finish(history, run_id, "abc")
        history.flush().wait(10)
        assert [chunk.chunk_position for chunk in chunks][-1] == "last"


@pytest.mark.matrix
@pytest.mark.parametrize("turns", range(0, 100, 10))
def test_who_leaves_while_the_watch_begins(database: str, turns: int) -> None:
    """So many turns of the reader's loop after the first follower came: connections are closed all the same."""
    with ChatHistoryCallback(database):
        pass
    reader = shared(database)
    follower = object()
    reader.follow(follower)
    for _ in range(turns):
        reader._submit(asyncio.sleep(0)).result()
    reader.unfollow(follower)
    reader.close()
    gc.collect()


@pytest.mark.parametrize("away", [False, True], ids=["cut", "away"])
def test_a_server_that_leaves_a_replay(postgres_url: str, away: bool) -> None:
    """A cut connection is an error that says what the server said; the next question connects again."""
    with ChatHistoryCallback(postgres_url) as history:
        run_id = record(history, reply="Hello")
    with (
        tempfile.TemporaryDirectory(prefix="road") as folder,
        road(postgres_url, Path(folder)) as server,
        Replay(server.url) as replay,
    ):
        assert replay.runs(str(run_id))
        server.close()
        if not away:
            server.open()
        with pytest.raises(StoreError, match="The database says: "):
            replay.runs(str(run_id))
        if away:
            server.open()
        assert "".join(chunk.text for chunk in replay.stream(str(run_id), speed=None)) == "Hello"


def test_following_is_tried_again_when_the_server_is_back(postgres_url: str) -> None:
    """The first follower came while it was away."""
    with ChatHistoryCallback(postgres_url) as history:
        run_id = record(history, reply="Hello")
    with (
        tempfile.TemporaryDirectory(prefix="road") as folder,
        road(postgres_url, Path(folder)) as server,
        Replay(server.url) as replay,
    ):
        server.close()
        for _ in range(2):
            with pytest.raises(StoreError):
                list(replay.stream(str(run_id), speed=None, follow=True))
        server.open()
        chunks = replay.stream(str(run_id), speed=None, follow=True)
        assert "".join(chunk.text for chunk in chunks) == "Hello"


def test_nobody_is_notified_while_nobody_listens(postgres_url: str) -> None:
    """A NOTIFY makes all commits of a database wait for each other."""
    heard: list[str] = []

    async def story() -> None:
        import asyncpg

        connection = await asyncpg.connect(postgres_url)
        await connection.add_listener("recorder", lambda *arguments: heard.append("told"))
        history = ChatHistoryCallback(postgres_url, flush_interval=0)
        run_id = begin(history)
        say(history, run_id, "a")
        await history.flush()
        await connection.execute("SELECT 1")
        assert heard == []
        await connection.execute(f"SELECT pg_advisory_lock_shared({int.from_bytes(b'watching')})")
        say(history, run_id, "b")
        await history.flush()
        await connection.execute("SELECT 1")
        assert heard == ["told"]
        finish(history, run_id, "ab")
        await history.close()
        await connection.close()

    postgres.run(story())


def test_a_follower_who_leaves_ends_the_watch(database: str, replay: Replay) -> None:
    """The last one lets go of the connection that watches."""
    with ChatHistoryCallback(database) as history:
        run_id = begin(history)
        say(history, run_id, "ab")
        history.flush().wait(10)
        chunks: Iterator[AIMessageChunk] = replay.stream(str(run_id), speed=None, follow=True)
        assert next(chunks).content == "a"
        chunks.close()  # type: ignore[attr-defined]
        reader = shared(database)
        reader.ask(_nothing).result()
        assert reader._watching is None
        reader.close()
    assert threading.active_count() < 20


async def _nothing(_library: Any) -> None:
    """A question whose answer comes after all that was asked before."""
