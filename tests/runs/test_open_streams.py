"""At exit, open streams are closed before the recorder and the connections are closed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.oracle import new_url, run_python, sql

BEFORE = "from recorder.models import ChatOpenAI, SimpleChatModel"
AFTER = "from recorder import ChatHistoryCallback"

#: A script that leaves a stream of each kind open after its first chunk.
LEFT = """
import sys
from recorder.testing import LoopbackProvider

class Own(SimpleChatModel):
    def _stream(self, messages, **options):
        yield from "Hello"

provider = LoopbackProvider("Hello")
provider.start()
history = ChatHistoryCallback(sys.argv[1])
chat = ChatOpenAI(base_url=provider.base_url, api_key="any", callbacks=[history])
left = [chat.stream("Hi"), chat.stream("Hi"), Own(callbacks=[history]).stream("Hi")]
for stream in left:
    next(stream)
"""


@pytest.mark.parametrize("imports", [(BEFORE, AFTER), (AFTER, BEFORE)], ids=["models first", "models last"])
def test_open_streams_are_stored_as_cancelled_at_exit(tmp_path: Path, imports: tuple[str, str]) -> None:
    """The process exits as if the application had closed each stream."""
    url = new_url(tmp_path)
    done = run_python("\n".join([*imports, LEFT]), url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sql(url, "SELECT status, count(*) FROM runs GROUP BY status") == [("cancelled", 3)]


#: Leaves asynchronous streams, streams that follow, and replayed clients open.
OTHERS_LEFT = """
import asyncio, sys, uuid
import openai
from recorder import ChatHistoryCallback
from recorder.models import ChatOpenAI, SimpleChatModel
from recorder.replay import Replay
from recorder.testing import LoopbackProvider

class Own(SimpleChatModel):
    async def _astream(self, messages, **options):
        for letter in "Hello":
            yield letter

provider = LoopbackProvider("Hello " * 20)
provider.start()
history = ChatHistoryCallback(sys.argv[1])
chat = ChatOpenAI(base_url=provider.base_url, api_key="any", callbacks=[history])
chat.invoke("Hi", stream=True)
run_id = str(uuid.uuid4())
open_run = chat.stream("Hi", {"run_id": run_id})
for _ in range(4):
    next(open_run)
history.flush().wait(20)
replay = Replay(sys.argv[1])
body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
rules = {"match_on": ["messages"], "allow_playback_repeats": True}
client = openai.OpenAI(api_key="any", http_client=replay.http_client(**rules))
aclient = openai.AsyncOpenAI(api_key="any", http_client=replay.http_async_client(**rules))
left = [client.chat.completions.create(**body), replay.stream(run_id, follow=True, speed=None)]
for stream in left:
    next(stream)

async def begin():
    awaited = await aclient.chat.completions.create(**body)
    streams = [chat.astream("Hi"), Own(callbacks=[history]).astream("Hi"), awaited]
    streams.append(replay.astream(run_id, follow=True, speed=None))
    for stream in streams:
        await anext(stream)
    return streams

loop = asyncio.new_event_loop()
left += loop.run_until_complete(begin())
if sys.argv[2] == "closed":
    loop.close()
"""


@pytest.mark.parametrize("loop", ["closed", "open"])
def test_streams_of_event_loops_and_replays_end_as_well(tmp_path: Path, loop: str) -> None:
    """The process ends well. The runs of asynchronous streams are cancelled, too: their loop runs no more."""
    url = new_url(tmp_path)
    done = run_python(OTHERS_LEFT, url, loop, timeout=55)
    assert (done.returncode, done.stdout) == (0, "")
    assert "Traceback" not in done.stderr
    statuses = sql(url, "SELECT status, count(*) FROM runs GROUP BY status ORDER BY status")
    assert statuses == [("cancelled", 3), ("complete", 1)]


def test_a_stream_that_a_thread_reads_does_not_delay_the_exit() -> None:
    """The process does not wait for it and prints nothing."""
    done = run_python(
        """
import threading
from recorder.models import SimpleChatModel

entered = threading.Event()

class Own(SimpleChatModel):
    def _stream(self, messages, **options):
        entered.set()
        threading.Event().wait()
        yield "never"

threading.Thread(target=lambda: list(Own().stream("Hi")), daemon=True).start()
entered.wait()
"""
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_error_at_closing_a_stream_is_logged_at_exit() -> None:
    """The other streams are closed all the same."""
    done = run_python(
        """
from recorder.models import SimpleChatModel

class Own(SimpleChatModel):
    def _stream(self, messages, **options):
        try:
            yield "first"
        finally:
            print("closed", messages[0].text)
            if messages[0].text == "odd":
                raise OSError("the line is cut")

left = [Own().stream(text) for text in ("odd", "good")]
for stream in left:
    next(stream)
"""
    )
    assert (done.returncode, done.stdout.split("\n")) == (0, ["closed odd", "closed good", ""])
    assert (
        "A stream that was left open raised OSError('the line is cut') when it was closed at exit"
        in done.stderr
    )


FORKED = """
import os, sys
from recorder.callbacks import BaseCallbackHandler
from recorder.models import SimpleChatModel

class PrintedEnd(BaseCallbackHandler):
    def on_llm_end(self, response, **more):
        print("end", name, flush=True)

    def on_llm_error(self, error, **more):
        print(type(error).__name__, name, flush=True)

class Own(SimpleChatModel):
    def _stream(self, messages, **options):
        try:
            yield from "Hello"
        finally:
            print("closed", name, flush=True)

name, model = "parent", Own(callbacks=[PrintedEnd()])
stream = model.stream("Hi")
print(next(stream).content, flush=True)
if not (child := os.fork()):
    name = "child"
    if sys.argv[1] == "collected":
        del stream
    else:
        another = model.stream("Hi")
        next(another)
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
print("".join(chunk.content for chunk in stream))
"""


@pytest.mark.parametrize(
    ("what", "of_child"),
    [("collected", []), ("another", ["closed child", "GeneratorExit child"])],
    ids=["the child drops the parent's", "the child leaves its own open"],
)
def test_a_forked_child_does_not_close_the_parents_streams(what: str, of_child: list[str]) -> None:
    """At its end it closes its own streams only, and the parent continues to read."""
    done = run_python(FORKED, what)
    assert (done.returncode, done.stderr) == (0, "")
    of_parent = ["closed parent", "end parent", "ello"]
    assert done.stdout.split("\n") == ["H", *of_child, *of_parent, ""]
