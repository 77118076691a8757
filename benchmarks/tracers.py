"""The handlers that are measured in LangChain's models: recorder's, one that does nothing, and those of other projects.

Each is set up as its users have it. Those of other projects send to a server on this machine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

from benchmarks import ours
from benchmarks.collector import Collector, collector
from benchmarks.peers import expect


class Tracer(NamedTuple):
    """A handler, and what its project does with the tokens."""

    handler: Any
    #: Waits until what was handed over is stored or sent.
    flush: Callable[[], None]
    #: The number of tokens whose times were kept, of all streams. Raises an error if a stream's text was not kept.
    times: Callable[[int, str], int]


@contextmanager
def silent(folder: str) -> Iterator[Tracer]:
    """A handler that does nothing: what LangChain itself takes to call one."""
    from langchain_core.callbacks import BaseCallbackHandler

    class Silent(BaseCallbackHandler):
        run_inline = True

        def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            """Nothing."""

    yield Tracer(Silent(), lambda: None, lambda streams, text: 0)


@contextmanager
def alone(folder: str) -> Iterator[Tracer]:
    """recorder's handler, which sees no HTTP request."""
    with _recorder(folder) as tracer:
        tracer.handler._unlink()
        yield tracer


@contextmanager
def linked(folder: str) -> Iterator[Tracer]:
    """recorder's handler, linked to the model's HTTP requests."""
    with _recorder(folder) as tracer:
        yield tracer


@contextmanager
def _recorder(folder: str) -> Iterator[Tracer]:
    from recorder.integrations.langchain import ChatHistoryCallback

    url = ours.new_file(folder)
    with ChatHistoryCallback(url, max_queue_bytes=2**30) as history:
        yield Tracer(history, lambda: history.flush().wait(), lambda streams, text: ours.stored_tokens(url))


@contextmanager
def langsmith(folder: str) -> Iterator[Tracer]:
    """LangSmith's tracer, with its batches and its compression."""
    from langchain_core.tracers import LangChainTracer
    from langsmith import Client

    with collector() as server:
        client = Client(api_url=server.url, api_key="any")
        tracer = LangChainTracer(client=client, project_name="benchmark")

        def flush() -> None:
            tracer.wait_for_futures()
            client.flush()

        yield Tracer(tracer, flush, lambda streams, text: _times(server, '"new_token"', streams, text))
        client.cleanup()


@contextmanager
def langfuse(folder: str) -> Iterator[Tracer]:
    """Langfuse's handler, which sends spans of OpenTelemetry in batches."""
    from langfuse import Langfuse
    from langfuse.langchain import CallbackHandler

    with collector() as server:
        client = Langfuse(public_key="pk-any", secret_key="sk-any", base_url=server.url)
        handler = CallbackHandler(public_key="pk-any")
        yield Tracer(
            handler,
            client.flush,
            lambda streams, text: _times(server, "completion_start_time", streams, text),
        )
        client.shutdown()


def _times(server: Collector, time: str, streams: int, text: str) -> int:
    """How many times of tokens were sent. The text must have been sent for each stream."""
    texts, times = server.count(json.dumps(text)[1:-1], time)
    expect(texts >= streams, True)
    return times


#: Name -> what it is called in the table, and how it is set up.
TRACERS: dict[str, tuple[str, Callable[[str], AbstractContextManager[Tracer]]]] = {
    "silent": ("a handler that does nothing", silent),
    "linked": ("recorder's handler, linked", linked),
    "alone": ("recorder's handler, alone", alone),
    "langsmith": ("LangSmith's tracer", langsmith),
    "langfuse": ("Langfuse's handler", langfuse),
}
