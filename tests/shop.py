"""Stores a recording with known times, on which the statements of `docs/sql.md` are run on both databases.

Two users call three models on two days. There are tool calls, reasoning, a stall, a cancelled answer and the next
answer to the same message, errors, a gap, usage with caches of three providers, and one run that still streams.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from recorder.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from recorder.recording.buffer import DrainedRun, OpenRun
from recorder.recording.queue import RecordingQueue
from recorder.recording.serialize import serialize
from recorder.storage.batch import Addition, Batch, RunRows
from recorder.storage.rows import COMPLETE, AnnotationRow, Producer, RunEnd, RunStart
from recorder.storage.store import SqlStore
from recorder.wire.deltas import REASONING, TOOL_ARGS, TOOL_CALL, Delta
from tests.oracle import started

GPT = ("openai", "gpt-4o-mini", "gpt-4o-mini-2024-07-18")
DEEPSEEK = ("deepseek", "deepseek-reasoner", "deepseek-reasoner")
CLAUDE = ("anthropic", "claude-sonnet-4-5", "claude-sonnet-4-5-20250929")

#: US dollars for a million tokens of input and of output.
DOLLARS = {"gpt-4o-mini": (0.15, 0.6), "claude-sonnet-4-5": (3.0, 15.0)}

#: Milliseconds after the request, and the token of that time: text, and kind and idx if they are not the usual ones.
TimedToken = tuple[int, str] | tuple[int, str, str] | tuple[int, str, str, str]
#: Stands in place of a kind: the queue was full, and the token was dropped.
LOST = "lost"

#: Capacity of the queue in bytes.
QUEUE = 1_000_000


def run_id(number: int) -> str:
    """Return the id of the run with this number."""
    return f"0193c0de-0000-7000-8000-{number:012}"


@dataclass(frozen=True, slots=True)
class ShopRun:
    """One run of the recording."""

    number: int
    conversation_id: str
    user_id: str
    #: Provider, requested model, model that answered.
    model: tuple[str, str, str]
    #: UTC, "2026-11-20 09:00:00".
    started_at: str
    history: Sequence[BaseMessage]
    tokens_sent: Sequence[TimedToken]
    #: Milliseconds after the request; None for a run that still streams.
    ended_ms: int | None
    reply: BaseMessage | None = None
    status: str = COMPLETE
    attempt: int = 1
    input_hash: str | None = None
    #: Usage as the provider reports it; and input and output tokens as recorder counts them.
    usage: dict[str, Any] = field(default_factory=dict)
    tokens: tuple[int, int] | None = None
    error: tuple[str, str] | None = None
    finish_reason: str | None = "stop"


def openai_usage(prompt: int, answer: int, cached: int) -> dict[str, Any]:
    """Return usage as OpenAI reports it."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def anthropic_usage(fresh: int, answer: int, read: int, written: int) -> dict[str, Any]:
    """Return usage as Anthropic reports it: `input_tokens` are those outside of any cache."""
    return {
        "input_tokens": fresh,
        "output_tokens": answer,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": written,
    }


QUESTION = [SystemMessage("You are the support desk of a shop."), HumanMessage("Where is my order 4711?")]
CALL = AIMessage(
    "",
    tool_calls=[
        {"name": "find_order", "args": {"order": 4711}, "id": "call_1"},
        {"name": "find_customer", "args": {}, "id": "call_2"},
    ],
)
FOUND = [
    *QUESTION,
    CALL,
    ToolMessage('{"status": "lost"}', tool_call_id="call_1"),
    ToolMessage('{"name": "Ada"}', tool_call_id="call_2"),
]
LOST_PARCEL = AIMessage("Your parcel is lost. I can refund you.")
REFUND = [*FOUND, LOST_PARCEL, HumanMessage("A refund, please.")]
SKY = [HumanMessage("Why is the sky blue?")]
DUSK = [*SKY, AIMessage("Short waves scatter most."), HumanMessage("And red at dusk?")]
MEETING = [HumanMessage("Sum up the meeting.")]

RUNS = (
    ShopRun(
        1, "support-17", "ada", GPT, "2026-11-20 09:00:00", QUESTION,
        [(300, '{"id":"call_1","name":"find_order"}', TOOL_CALL, "0.0"), (320, '{"order":', TOOL_ARGS, "0.0"),
         (340, " 4711}", TOOL_ARGS, "0.0"), (350, '{"id":"call_2","name":"find_customer"}', TOOL_CALL, "0.1"),
         (355, "{}", TOOL_ARGS, "0.1")],
        360, CALL, input_hash="a1", usage=openai_usage(1200, 180, 0), tokens=(1200, 180), finish_reason="tool_calls",
    ),
    ShopRun(
        2, "support-17", "ada", GPT, "2026-11-20 09:00:02", FOUND,
        [(250, "Your parcel "), (270, "is lost. "), (1470, "I can "), (1490, "refund you.")],
        1500, LOST_PARCEL, input_hash="a2", usage=openai_usage(1800, 120, 1280), tokens=(1800, 120),
    ),
    ShopRun(
        3, "support-17", "ada", GPT, "2026-11-20 09:01:00", REFUND,
        [(200, "Done: "), (220, "the money "), (240, "will be ")],
        400, AIMessage("Done: the money will be "), "cancelled", input_hash="a3", finish_reason=None,
    ),
    ShopRun(
        4, "support-17", "ada", GPT, "2026-11-20 09:01:10", REFUND,
        [(400, "Done, "), (420, "the money "), (440, "is on "), (460, "its way.")],
        480, AIMessage("Done, the money is on its way."), input_hash="a3",
        usage=openai_usage(2200, 140, 1920), tokens=(2200, 140),
    ),
    ShopRun(
        5, "support-18", "ada", DEEPSEEK, "2026-11-21 10:00:00", SKY,
        [(500, "Think: ", REASONING), (800, "Rayleigh.", REASONING), (1500, "Short waves "), (1520, "scatter most.")],
        1530, AIMessage("Short waves scatter most."), input_hash="b1",
        usage={"prompt_tokens": 1000, "completion_tokens": 300, "prompt_cache_hit_tokens": 400}, tokens=(1000, 300),
    ),
    ShopRun(
        6, "support-18", "ada", DEEPSEEK, "2026-11-21 10:05:00", DUSK, [], 90, None, "error", input_hash="b2",
        error=("openai.RateLimitError", "Error code: 429 - slow down"), finish_reason=None,
    ),
    ShopRun(
        7, "support-18", "ada", DEEPSEEK, "2026-11-21 10:05:02", DUSK,
        [(300, "The path "), (320, "is longer, "), (340, "through ", LOST), (360, "more air, ", LOST),
         (380, "so blue "), (400, "is gone.")],
        410, AIMessage("The path is longer, through more air, so blue is gone."), attempt=2, input_hash="b2",
        usage={"prompt_tokens": 2000, "completion_tokens": 100, "prompt_cache_hit_tokens": 1000}, tokens=(2000, 100),
    ),
    ShopRun(
        8, "notes-1", "ben", CLAUDE, "2026-11-21 11:00:00", MEETING, [(600, "Three "), (650, "points.")],
        700, AIMessage("Three points."), input_hash="c1", tokens=(12500, 80), finish_reason="end_turn",
        usage=anthropic_usage(500, 80, 10000, 2000),
    ),
    ShopRun(
        9, "notes-2", "ben", CLAUDE, "2026-11-21 11:30:00", MEETING, [(500, "Two "), (550, "points.")],
        600, AIMessage("Two points."), input_hash="c1", tokens=(12500, 80), finish_reason="end_turn",
        usage=anthropic_usage(500, 80, 12000, 0),
    ),
    ShopRun(
        10, "notes-2", "ben", CLAUDE, "2026-11-21 11:40:00",
        [*MEETING, AIMessage("Two points."), HumanMessage("Which?")],
        [(400, "The ")], 900, AIMessage("The "), "error", input_hash="c2",
        error=("anthropic.APIConnectionError", "Connection error."), finish_reason=None,
    ),
    ShopRun(
        11, "notes-3", "ben", CLAUDE, "2026-11-21 12:00:00", [HumanMessage("Write to the team.")],
        [(400, "Dear "), (450, "team")], None, input_hash="c3",
    ),
)  # fmt: skip


def moment(text: str) -> datetime:
    """Parse a time of a run."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _feedback(number: int, score: float, comment: str | None, at: str) -> AnnotationRow:
    """What a user said about the answer of a run."""
    id = run_id(1_000 + number)
    data = json.dumps({"comment": comment}) if comment else None
    return AnnotationRow(run_id(number), id, None, "user_feedback", None, score, data, moment(at))


def _sentiment(number: int, label: str, score: float, at: str) -> AnnotationRow:
    """What an analyzer found in the answer of a run."""
    return AnnotationRow(
        run_id(number), run_id(2_000 + number), None, "sentiment", label, score, None, moment(at)
    )


#: Details of conversations, and what users and an analyzer found about answers.
ADDITIONS = (
    Addition("support-17", "ada", moment("2026-11-20 09:02:00"),
             details={"title": "A lost parcel", "tags": '["refund","parcel"]'}),
    Addition("notes-1", "ben", moment("2026-11-21 11:05:00"), details={"title": "The meeting", "tags": '["notes"]'}),
    Addition("", None, moment("2026-11-20 09:03:00"), annotations=[
        _feedback(4, 1.0, "Fast!", "2026-11-20 09:03:00"), _feedback(7, 0.0, None, "2026-11-21 10:06:00"),
        _feedback(8, 1.0, None, "2026-11-21 11:06:00"), _feedback(5, 1.0, "Clear.", "2026-11-21 10:01:00"),
        _sentiment(2, "negative", -0.5, "2026-11-20 09:00:04"), _sentiment(4, "positive", 0.75, "2026-11-20 09:01:12"),
        _sentiment(5, "neutral", 0.0, "2026-11-21 10:00:02"), _sentiment(7, "negative", -0.25, "2026-11-21 10:05:03"),
    ]),
)  # fmt: skip


def record_shop(url: str) -> None:
    """Store all runs with the recorder's own steps, at the times of the runs."""
    producer = Producer(
        run_id(99), "shop-1", 4242, moment("2026-11-20 08:00:00"), moment("2026-11-21 12:00:01")
    )

    async def main() -> None:
        store = SqlStore(url)
        for shop_run in RUNS:
            for drained in _drained(shop_run):
                rows = serialize(drained)
                _set_costs(rows)
                await store.append(Batch(producer, rows))
        await store.append(Batch(producer, [], ADDITIONS))
        await store.close()

    asyncio.run(main())


def _set_costs(rows: Sequence[RunRows]) -> None:
    """Set costs as the recorder does, by prices that do not change with the library."""
    for each in rows:
        price = DOLLARS.get(each.start.request_model or "")
        seal = each.seal
        if price is not None and seal is not None and seal.end.input_tokens is not None:
            seal.input_cost = seal.end.input_tokens * price[0] / 1e6
            seal.output_cost = (seal.end.output_tokens or 0) * price[1] / 1e6
            seal.cost = seal.input_cost + seal.output_cost


def _drained(shop_run: ShopRun) -> Iterator[list[DrainedRun]]:
    """Yield the run as the writer drains it; tokens before a loss fill the queue and have a batch of their own."""
    queue = RecordingQueue(QUEUE, overflow="drop_newest")
    run = started(queue, _start(shop_run), 0)
    for ms, text, *its in shop_run.tokens_sent:
        lost = its == [LOST]
        if lost and queue.bytes < QUEUE:
            _fill(queue)
        if not lost and queue.bytes >= QUEUE:
            yield _take(queue, run)
        queue.put_frame(run, None, [Delta(text) if lost else Delta(text, *its)], 1_000 * ms)
    if shop_run.ended_ms is not None:
        queue.end(run, _end(shop_run, shop_run.ended_ms))
    yield _take(queue, run)


def _fill(queue: RecordingQueue) -> None:
    """Start another run that fills the queue, so that tokens are dropped."""
    long = HumanMessage("x" * QUEUE)
    started(queue, RunStart(run_id(98), "other", True, moment("2026-11-21 10:05:00"), messages=[long]), 0)


def _take(queue: RecordingQueue, run: OpenRun) -> list[DrainedRun]:
    drained = queue.drain(2**40).runs
    queue.release(queue.bytes)
    return [part for part in drained if part.run is run]


def _start(shop_run: ShopRun) -> RunStart:
    provider, asked_for, _ = shop_run.model
    return RunStart(
        run_id(shop_run.number), shop_run.conversation_id, False, moment(shop_run.started_at), attempt=shop_run.attempt,
        provider_name=provider, request_model=asked_for, input_hash=shop_run.input_hash, user_id=shop_run.user_id,
        request=json.dumps({"model": asked_for, "temperature": 0}), messages=list(shop_run.history),
    )  # fmt: skip


def _end(shop_run: ShopRun, ended_ms: int) -> RunEnd:
    ended_at = moment(shop_run.started_at) + timedelta(milliseconds=ended_ms)
    end = RunEnd(shop_run.status, ended_at, finish_reason=shop_run.finish_reason)
    end.response_model = shop_run.model[2] if shop_run.tokens_sent else None
    end.replies = [] if shop_run.reply is None else [shop_run.reply]
    if shop_run.error is not None:
        end.error_type, end.error_message = shop_run.error
    if shop_run.tokens is not None:
        end.input_tokens, end.output_tokens = shop_run.tokens
        end.total_tokens, end.usage, end.usage_source = (
            sum(shop_run.tokens),
            json.dumps(shop_run.usage),
            "provider",
        )
    return end
