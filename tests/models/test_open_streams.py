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
