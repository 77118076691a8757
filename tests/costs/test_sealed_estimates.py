"""Silent runs are estimated in the row that seals them, by the rule of thumb: nothing is read again."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from contextlib import closing
from itertools import repeat
from pathlib import Path

import pytest

from recorder import ChatHistoryCallback
from recorder.costs import sealed_estimates
from recorder.costs.fill import fill
from recorder.costs.token_counts import rule_of_thumb
from recorder.messages import HumanMessage
from recorder.models import ChatAnthropic
from recorder.storage.store import SqlStore
from recorder.testing import Answer, LoopbackProvider, MemoryStore, anthropic_messages_frames
from tests.oracle import FaultyStore, away, begin, finish, new_url, record, result, say, sql
from tests.stores import using

USAGE = "SELECT usage_source, input_tokens, output_tokens, total_tokens FROM runs ORDER BY started_at"
ANSWER = "An answer of some words, 一些文字. " * 40


def test_a_silent_stream_is_estimated(database: str) -> None:
    """What was sent and what arrived, by the rule of thumb."""
    with ChatHistoryCallback(database) as history:
        run_id = begin(history, HumanMessage("A question"))
        say(history, run_id, [ANSWER])
        finish(history, run_id, ANSWER, finish_reason="stop")
    sent = 3 + 3 + rule_of_thumb("user") + rule_of_thumb("A question")
    made = rule_of_thumb(ANSWER)
    assert sql(database, USAGE) == [("estimated", sent, made, sent + made)]
    assert history.stats().estimated_runs == 1


def test_a_reported_usage_is_never_touched(database: str) -> None:
    """Also if it is odd."""
    with ChatHistoryCallback(database) as history:
        run_id = begin(history)
        say(history, run_id, ["x" * 4_000])
        output = {"token_usage": {"prompt_tokens": 0, "completion_tokens": 1, "total_tokens": 1}}
        history.on_llm_end(result("x" * 4_000, output=output), run_id=run_id)
    assert sql(database, USAGE) == [("provider", 0, 1, 1)]


def test_an_aborted_stream_is_estimated_by_what_arrived(database: str) -> None:
    """Reasoning and arguments of tools count as well as text."""
    with ChatHistoryCallback(database) as history:
        run_id = begin(history)
        say(history, run_id, ["Half an ", "answer"])
        history.on_llm_error(asyncio.CancelledError(), run_id=run_id)
    [(source, _, made, _)] = sql(database, USAGE)
    assert (source, made) == ("estimated", rule_of_thumb("Half an answer"))


def test_a_request_that_failed_at_once_costs_nothing(database: str) -> None:
    """Nothing arrived, and no provider charges for an error."""
    with ChatHistoryCallback(database) as history:
        history.on_llm_error(ConnectionError("refused"), run_id=begin(history))
    assert sql(database, USAGE) == [("none", None, None, None)]


def test_a_cut_answer_of_anthropic_keeps_the_reported_input(database: str) -> None:
    """Its start counts the input; the output that it counts there is that of the first token."""
    words = [f"word{number} " for number in range(40)]
    answer = Answer(frames=anthropic_messages_frames(words), hang_after=30)
    with LoopbackProvider(answer) as provider, ChatHistoryCallback(database) as history:
        model = ChatAnthropic("claude-sonnet-4-5", base_url=provider.url, api_key="any", callbacks=[history])
        stream = model.stream("Hi")
        arrived = "".join(chunk.text for chunk, _ in zip(stream, range(20), strict=False))
        stream.close()  # type: ignore[attr-defined]
    [(source, sent, made, total)] = sql(database, USAGE)
    [(raw,)] = sql(database, "SELECT usage FROM runs")
    assert source == "estimated"
    assert f'"input_tokens":{sent}' in str(raw).replace(" ", "").replace("'", '"')
    assert made >= rule_of_thumb(arrived) > 1
    assert total == sent + made


def test_chains_and_tools_have_no_usage(database: str) -> None:
    """They are no calls of a model."""
    with ChatHistoryCallback(database) as history:
        record(history, reply="Hi")
    assert sql(database, "SELECT count(*) FROM runs WHERE usage_source = 'estimated'") == [(1,)]
    with ChatHistoryCallback(database, estimate_usage=False) as history:
        record(history, reply="Hi")
    assert sql(database, "SELECT count(*) FROM runs WHERE usage_source = 'none'") == [(1,)]


def test_a_store_of_ones_own_gets_the_estimate() -> None:
    """It is in the seal, whatever stores it."""
    store = MemoryStore()
    with ChatHistoryCallback(store=store) as history:
        record(history)
    assert [seal.end.usage_source for seal in store.seals.values()] == ["estimated"]


def test_a_run_over_several_commits_is_estimated_alike(database: str) -> None:
    """Its request is counted before its messages are dropped, with the schemas of its tools."""
    tools = {"tools": [{"type": "function", "function": {"name": "weather", "parameters": {}}}]}
    with ChatHistoryCallback(database) as history:
        for several in (False, True):
            run_id = begin(history, HumanMessage("A question"), invocation_params=tools)
            say(history, run_id, ["An "])
            if several:
                history.flush().wait(30)
            say(history, run_id, ["answer"])
            finish(history, run_id, "An answer", finish_reason="stop")
    one, other = sql(database, USAGE)
    assert one == other
    assert one[1] > 3 + 3 + rule_of_thumb("user") + rule_of_thumb("A question")


def test_an_estimate_that_fails_costs_nothing_else(
    database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged once, and the run is stored; it may be estimated after its commit."""
    monkeypatch.setattr(sealed_estimates, "_estimated", lambda *_: 1 / 0)
    with ChatHistoryCallback(database, estimate_usage=True) as history:
        for _ in range(2):
            record(history)
    assert sql(database, "SELECT count(*) FROM runs WHERE status = 'complete'") == [(2,)]
    assert len([each for each in caplog.messages if "is not estimated" in each]) == 1


def test_a_run_that_is_not_stored_counts_as_no_estimate(tmp_path: Path) -> None:
    """Its database was away until the time to close was over."""
    url = new_url(tmp_path)
    store = FaultyStore(SqlStore(url))
    history = ChatHistoryCallback(store=store, close_timeout=0.2)
    record(history)
    history.flush().wait(30)
    store.before = repeat(away)
    record(history)
    assert history.close().wait().estimated_runs == 1
    assert sql(url, "SELECT usage_source FROM runs") == [("estimated",)]


def test_a_run_whose_messages_were_dropped_has_no_estimate(tmp_path: Path) -> None:
    """What was sent is not known, and a cost is never guessed."""
    url = new_url(tmp_path)
    history = ChatHistoryCallback(url, max_queue_bytes=20_000, overflow="drop_newest")
    with closing(sqlite3.connect(tmp_path / "history.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for _ in range(60):
            record(history, reply=ANSWER)
        other.execute("COMMIT")
    history.close().wait()
    stats = history.stats()
    assert stats.refused_runs > 0
    assert stats.estimated_runs + stats.unestimated_runs == 60
    sources = Counter(source for source, *_ in sql(url, USAGE))
    assert sources == {"estimated": stats.estimated_runs, "none": stats.refused_runs}
    assert using(url, fill).estimated == 0


def test_a_usage_without_a_count_is_none(database: str) -> None:
    """It is stored as it came, and the run is estimated and priced as one without."""
    gpt = {"ls_provider": "openai", "ls_model_name": "gpt-4o"}
    with ChatHistoryCallback(database) as history:
        run_id = begin(history, metadata=gpt)
        say(history, run_id, ["Hello"])
        history.on_llm_end(result("Hello", output={"token_usage": {"queue_time": 0.5}}), run_id=run_id)
        record(history, reply="Hello", metadata=gpt)
    odd, silent = sql(database, "SELECT usage_source, input_tokens, cost FROM runs ORDER BY started_at")
    assert odd == silent
    assert odd[0] == "estimated"
    assert [bool(usage) for (usage,) in sql(database, "SELECT usage FROM runs ORDER BY started_at")] == [
        True,
        False,
    ]


def test_names_of_models_fill_no_memory(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway may name the model of each response anew."""
    monkeypatch.setattr(sealed_estimates, "_MOST_MODELS", 10)
    with ChatHistoryCallback(database) as history:
        for number in range(40):
            record(history, metadata={"ls_provider": "openai", "ls_model_name": f"model-{number}"})
        history.flush().wait(30)
        assert len(history.recorder._writer.sealed_estimates._vocabularies) <= 11
    assert history.stats().estimated_runs == 40


def test_the_estimate_has_a_cost(database: str) -> None:
    """By the price of the model, as a reported usage has."""
    pytest.importorskip("genai_prices")
    with ChatHistoryCallback(database) as history:
        record(history, reply=ANSWER, metadata={"ls_provider": "openai", "ls_model_name": "gpt-4o"})
    [(cost, made)] = sql(database, "SELECT output_cost, output_tokens FROM runs")
    assert cost == pytest.approx(made * 10e-6)
