"""Recorder's sides: the handler called directly, and our chat model with and without it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from itertools import repeat
from pathlib import Path
from typing import Any
from uuid import UUID

from benchmarks.harness import Measured
from benchmarks.peers import expect
from benchmarks.workload import percentile, size_on_disk, words
from recorder.core.ids import new_id


def open_history(url: str, **options: Any) -> Any:
    """A `ChatHistoryCallback` on a database."""
    from recorder import ChatHistoryCallback

    return ChatHistoryCallback(url, **options)


def new_file(folder: str) -> str:
    """The URL of a SQLite file in a folder."""
    return f"sqlite:///{Path(folder) / 'chat_history.db'}"


def path_of(url: str) -> str:
    """The file of a SQLite URL."""
    return url.removeprefix("sqlite:///")


def openai_model(url: str, callbacks: Any = None, **options: Any) -> Any:
    """Our chat model."""
    from recorder.models import ChatOpenAI

    settings = {"base_url": url, "api_key": "any", "max_retries": 0, **options}
    return ChatOpenAI(model="gpt-4o-mini", callbacks=callbacks, **settings)


def anthropic_model(url: str, callbacks: Any = None, **options: Any) -> Any:
    """Our chat model of Anthropic."""
    from recorder.models import ChatAnthropic

    settings = {"base_url": url.removesuffix("/v1"), "api_key": "any", "max_retries": 0, **options}
    return ChatAnthropic(model="claude-haiku-4-5", callbacks=callbacks, **settings)


async def model_stream(model: Any) -> AsyncIterator[str]:
    """The texts of one stream of our model."""
    from recorder.messages import HumanMessage

    async for chunk in model.astream([HumanMessage("Write me a song about sparkling water.")]):
        yield chunk.content


def start(history: Any, run_id: UUID) -> None:
    """Begin a run, as a chat model would."""
    from recorder.messages import HumanMessage

    history.on_chat_model_start({}, [[HumanMessage("Write me a song.")]], run_id=run_id)


def end(history: Any, run_id: UUID, text: str) -> None:
    """End a run, as a chat model would."""
    from recorder.messages import AIMessage, ChatGeneration, LLMResult

    history.on_llm_end(LLMResult([[ChatGeneration(AIMessage(text))]]), run_id=run_id)


def into_sqlite(folder: str, seed: int, runs: int, tokens: int) -> Measured:
    """`callback_to_commit` on a new SQLite file, with its size."""
    url = new_file(folder)
    found = callback_to_commit(url, seed, runs, tokens)
    return {**found, "bytes_per_token": size_on_disk(path_of(url)) / (tokens // runs * runs)}


def callback_to_commit(url: str, seed: int, runs: int, tokens: int) -> Measured:
    """The tokens of many runs in turn, until `close` has returned, with the starts and ends of the runs."""
    history = open_history(url)
    ids = [UUID(new_id()) for _ in range(runs)]  # as our models and LangChain's make them
    texts = words(seed, tokens // runs)
    began = time.perf_counter()
    for run_id in ids:
        start(history, run_id)
    first = time.perf_counter()
    token = history.on_llm_new_token
    for word in texts:
        for run_id in ids:
            token(word, run_id=run_id)
    called = time.perf_counter()
    text = "".join(texts)
    for run_id in ids:
        end(history, run_id, text)
    history.close().wait()
    done = time.perf_counter()
    sent = len(texts) * runs
    expect(stored_tokens(url), sent)
    return {
        "tokens_per_second": sent / (done - began),
        "tokens_alone_per_second": sent / (done - first),
        "calls_per_second": sent / (called - first),
        "commits": history.stats().commits,
    }


def stored_tokens(url: str) -> int:
    """The number of tokens in the database."""
    from tests.oracle import sql

    [(count,)] = sql(url, "SELECT coalesce(sum(count), 0) FROM segments")
    return int(count)


def one_call(folder: str, seed: int, tokens: int) -> Measured:
    """`on_llm_new_token` alone: processor time of the calling thread, without the loop around it."""
    history = open_history(new_file(folder))
    ids = [UUID(new_id()) for _ in range(200)]
    for run_id in ids:
        start(history, run_id)
    turns = [(word, run_id) for word, run_id in zip(words(seed, tokens), _cycled(ids, tokens), strict=True)]
    token = history.on_llm_new_token
    began = time.thread_time_ns()
    for word, run_id in turns:
        token(word, run_id=run_id)
    called = time.thread_time_ns()
    for word, run_id in turns:
        _nothing(word, run_id=run_id)
    empty = time.thread_time_ns()
    times = _each_call(token, turns)
    history.close().wait()
    return {
        "us": (2 * called - began - empty) / tokens / 1e3,
        "p50_us": percentile(times, 0.5) / 1e3,
        "p99_us": percentile(times, 0.99) / 1e3,
    }


def _cycled(ids: list[UUID], count: int) -> list[UUID]:
    return [run_id for turn in repeat(ids, count // len(ids) + 1) for run_id in turn][:count]


def _nothing(word: str, *, run_id: UUID) -> None:
    """The cost of a call that does nothing."""


def _each_call(token: Any, turns: list[tuple[str, UUID]]) -> list[int]:
    """The wall-clock time of each call in nanoseconds, while the writer works in its thread."""
    clock, times = time.perf_counter_ns, []
    for word, run_id in turns:
        began = clock()
        token(word, run_id=run_id)
        times.append(clock() - began)
    return times
