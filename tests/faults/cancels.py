"""A task is cancelled at the Nth step of `astream`: its tokens are stored, the run is cancelled, every call ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Generator
from contextlib import ExitStack
from typing import Any

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.models import ChatOpenAI
from recorder.storage.rows import CANCELLED, COMPLETE
from recorder.testing import LoopbackProvider
from tests.faults.campaign import Fault, Round
from tests.faults.models import Numbered, config_of, model_token, question
from tests.faults.producer import isolated
from tests.oracle import Acknowledged, Text, Verdict, judge

_TOKENS = 12
#: A round cancels at every third step, and its seed chooses the first one.
_STEP = 3


class CancelledAt:
    """Awaits a coroutine, and cancels the task when the coroutine is suspended for the Nth time."""

    def __init__(self, work: Coroutine[Any, Any, None], number: int) -> None:
        self.work = work
        self.left = number

    def __await__(self) -> Generator[Any, None, None]:
        steps = self.work.__await__()
        error: BaseException | None = None
        while True:
            try:
                waited_for = steps.throw(error) if error is not None else next(steps)
            except StopIteration:
                return
            error = None
            self.left -= 1
            task = asyncio.current_task()
            if not self.left and task is not None:
                task.cancel()
            try:
                yield waited_for
            except BaseException as thrown:
                error = thrown


def cancel_at_each_step(at: Round) -> Verdict:
    """Streams of a simple model or of ChatOpenAI are cancelled at later and later steps, until one is not cancelled."""
    verdict = Verdict()
    with ExitStack() as stack:
        history = ChatHistoryCallback(at.url, flush_interval=0)
        stack.callback(history.close, 0)
        own = at.chance.random() < 0.5
        model: Any = Numbered(tokens=_TOKENS, callbacks=[history]) if own else _provided(stack, history)
        text = model_token if own else _sung(at, model)
        asyncio.run(_sweep(at, model, verdict))
        history.flush().wait(20)
        if open_runs := history.stats().open_runs:
            verdict.breaches.append(f"{open_runs} runs are still open")
        history.close().wait(20)
    verdict.add(judge(at.url, at.ledger, text=text))
    if not verdict.exact:
        verdict.breaches.append(type(model).__name__)
    return verdict


def _provided(stack: ExitStack, history: ChatHistoryCallback) -> ChatOpenAI:
    provider = stack.enter_context(LoopbackProvider.song(tokens_per_second=1_000, tokens=_TOKENS))
    return ChatOpenAI(base_url=provider.base_url, api_key="any", model="m", callbacks=[history])


def _sung(at: Round, model: ChatOpenAI) -> Text:
    """The provider's tokens, which are the same each time."""
    stream = model.stream(question(at.number(0)), config=config_of(at.number(0)))
    pieces = [str(chunk.content) for chunk in stream if chunk.content]
    at.ledger[at.number(0)] = Acknowledged(len(pieces), COMPLETE)
    return lambda _number, seq: pieces[seq]


async def _sweep(at: Round, model: Any, verdict: Verdict) -> None:
    number, is_cut = 1 + at.seed % _STEP, True
    while is_cut:
        is_cut = await _cancelled_at(at, model, number, verdict)
        number += _STEP


async def _cancelled_at(at: Round, model: Any, number: int, verdict: Verdict) -> bool:
    """Stream a run, and return whether the task was cancelled before its end."""
    run = at.number(number)
    received: list[str] = []
    work = CancelledAt(_read(model.astream(question(run), config=config_of(run)), received), number)
    task = asyncio.ensure_future(_awaited(work))
    done, _ = await asyncio.wait({task}, timeout=20)
    if not done:
        verdict.breaches.append(f"cancelled at step {number}, but not ended after 20 s")
        return False
    if work.left <= 0 and not task.cancelled():
        verdict.breaches.append(f"cancelled at step {number}, but ended with {task.exception()!r}")
    tokens = sum(map(bool, received))
    if tokens:
        is_whole = tokens == _TOKENS
        at.ledger[run] = Acknowledged(tokens, None if is_whole and task.cancelled() else _status(task))
    return task.cancelled()


def _status(task: asyncio.Task[None]) -> str:
    return CANCELLED if task.cancelled() else COMPLETE


async def _awaited(work: CancelledAt) -> None:
    await work


async def _read(stream: AsyncIterator[Any], received: list[str]) -> None:
    async for chunk in stream:
        received.append(chunk.content)


FAULTS = [Fault("cancel", "cancelled at the Nth step of astream", isolated(cancel_at_each_step))]
