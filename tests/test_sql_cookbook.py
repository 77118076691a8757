"""Every statement of docs/sql.md runs on both databases, finds rows, and the answers are right and the same."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Sequence
from typing import Any

import pytest

from recorder.clock import now
from recorder.history import ChatHistoryCallback
from recorder.messages import AIMessage, ChatGeneration, HumanMessage, LLMResult
from recorder.usage import from_anthropic, from_openai
from recorder.wire.deltas import Delta
from tests.oracle import ROOT, begin, sql

FENCE = re.compile(r"^```sql(?: (?P<kind>\w+))?\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
COOKBOOK = (ROOT / "docs" / "sql.md").read_text()
RUN = [uuid.UUID(f"01920000-0000-7000-8000-{number:012d}") for number in range(20)]


def recipes(kind: str) -> dict[str, str]:
    """The statements for a database, by the sentence before each."""
    found = {}
    for block in FENCE.finditer(COOKBOOK):
        if block["kind"] in (None, kind):
            before = COOKBOOK[: block.start()]
            while before.rstrip().endswith("```"):  # the other database's form
                before = before[: before.rindex("```sql")]
            found[before.strip().splitlines()[-1]] = block["text"].strip().rstrip(";")
    return found


def run(
    history: ChatHistoryCallback, number: int, asked: Sequence[Any], said: Sequence[tuple[int, Delta]],
    *, model: str = "gpt-4o", conversation: str = "support-17", **more: Any,
) -> uuid.UUID:  # fmt: skip
    """A run whose tokens came at these milliseconds; its end is the caller's."""
    metadata = {"conversation_id": conversation, "user_id": more.pop("user", "ada"), "ls_model_name": model}
    run_id = begin(history, *asked, run_id=RUN[number], metadata=metadata, **more)
    for at_ms, delta in said:
        history.on_stream_frame(b"data: x\n\n", at_ms * 1000, [delta], run_id=run_id)
    return run_id


def end(
    history: ChatHistoryCallback,
    run_id: uuid.UUID,
    text: str,
    usage: dict[str, Any] | None = None,
    **more: Any,
) -> None:
    """It ends well."""
    reply = AIMessage(text, usage_metadata=usage_metadata(usage), **more)
    result = LLMResult([[ChatGeneration(reply, {"finish_reason": "stop"})]], {"token_usage": usage or {}})
    history.on_llm_end(result, run_id=run_id)


def usage_metadata(usage: dict[str, Any] | None) -> Any:
    """What a model makes of it."""
    if usage is None:
        return None
    return from_openai(usage) if "prompt_tokens" in usage else from_anthropic(usage)


def words(text: str, start_ms: int, step_ms: int) -> list[tuple[int, Delta]]:
    """Text that comes at a steady pace."""
    pieces = re.findall(r"\S+\s*", text)
    return [(start_ms + step_ms * number, Delta(piece)) for number, piece in enumerate(pieces)]


@pytest.fixture
def kept(database: str) -> Any:
    """A database of everything the recipes ask for; the recorder is open, for one run still streams."""
    history = ChatHistoryCallback(database)
    first, invoice = HumanMessage("Hello!"), HumanMessage("Where is my invoice?")
    openai = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120,
              "prompt_tokens_details": {"cached_tokens": 64}}  # fmt: skip
    anthropic = {"input_tokens": 10, "output_tokens": 30, "cache_read_input_tokens": 5}
    said = [*words("Hi, how can ", 300, 100), (2_500, Delta("I ")), (2_600, Delta("help?"))]
    end(history, run(history, 1, [first], said, input_hash="a" * 64), "Hi, how can I help?", openai)
    thought = [
        (200, Delta("Hm. ", "reasoning")),
        (400, Delta("Well.", "reasoning")),
        (500, Delta("Good day!")),
    ]
    end(history, run(history, 2, [first], thought, input_hash="a" * 64), "Good day!", openai)
    turn = [first, AIMessage("Good day!"), invoice]
    calls = [(900, Delta('{"id":"call_1","name":"find_invoice"}', "tool_call", "0.0")),
             (950, Delta('{"user"', "tool_args", "0.0")), (990, Delta(': "ada"}', "tool_args", "0.0"))]  # fmt: skip
    call = {"id": "call_1", "name": "find_invoice", "args": {"user": "ada"}}
    end(history, run(history, 3, turn, calls), "", anthropic, tool_calls=[call])
    for number, error in ((4, TimeoutError("too slow")), (5, asyncio.CancelledError())):
        run_id = run(history, number, [HumanMessage("Sing!")], words("La la", 100, 50), conversation="song", user="bob",
                     model="claude-haiku-4-5")  # fmt: skip
        history.on_llm_error(error, run_id=run_id)
    haiku = run(history, 6, [HumanMessage("Again!")], words("Lu lu lu", 700, 10), conversation="song", user="bob",
                model="claude-haiku-4-5")  # fmt: skip
    end(history, haiku, "Lu lu lu", anthropic)
    with ChatHistoryCallback(
        database, max_queue_bytes=3_000, overflow="drop_newest", flush_interval=3600
    ) as small:
        lost = run(small, 7, [HumanMessage("Much!")], [], conversation="lost")
        small.flush().wait(10)
        for _ in range(40):
            small.on_llm_new_token("much ", run_id=lost)
        end(small, lost, "much")
    run(history, 8, [HumanMessage("Still there?")], words("Yes", 10, 1), conversation="now")
    history.flush().wait(10)
    yield database
    history.close().wait(10)


def test_every_recipe_finds_rows(kept: str) -> None:
    """None is only for show."""
    found = recipes("sqlite" if kept.startswith("sqlite") else "postgres")
    assert len(found) >= 18
    assert [title for title, statement in found.items() if not sql(kept, statement)] == []


#: Words of a recipe's sentence -> the whole answer.
ANSWERS: dict[str, list[tuple[Any, ...]]] = {
    "A conversation in order.": [
        (0, 1, "user", "complete", "Hello!"),
        (1, 1, "assistant", "complete", "Hi, how can I help?"),
        (1, 2, "assistant", "complete", "Good day!"),
        (2, 1, "user", "complete", "Where is my invoice?"),
        (3, 1, "assistant", "complete", ""),
    ],
    "Only the newest path": [
        ("user", "Hello!"), ("assistant", "Good day!"), ("user", "Where is my invoice?"), ("assistant", "")
    ],
    "What a run was asked": [("user", "Hello!")],
    "Search in everything": [("support-17", "user", "Where is my invoice?")],
    "Where a stream stood still": [(3, 2000, "I "), (1, 100, "how "), (2, 100, "can ")],
    "What the user had read": [("Hi, how can ",)],
    "Tool calls with their arguments": [(str(RUN[3]), "0.0", "find_invoice", '{"user": "ada"}')],
    "How much of an answer was thought": [("reasoning", 2), ("text", 1)],
    "Errors by day": [(now().date().isoformat(), "claude-haiku-4-5", "TimeoutError", 1)],
    "Messages that were answered": [
        ("support-17", 1, "assistant", "Hi, how can I help?", 0), ("support-17", 1, "assistant", "Good day!", 1)
    ],
    "Tokens by day": [
        (now().date().isoformat(), "claude-haiku-4-5", 1, 15, 30, 5),
        (now().date().isoformat(), "gpt-4o", 3, 215, 70, 133),
    ],
    "Money": [("claude-haiku-4-5", pytest.approx(165e-6)), ("gpt-4o", pytest.approx(1237.5e-6))],
}  # fmt: skip


@pytest.mark.parametrize("title", ANSWERS)
def test_the_answer_is_right(kept: str, title: str) -> None:
    """Worked out by hand, and the same on both."""
    found = recipes("sqlite" if kept.startswith("sqlite") else "postgres")
    [statement] = [statement for sentence, statement in found.items() if sentence.startswith(title)]
    assert [tuple(row) for row in sql(kept, statement)] == ANSWERS[title]


def test_first_tokens_by_model(kept: str) -> None:
    """By nearest rank: of two the first is the median, the second the 95th percentile."""
    found = recipes("sqlite" if kept.startswith("sqlite") else "postgres")
    [statement] = [
        statement for sentence, statement in found.items() if sentence.startswith("Time to the first token")
    ]
    rows = {row[0]: row[1:] for row in sql(kept, statement)}
    assert rows["claude-haiku-4-5"][:3] == (3, 100, 700)


@pytest.mark.parametrize(
    "title",
    [
        "A conversation in order.",
        "Only the newest path",
        "What a run was asked",
        "Where a stream stood still",
    ],
)
def test_one_conversation_or_run_is_read_alone(kept: str, title: str) -> None:
    """By key: no recipe for one reads the tokens or messages of all."""
    if not kept.startswith("sqlite"):
        pytest.skip("plans are looked at on SQLite; on Postgres a small table is read whole in any case")
    [statement] = [text for sentence, text in recipes("sqlite").items() if sentence.startswith(title)]
    plan = [row[3] for row in sql(kept, f"EXPLAIN QUERY PLAN {statement}")]
    scanned = [
        step for step in plan if re.match(r"SCAN (s|m|r|o|segments|messages|runs)\b(?!.*VIRTUAL)", step)
    ]
    assert scanned == [], plan
