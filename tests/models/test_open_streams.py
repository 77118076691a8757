"""A stream that is still open at exit is closed before the recorder and the connections are."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.oracle import new_url, run_python, sql

BEFORE = "from recorder.models import ChatOpenAI, SimpleChatModel"
AFTER = "from recorder import ChatHistoryCallback"

#: Leaves a stream of each kind open after its first piece.
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
def test_the_tokens_are_stored_and_the_runs_are_cancelled(tmp_path: Path, imports: tuple[str, str]) -> None:
    """The process ends well, as if each stream had been closed by the application."""
    url = new_url(tmp_path)
    done = run_python("\n".join([*imports, LEFT]), url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sql(url, "SELECT status, count(*) FROM runs GROUP BY status") == [("cancelled", 3)]


def test_a_stream_that_a_thread_reads_is_left_alone() -> None:
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


def test_a_stream_that_cannot_be_closed_is_logged_and_the_others_are_closed() -> None:
    """Its error is logged; the streams after it are closed."""
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

class Told(BaseCallbackHandler):
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

name, model = "parent", Own(callbacks=[Told()])
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
    ids=["it lets go of it", "it leaves another"],
)
def test_a_child_leaves_the_parents_streams_open(what: str, of_child: list[str]) -> None:
    """It closes its own ones at its end, and the parent reads on."""
    done = run_python(FORKED, what)
    assert (done.returncode, done.stderr) == (0, "")
    of_parent = ["closed parent", "end parent", "ello"]
    assert done.stdout.split("\n") == ["H", *of_child, *of_parent, ""]
