"""Stored runs without usage or without a cost are estimated and priced later, as runs of today are."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from typing import Any

import pytest

from recorder import ChatHistoryCallback
from recorder.costs import fill as fill_module
from recorder.costs import price_list
from recorder.costs.fill import Filled, fill
from recorder.costs.token_counts import rule_of_thumb
from recorder.models import ChatAnthropic
from recorder.testing import Answer, LoopbackProvider, anthropic_messages_frames
from tests.oracle import ROOT, begin, record, result, say, sql
from tests.stores import execute, using

pytest.importorskip("genai_prices")

GPT = {"ls_provider": "openai", "ls_model_name": "gpt-4o"}
USAGE = {"prompt_tokens": 1_000, "completion_tokens": 100, "total_tokens": 1_100}
FORGET = "UPDATE runs SET cost = NULL, input_cost = NULL, output_cost = NULL, price = NULL"
COSTS = "SELECT usage_source, input_tokens, output_tokens, cost FROM runs ORDER BY started_at"


def recorded(url: str, count: int = 1, **options: Any) -> None:
    """Record runs with a reported usage, each followed by a silent one."""
    with ChatHistoryCallback(url, **options) as history:
        for _ in range(count):
            run_id = begin(history, metadata=GPT)
            say(history, run_id, ["Hello"])
            history.on_llm_end(result("Hello", output={"token_usage": USAGE}), run_id=run_id)
            record(history, reply="Hello, and more of it", metadata=GPT)


def test_older_runs_get_what_newer_ones_have(database: str) -> None:
    """A run that was recorded without prices and estimates gets the same as one that was recorded with them."""
    recorded(database)
    expected = sql(database, COSTS)
    assert [row[0] for row in expected] == ["provider", "estimated"]
    execute(database, FORGET)
    execute(
        database,
        "UPDATE runs SET usage_source = 'none', input_tokens = NULL, output_tokens = NULL, total_tokens = NULL "
        "WHERE usage_source = 'estimated'",
    )
    assert using(database, fill) == Filled(examined=2, estimated=1, priced=1)
    assert sql(database, COSTS) == expected


def test_a_second_time_nothing_is_done(database: str) -> None:
    """What is estimated stays, and what is priced is not priced again."""
    recorded(database)
    before = sql(database, COSTS)
    assert using(database, fill) == Filled()
    assert sql(database, COSTS) == before


def test_it_goes_page_by_page(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each page is a transaction of its own, so that others can write in between."""
    recorded(database, 3, estimate_usage=False)
    execute(database, FORGET)
    monkeypatch.setattr(fill_module, "_PAGE", 2)
    seen: list[tuple[int, int]] = []

    async def story(store: Any) -> Filled:
        return await fill(store, lambda done: seen.append((done.estimated, done.priced)))

    assert using(database, story) == Filled(examined=6, estimated=3, priced=3)
    assert seen == [(1, 1), (2, 2), (3, 3)]


def test_a_host_without_prices_stays_without(database: str) -> None:
    """The host is stored in place of the price, so a local server is not charged as OpenAI later."""
    recorded(database, estimate_usage=False)
    execute(database, FORGET.replace("price = NULL", 'price = \'{"host":"localhost:8000"}\''))
    assert using(database, fill) == Filled(examined=2, estimated=1)
    assert [row[3] for row in sql(database, COSTS)] == [None, None]


def test_a_run_that_streams_is_left_alone(database: str) -> None:
    """Its usage may still come."""
    with ChatHistoryCallback(database) as history:
        run_id = begin(history, metadata=GPT)
        say(history, run_id, ["Half an "])
        history.flush().wait(30)
        assert using(database, fill) == Filled()
        history.on_llm_error(asyncio.CancelledError(), run_id=run_id)
    assert [row[0] for row in sql(database, COSTS)] == ["estimated"]


def test_a_run_whose_process_was_killed_is_estimated(database: str) -> None:
    """By the tokens that were stored before."""
    program = f"""
import sys, uuid
from recorder import ChatHistoryCallback
history = ChatHistoryCallback({database!r})
run_id = uuid.uuid4()
history.on_chat_model_start({{}}, [["Hi"]], run_id=run_id, metadata={GPT!r})
history.on_llm_new_token("What had arrived", run_id=run_id)
history.flush().wait(30)
print("ready", flush=True)
sys.stdin.read()
"""
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "cwd": ROOT}
    with subprocess.Popen([sys.executable, "-c", program], **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert using(database, fill) == Filled(examined=1, estimated=1)
    [(source, _, made, cost)] = sql(database, COSTS)
    assert (source, made) == ("estimated", rule_of_thumb("What had arrived"))
    assert cost > 0


def test_a_usage_that_comes_meanwhile_wins(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The update looks again whether the run is still silent."""
    recorded(database, estimate_usage=False)
    from recorder.costs.usage_estimate import estimate as compute

    def meanwhile(*given: Any) -> Any:
        execute(
            database,
            "UPDATE runs SET usage_source = 'provider', input_tokens = 7 WHERE usage_source = 'none'",
        )
        return compute(*given)

    monkeypatch.setattr(fill_module, "estimate", meanwhile)
    done = using(database, fill)
    assert done.estimated == 0
    assert [row[0] for row in sql(database, COSTS)] == ["provider", "provider"]


def test_a_run_that_cannot_be_computed_leaves_the_others_alone(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted as failed, and the rest is filled."""
    recorded(database, 2, estimate_usage=False)
    from recorder.costs.usage_estimate import estimate as compute

    calls: list[Any] = []

    def sometimes(*given: Any) -> Any:
        calls.append(given)
        if len(calls) == 1:
            raise TypeError("unhashable")
        return compute(*given)

    monkeypatch.setattr(fill_module, "estimate", sometimes)
    assert using(database, fill) == Filled(examined=2, estimated=1, failed=1)


def test_the_cached_input_of_a_cut_answer_is_priced_as_such(database: str) -> None:
    """What Anthropic reported at the start of the answer stays, with a price of its own."""
    words = [f"word{number} " for number in range(40)]
    frames = [*anthropic_messages_frames(words)]
    frames[0] = frames[0].replace(b'"cache_read_input_tokens":0', b'"cache_read_input_tokens":100000')
    prices = {"127.0.0.1": "anthropic"}
    with LoopbackProvider(Answer(frames=frames, hang_after=30)) as provider:
        history = ChatHistoryCallback(database, priced_as=prices)
        model = ChatAnthropic("claude-haiku-4-5", base_url=provider.url, api_key="any", callbacks=[history])
        stream = model.stream("Hi")
        assert len([*zip(stream, range(10), strict=False)]) == 10
        stream.close()  # type: ignore[attr-defined]
        history.close().wait()
    before = sql(database, COSTS)
    [(source, sent, _, cost)] = before
    assert source == "estimated"
    assert sent > 100_000
    assert 0 < cost < 0.5 * sent * 1e-6
    execute(database, FORGET.replace("price = NULL", 'price = \'{"host":"anthropic"}\''))
    assert using(database, fill) == Filled(examined=1, priced=1)
    assert sql(database, COSTS) == before


def test_estimates_need_no_prices(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library the usage is estimated, and the cost stays NULL until it is there."""
    monkeypatch.setattr(price_list, "is_installed", lambda: False)
    recorded(database)
    assert [(row[0], row[3]) for row in sql(database, COSTS)] == [("provider", None), ("estimated", None)]
    monkeypatch.undo()
    assert using(database, fill) == Filled(examined=2, priced=2)
    assert all(row[3] > 0 for row in sql(database, COSTS))
