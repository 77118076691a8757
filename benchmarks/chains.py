"""What a chain costs the thread that streams it, above the model in it. The model answers from memory.

Streams of 5,000 tokens: a model of the user's own holds its chunks, and of more the garbage collector's share is large.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable, Iterator
from statistics import median
from typing import Any

from benchmarks import ours
from benchmarks.harness import Measured, Settings, Side, best, compare, values
from benchmarks.table import Row, each
from benchmarks.workload import words

TITLE = "Chains (microseconds of the caller's thread for a token, above the model alone; median)"
#: The most that a chain may add to a token (microseconds).
_GOAL = 2.0
_CHAINS = {"sequence": "a sequence of prompt, model and parser", "llm_chain": "LLMChain"}
_WAYS = ("stream", "astream")
#: How often each side is streamed in one process. The fastest stream counts.
_REPEATS = 15


def rows(settings: Settings) -> list[Row]:
    """The model alone, and what each chain adds, in both ways and with the model recorded."""
    tokens = settings.size(5_000, 500)
    side = Side("benchmarks.chains:measured", {"seed": settings.seed, "tokens": tokens}, folder=True)
    found = compare({"chains": side}, settings.rounds)["chains"]
    return [row for way in _WAYS for recorded in ("", "recorded ") for row in _rows(found, way, recorded)]


def _rows(found: list[Measured], way: str, recorded: str) -> list[Row]:
    label = f"{recorded}model.{way}"
    alone = f"{recorded}model {way}"
    lines = [Row(f"{label} alone", f"{best(found, alone):.2f} us", each(values(found, alone), ".2f"))]
    for name, what in _CHAINS.items():
        key = f"{recorded}{name} {way}"
        added = best(found, key, median)
        figures = each(values(found, key), ".2f")
        lines.append(
            Row(f"{label}: {what} adds", f"{added:.2f} us", figures, "", f"at most {_GOAL:g} us", added <= _GOAL)
        )  # fmt: skip
    return lines


def measured(seed: int, tokens: int, folder: str) -> Measured:
    """Microseconds of this thread for a token: of the model alone, and what each chain adds."""
    from recorder.chains import LLMChain, PromptTemplate, StrOutputParser

    prompt, found = PromptTemplate.from_template("Sing about {topic}."), {}
    history = ours.open_history(ours.new_file(folder), max_queue_bytes=2**30)
    for recorded, callbacks in (("", []), ("recorded ", [history])):
        model = _model(words(seed, tokens), callbacks)
        sides = {
            "model": (model, "Sing."),
            "sequence": (prompt | model | StrOutputParser(), "water"),
            "llm_chain": (LLMChain(llm=model, prompt=prompt), "water"),
        }
        for way, timed in zip(_WAYS, (_stream, _astream), strict=True):
            us = _fastest(sides, timed, tokens, history)
            found |= {f"{recorded}{name} {way}": us[name] - us["model"] for name in _CHAINS}
            found[f"{recorded}model {way}"] = us["model"]
    history.close().wait()
    return found


def _fastest(
    sides: dict[str, Any], timed: Callable[..., float], tokens: int, history: Any
) -> dict[str, float]:
    """The fastest stream of each side, by turns (microseconds for a token)."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(_REPEATS):
        for name, (runnable, input) in sides.items():
            history.flush().wait()
            gc.collect()  # what earlier streams left is not this one's
            found[name].append(timed(runnable, input) / tokens * 1e6)
    return {name: min(times) for name, times in found.items()}


def _stream(runnable: Any, input: str) -> float:
    began = time.thread_time()
    for _ in runnable.stream(input):
        pass
    return time.thread_time() - began


def _astream(runnable: Any, input: str) -> float:
    async def main() -> float:
        began = time.thread_time()
        async for _ in runnable.astream(input):
            pass
        return time.thread_time() - began

    return asyncio.run(main())


def _model(texts: list[str], callbacks: list[Any]) -> Any:
    from recorder.models import SimpleChatModel

    class Memory(SimpleChatModel):
        def _stream(self, messages: Any, **options: Any) -> Iterator[str]:
            return iter(texts)

        async def _astream(self, messages: Any, **options: Any) -> AsyncIterator[str]:
            for text in texts:
                yield text

    return Memory(callbacks=callbacks)
