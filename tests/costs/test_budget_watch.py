"""A function is called when a limit is passed: once, on a thread of its own, and never in the way of the recording."""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from recorder import Budget, BudgetEvent, ChatHistoryCallback
from recorder.core.clock import now
from recorder.costs import budget_watch
from tests.oracle import begin, record, result, say, sql
from tests.stores import execute

pytest.importorskip("genai_prices")

#: A run with a million tokens of input costs 2.5 dollars.
GPT = {"ls_provider": "openai", "ls_model_name": "gpt-4o"}
USAGE = {"prompt_tokens": 1_000_000, "completion_tokens": 0, "total_tokens": 1_000_000}


class Calls:
    """An `on_budget` that collects its events, and the threads on which it was called."""

    def __init__(self) -> None:
        self.events: queue.Queue[BudgetEvent] = queue.Queue()
        self.threads: list[str] = []

    def __call__(self, event: BudgetEvent) -> None:
        self.threads.append(threading.current_thread().name)
        self.events.put(event)

    def seen(self) -> list[tuple[str, str, float, float]]:
        """Return what was passed so far."""
        events = [self.events.get_nowait() for _ in range(self.events.qsize())]
        return [(each.per, each.id, each.limit, each.spent) for each in events]


def spend(history: ChatHistoryCallback, conversation: str = "c", user: str | None = None) -> str:
    """Record a run that costs 2.5 dollars, and wait until it is committed."""
    with history.conversation(conversation, user):
        run_id = begin(history, metadata=GPT)
        say(history, run_id, ["Hello"])
        history.on_llm_end(result("Hello", output={"token_usage": USAGE}), run_id=run_id)
    history.flush().wait(30)
    return str(run_id)


def spend_once(
    url: str, calls: Any, budgets: Sequence[Budget], conversation: str = "c", user: str | None = None
) -> Any:
    """Record such a run with a recorder of its own, whose end waits for the calls; the watch."""
    with ChatHistoryCallback(url, budgets=budgets, on_budget=calls) as history:
        spend(history, conversation, user)
        [watch] = history.recorder.listeners._all
    return watch


def test_each_limit_is_reported_once(database: str) -> None:
    """And again for each further limit, also by another process later."""
    calls, budgets = Calls(), [Budget(2), Budget(6), Budget(100)]
    reported = []
    for _ in range(4):
        spend_once(database, calls, budgets)
        reported.append(calls.seen())
    assert reported == [[("conversation", "c", 2, 2.5)], [], [("conversation", "c", 6, 7.5)], []]
    assert set(calls.threads) == {"recorder-on-budget"}


def test_a_users_budget_is_over_all_conversations(database: str) -> None:
    """Others' conversations, and those of nobody, do not count."""
    calls, budgets = Calls(), [Budget(4, "user")]
    for conversation, user in (("a", "anna"), ("b", "ben"), ("c", None), ("d", "anna")):
        spend_once(database, calls, budgets, conversation, user)
    assert calls.seen() == [("user", "anna", 4, 5.0)]


def test_within_counts_what_is_recent(database: str) -> None:
    """A limit that is passed again after older runs no longer count is reported again."""
    calls, budgets = Calls(), [Budget(4, within=timedelta(hours=1))]
    with ChatHistoryCallback(database, budgets=budgets, on_budget=calls) as history:
        spend(history)
        spend(history)
        assert calls.events.get(timeout=30).spent == 5.0
        earlier = (now() - timedelta(hours=2)).isoformat()
        stored = f"'{earlier.replace('+00:00', 'Z')}'"
        execute(database, f"UPDATE runs SET started_at = {stored}, ended_at = {stored}")
        spend(history)
        spend(history)
    assert [(limit, spent) for _, _, limit, spent in calls.seen()] == [(4, 5.0)]


def test_a_limit_that_was_passed_before_is_not_reported(database: str) -> None:
    """Neither after a restart nor when budgets are set for an old conversation."""
    calls = Calls()
    with ChatHistoryCallback(database) as history:
        spend(history)
    spend_once(database, calls, [Budget(1)])
    assert calls.seen() == []


def test_estimated_usage_counts(database: str) -> None:
    """A silent run passes a limit when it is estimated, after its commit."""
    calls = Calls()
    with ChatHistoryCallback(
        database, budgets=[Budget(1e-6)], on_budget=calls, conversation_id="c"
    ) as history:
        record(history, reply="Hello, and a few words more", metadata=GPT)
        event = calls.events.get(timeout=30)
    assert event.id == "c"
    assert event.spent == sql(database, "SELECT cost FROM runs")[0][0]


def test_an_asynchronous_function_is_awaited(database: str) -> None:
    """On an event loop of its own."""
    calls = Calls()

    async def on_budget(event: BudgetEvent) -> None:
        calls(event)

    spend_once(database, on_budget, [Budget(1)])
    assert calls.seen() == [("conversation", "c", 1, 2.5)]


def test_a_function_that_raises_is_logged_and_counted(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is called for the next limit, too."""

    def on_budget(event: BudgetEvent) -> None:
        raise ZeroDivisionError(event.limit)

    with caplog.at_level(logging.ERROR, logger="recorder"):
        watch = spend_once(database, on_budget, [Budget(1), Budget(2)])
    assert (watch.calls, watch.errors) == (2, 2)
    assert caplog.messages == [
        "on_budget raised an error; recording goes on, and it is called for the next limit"
    ]


def test_a_function_that_hangs_is_left_alone(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are stored meanwhile, other limits are reported, and calls that would hang as well are not made."""
    monkeypatch.setattr(budget_watch, "_CALL_TIMEOUT", 0.0)
    monkeypatch.setattr(budget_watch, "_MOST_HANGING", 2)
    entered, go_on = threading.Semaphore(0), threading.Event()

    def on_budget(event: BudgetEvent) -> None:
        entered.release()
        go_on.wait(60)

    budgets = [Budget(1), Budget(2), Budget(2.1), Budget(2.2)]
    with ChatHistoryCallback(database, budgets=budgets, on_budget=on_budget) as history:
        spend(history)
        assert entered.acquire(timeout=30)
        assert entered.acquire(timeout=30)
        spend(history)
    assert history.stats().listener_errors == 4
    assert sql(database, "SELECT count(*) FROM runs WHERE status = 'complete'") == [(2,)]
    go_on.set()


def test_a_function_that_returns_does_not_hang(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the time for the last calls is over before they are made."""
    monkeypatch.setattr(budget_watch, "_GRACE", -1.0)
    monkeypatch.setattr(budget_watch, "_JOIN", 10.0)
    calls, slow = Calls(), threading.Event()

    def on_budget(event: BudgetEvent) -> None:
        slow.wait(0.01)
        calls(event)

    budgets = [Budget(number / 10) for number in range(1, 9)]
    with ChatHistoryCallback(database, budgets=budgets, on_budget=on_budget) as history:
        spend(history)
    assert len(calls.seen()) == 8
    assert history.stats().listener_errors == 0


def test_nothing_is_summed_up_after_the_end(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    """What the time to close was too short for is left out, and counted."""
    calls = Calls()
    watch = budget_watch.BudgetWatch(f"sqlite:///{tmp_path}/a.db", [Budget(1)], calls)
    watch.end()
    watch._waiting["a run"] = None
    watch._work()
    assert watch.errors == 1
    assert watch._ended.done
    assert [message for message in caplog.messages if "of 1 runs" in message] == caplog.messages != []


def test_a_limit_that_is_passed_while_the_sums_cannot_be_read_is_reported(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later runs would take it for one that was passed before, so the same runs are looked at again."""
    calls = Calls()
    summed = budget_watch.BudgetWatch._is_passed_now
    failures = [ConnectionError("away"), ConnectionError("away")]

    def sometimes(watch: Any, place: Any, *given: Any) -> bool:
        if place[0].per == "user" and failures:
            raise failures.pop()
        return summed(watch, place, *given)

    monkeypatch.setattr(budget_watch.BudgetWatch, "_is_passed_now", sometimes)
    monkeypatch.setattr(budget_watch, "_RETRY", 0.01)
    budgets = [Budget(1), Budget(1, "user")]
    with ChatHistoryCallback(database, budgets=budgets, on_budget=calls) as history:
        spend(history, user="anna")
    assert calls.seen() == [("conversation", "c", 1, 2.5), ("user", "anna", 1, 2.5)]
    assert history.stats().listener_errors == 2


def test_sums_that_cannot_be_read_are_tried_again(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next run finds the limit passed, because the database knows when."""
    calls = Calls()
    opened = budget_watch.BudgetWatch._opened
    failures = [ConnectionError("away")]

    def sometimes(watch: Any) -> Any:
        if failures:
            raise failures.pop()
        return opened(watch)

    monkeypatch.setattr(budget_watch.BudgetWatch, "_opened", sometimes)
    with ChatHistoryCallback(database, budgets=[Budget(4)], on_budget=calls) as history:
        watch: Any = history.recorder.listeners._all[0]
        spend(history)
        spend(history)
    assert calls.seen() == [("conversation", "c", 4, 5.0)]
    assert watch.failed_reads == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="Python warns of threads at a fork")
def test_a_forked_child_has_a_watch_of_its_own(database: str) -> None:
    """The thread is the parent's; the child starts one, and reports what it passes itself."""
    calls = Calls()
    read, write = os.pipe()

    def on_budget(event: BudgetEvent) -> None:
        calls(event)
        os.write(write, f"{os.getpid()} {event.limit}\n".encode())

    history = ChatHistoryCallback(database, budgets=[Budget(1), Budget(4)], on_budget=on_budget)
    spend(history)
    assert calls.events.get(timeout=30).limit == 1
    [watch] = history.recorder.listeners._all
    if (pid := os.fork()) == 0:
        try:
            spend(history)
            history.close().wait()
            os.write(write, f"{watch.calls} call\n".encode())  # type: ignore[attr-defined]
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    history.close().wait()
    os.close(write)
    with os.fdopen(read) as lines:
        assert lines.read() == f"{os.getpid()} 1\n{pid} 4\n1 call\n"


def test_the_sums_use_indexes(tmp_path: Any) -> None:
    """They stay short however many runs others have."""
    from sqlalchemy.dialects import sqlite

    from recorder.costs.spending import _sum

    url = f"sqlite:///{tmp_path / 'a.db'}"
    with ChatHistoryCallback(url) as history:
        spend(history, user="anna")
    for budget, key in ((Budget(1), "c"), (Budget(1, "user"), "anna")):
        query = _sum(budget, key, now()).compile(
            dialect=sqlite.dialect(),
            compile_kwargs={"literal_binds": True},
        )
        plan = " ".join(row[3] for row in sql(url, f"EXPLAIN QUERY PLAN {query}"))
        assert "runs_by_conversation" in plan
        assert "SCAN" not in plan
