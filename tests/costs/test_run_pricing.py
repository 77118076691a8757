"""A run has what it cost from its seal on; what is not known is NULL."""

from __future__ import annotations

import json
import logging
import threading
from datetime import datetime
from typing import Any

import pytest

from recorder import ChatHistoryCallback
from recorder.core.clock import now
from recorder.costs import price_list, run_pricing
from recorder.costs.run_pricing import BilledRun, RunPricing, cost_of
from recorder.models import ChatAnthropic, ChatOpenAI
from recorder.replay import Replay
from recorder.testing import LoopbackProvider
from tests.oracle import begin, result, say, sql

pytest.importorskip("genai_prices")

#: The loopback provider's host has no prices of its own.
AS_OPENAI = {"127.0.0.1": "openai"}
COSTS = "SELECT input_cost, output_cost, cost, price, usage_source FROM runs"


def recorded(url: str, usage: Any, *, model: str = "gpt-4o-mini", **more: Any) -> None:
    """Record a run whose provider reported this usage."""
    with ChatHistoryCallback(url, estimate_usage=False) as history:
        metadata = {"ls_provider": "openai", "ls_model_name": model}
        run_id = begin(history, metadata=metadata, **more)
        say(history, run_id, ["Hello"])
        history.on_llm_end(
            result("Hello", output={"token_usage": usage}, finish_reason="stop"), run_id=run_id
        )


def test_a_run_has_its_cost_and_the_price(database: str) -> None:
    """The price says who publishes it, for which model, as of which day and in which version of the list."""
    usage = {"prompt_tokens": 1_000_000, "completion_tokens": 100_000, "total_tokens": 1_100_000}
    recorded(database, usage)
    [(input_cost, output_cost, cost, price, source)] = sql(database, COSTS)
    assert (input_cost, output_cost) == (pytest.approx(0.15), pytest.approx(0.06))
    assert cost == pytest.approx(0.21)
    assert source == "provider"
    found = price if isinstance(price, dict) else json.loads(price)
    assert found["source"] == price_list.version()
    assert (found["provider"], found["model"]) == ("openai", "gpt-4o-mini")
    assert found["day"] == now().date().isoformat()
    assert found["prices"]["input_mtok"] == 0.15


@pytest.mark.parametrize(
    ("usage", "model"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 5}, "a-model-of-nobody"),
        ("a lot", "gpt-4o-mini"),
        (
            {"prompt_tokens": 5, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 9}},
            "gpt-4o-mini",
        ),
        (None, "gpt-4o-mini"),
    ],
    ids=["unknown model", "text", "contradiction", "silent"],
)
def test_what_is_unknown_is_null(database: str, usage: Any, model: str) -> None:
    """The run is stored, and nothing is guessed."""
    recorded(database, usage, model=model)
    assert [row[:4] for row in sql(database, COSTS)] == [(None, None, None, None)]


def test_a_host_without_prices_has_none_and_is_stored(tmp_path: Any) -> None:
    """A server of one's own that calls its model gpt-4o-mini does not cost what OpenAI's does."""
    url = f"sqlite:///{tmp_path / 'a.db'}"
    with LoopbackProvider() as provider, ChatHistoryCallback(url) as history:
        ChatOpenAI("gpt-4o-mini", base_url=provider.base_url, api_key="any", callbacks=[history]).invoke("Hi")
    [(*costs, price, source)] = sql(url, COSTS)
    assert costs == [None, None, None]
    assert source == "provider"
    assert json.loads(price)["host"].startswith("127.0.0.1:")


def test_a_gateway_costs_what_its_provider_does(tmp_path: Any) -> None:
    """`priced_as` names whose prices hold for a host; both SDKs."""
    url = f"sqlite:///{tmp_path / 'a.db'}"
    options: Any = {"priced_as": {"127.0.0.1": "anthropic"}}
    with LoopbackProvider() as provider, ChatHistoryCallback(url, **options) as history:
        model = ChatAnthropic("claude-sonnet-4-5", base_url=provider.url, api_key="any", callbacks=[history])
        model.invoke("Hi")
    [(_, _, cost, price, _)] = sql(url, COSTS)
    assert cost > 0
    assert json.loads(price)["provider"] == "anthropic"


def test_a_replayed_run_costs_nothing(tmp_path: Any) -> None:
    """No provider was called, so no price holds."""
    url, copy = f"sqlite:///{tmp_path / 'a.db'}", f"sqlite:///{tmp_path / 'b.db'}"
    with LoopbackProvider() as provider, ChatHistoryCallback(url, priced_as=AS_OPENAI) as history:
        ChatOpenAI("gpt-4o-mini", base_url=provider.base_url, api_key="any", callbacks=[history]).invoke("Hi")
    with Replay(url) as replay, ChatHistoryCallback(copy, priced_as=AS_OPENAI) as history:
        replay.model().invoke("Hi", {"callbacks": [history]})
    assert [cost is None for _, _, cost, _, _ in sql(url, COSTS)] == [False]
    assert [cost for _, _, cost, _, _ in sql(copy, COSTS)] == [None]


def billed(usage: dict[str, Any], **more: Any) -> BilledRun:
    """Return a run of OpenAI with this usage."""
    fields: dict[str, Any] = {"host": None, "models": ["gpt-5"], "started_at": now(), "wire": None, **more}
    return BilledRun("openai", usage=usage, **fields)


USAGE = {"prompt_tokens": 1_000_000, "completion_tokens": 0}


def test_a_reported_cost_is_preferred() -> None:
    """OpenRouter says itself what it charged, also for a model that nobody else knows."""
    found = cost_of(billed({**USAGE, "cost": 0.25}, host="openrouter.ai", models=["new/model"]))
    assert found[:3] == (None, None, 0.25)
    assert json.loads(found.price or "") == {"source": "provider", "provider": "openrouter"}


def test_the_service_tier_of_the_response_counts() -> None:
    """A request for a tier whose response does not say what it got is not priced."""
    standard = cost_of(billed(USAGE, service_tier="default")).cost
    assert cost_of(billed(USAGE, service_tier="flex")).cost == pytest.approx((standard or 0) / 2)
    assert cost_of(billed(USAGE, service_tier="default", requested_tier="priority")).cost == standard
    assert cost_of(billed(USAGE, requested_tier="auto")).cost == standard
    assert cost_of(billed(USAGE, requested_tier="priority")).cost is None


def test_the_request_names_the_model_if_the_response_does_not() -> None:
    """A deployment's name in the response is no model; the request's one is taken."""
    known = cost_of(billed(USAGE)).cost
    assert cost_of(billed(USAGE, models=["my-deployment", "gpt-5"])).cost == known
    assert cost_of(billed(USAGE, models=[None, None])).cost is None


def test_without_the_library_recording_is_silent(
    database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The cost is NULL and nothing is logged; `recorder stats --cost` says what to install."""
    monkeypatch.setattr(price_list, "is_installed", lambda: False)
    with caplog.at_level(logging.WARNING, logger="recorder"):
        recorded(database, USAGE)
    assert [row[2] for row in sql(database, COSTS)] == [None]
    assert caplog.messages == []


def test_prices_are_looked_up_on_the_writers_thread(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is never called, and so never imported, on the application's thread."""
    names: list[str] = []

    def noted(run: BilledRun) -> Any:
        names.append(threading.current_thread().name)
        return cost_of(run)

    monkeypatch.setattr(run_pricing, "cost_of", noted)
    recorded(f"sqlite:///{tmp_path / 'a.db'}", USAGE)
    assert names == ["recorder-writer"]


def test_a_price_that_cannot_be_computed_is_logged_once(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug in the list costs nothing but the costs."""

    def broken(run: BilledRun) -> Any:
        raise ZeroDivisionError(run.models)

    monkeypatch.setattr(run_pricing, "cost_of", broken)
    url = f"sqlite:///{tmp_path / 'a.db'}"
    with caplog.at_level(logging.ERROR, logger="recorder"), ChatHistoryCallback(url) as history:
        for _ in range(2):
            run_id = begin(history, metadata={"ls_provider": "openai", "ls_model_name": "gpt-5"})
            history.on_llm_end(result("Hi", output={"token_usage": USAGE}), run_id=run_id)
    assert sql(url, "SELECT count(*) FROM runs WHERE status = 'complete' AND cost IS NULL") == [(2,)]
    assert len(caplog.records) == 1
    assert "could not be computed and is left out" in caplog.messages[0]


def test_a_host_is_found_with_and_without_its_port() -> None:
    """The name with the port counts first."""
    pricing = RunPricing({"gateway:8080": "openai", "gateway": "azure"})
    assert pricing.host_of("gateway:8080") == "openai"
    assert pricing.host_of("gateway:9090") == "azure"
    assert pricing.host_of("other:1") == "other:1"
    assert pricing.host_of(None) is None


def test_a_run_of_a_day_has_the_price_of_that_day() -> None:
    """Not that of the day on which it is priced."""
    seen: list[datetime] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(price_list, "price_of", lambda provider, model, at, **more: seen.append(at))
        at = datetime.fromisoformat("2025-02-03T04:05:06+00:00")
        cost_of(billed(USAGE, started_at=at))
    assert seen == [at]
