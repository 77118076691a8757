"""The prices are those of the library genai-prices, for every model, tier and time."""

from __future__ import annotations

import socket
import threading
from datetime import UTC, datetime
from typing import Any

import pytest

from recorder.costs import price_list
from recorder.costs.price_list import PARTS, ModelPrice, price_of, provider_of
from tests.oracle import run_python

genai_prices: Any = pytest.importorskip("genai_prices")

DAY = datetime(2026, 11, 1, 12, tzinfo=UTC)


def providers() -> list[Any]:
    """Return the library's providers."""
    from genai_prices.data_snapshot import get_snapshot

    return list(get_snapshot().providers)


def cost(price: ModelPrice, counts: dict[str, int]) -> float:
    """Return the cost of these counts by our rates."""
    return price.once + sum(price.rates[unit].total * count for unit, count in counts.items())


@pytest.mark.parametrize(
    ("name", "host", "expected"),
    [
        ("openai", None, "openai"),
        ("openai", "openai", "openai"),
        ("openai", "openrouter.ai", "openrouter"),
        ("openai", "api.deepseek.com", "deepseek"),
        ("openai", "API.GROQ.COM", "groq"),
        ("azure", "mine.openai.azure.com", "azure"),
        ("google_genai", None, "google"),
        ("gemini", "generativelanguage.googleapis.com", "google"),
        ("anthropic", "anthropic", "anthropic"),
        ("ollama", "localhost:11434", None),
        ("ollama", None, None),
        ("openai", "localhost:8000", None),
        ("openai", "openai.com.evil.example", None),
        ("my-openai-proxy", None, None),
        (None, None, None),
    ],
)
def test_the_host_decides_whose_prices_hold(name: str | None, host: str | None, expected: str | None) -> None:
    """OpenAI's SDK is used for many hosts. A host or a name that is unknown has no price, however it looks."""
    assert provider_of(name, host) == expected


@pytest.mark.parametrize("input_tokens", [1_000, 150_000, 300_000])
def test_the_rates_equal_the_library(input_tokens: int) -> None:
    """Every sixth of the library's models costs what the library computes, in each tier of its price."""
    counts = {
        "input_tokens": input_tokens,
        "output_tokens": 500,
        "cache_read_tokens": 200,
        "cache_write_tokens": 100,
        "cache_write_1h_tokens": 40,
        "output_reasoning_tokens": 30,
    }
    seen = 0
    for provider in providers():
        for entry in provider.models[::6]:
            expected = entry.get_prices(DAY).calc_price(genai_prices.Usage(**counts))
            ours = price_list._Tiers(provider.id, entry.id, entry.get_prices(DAY)).at(input_tokens)
            assert cost(ours, counts) == pytest.approx(float(expected["total_price"]), abs=1e-12), entry.id
            seen += 1
    assert seen > 300


def test_a_long_request_has_the_price_of_its_tier() -> None:
    """The highest tier whose start is exceeded holds for all tokens."""
    short = price_of("google", "gemini-2.5-pro", DAY, input_tokens=200_000)
    long = price_of("google", "gemini-2.5-pro", DAY, input_tokens=200_001)
    assert short is not None
    assert long is not None
    assert long.prices["input_mtok"] == 2 * short.prices["input_mtok"]


def test_a_price_is_that_of_the_day() -> None:
    """A model whose price has changed costs what it cost then."""
    entry = next(each for provider in providers() for each in provider.models if is_dated(each))
    provider = next(each for each in providers() if any(model is entry for model in each.models))
    start = max(each.constraint.start_date for each in entry.prices if each.constraint is not None)
    times = datetime(start.year, start.month, start.day, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC)
    new, old = (price_of(provider.id, entry.id, at, input_tokens=300_000) for at in times)
    assert new is not None
    assert old is not None
    assert new.prices != old.prices


def is_dated(entry: Any) -> bool:
    """Return whether a model has a price from a day on, and a different one before."""
    prices = entry.prices if isinstance(entry.prices, list) else []
    starts = [getattr(each.constraint, "start_date", None) for each in prices if each.constraint is not None]
    return len(starts) == 1 and starts[0] is not None and prices[0].prices != prices[-1].prices


def test_a_service_tier_has_its_own_price_or_none() -> None:
    """A tier that the list does not have for a model is not charged as another one."""
    standard = price_of("openai", "gpt-5", DAY, input_tokens=10)
    flex = price_of("openai", "gpt-5", DAY, input_tokens=10, tier="flex")
    assert standard is not None
    assert flex is not None
    assert flex.rates["input_tokens"].input == standard.rates["input_tokens"].input / 2
    assert price_of("openai", "gpt-5", DAY, input_tokens=10, tier="default") is not None
    assert price_of("openai", "gpt-4", DAY, input_tokens=10, tier="flex") is None
    assert price_of("azure", "gpt-5", DAY, input_tokens=10, tier="unheard-of") is None


@pytest.mark.parametrize("model", ["no-such-model", "", "x" * 100_000, "gpt-4o\x00", "🎈"])
def test_an_unknown_model_has_no_price(model: str) -> None:
    """None, and not the price of a similar one."""
    assert price_of("openai", model, DAY, input_tokens=10) is None
    assert price_of("no-such-provider", model, DAY, input_tokens=10) is None


def test_nothing_is_asked_for_over_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Finding a price opens no socket and starts no thread."""

    def refuse(*given: Any, **options: Any) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    before = threading.active_count()
    price_list._known.clear()
    assert price_of("anthropic", "claude-sonnet-4-5", DAY, input_tokens=10) is not None
    assert threading.active_count() == before


def test_every_unit_is_the_librarys() -> None:
    """The names of the units, and of what they are parts of, exist in the library."""
    from genai_prices.units import _get_registry

    known = _get_registry().units
    assert {*PARTS, *(parent for parents in PARTS.values() for parent in parents)} <= set(known)


def test_a_fork_waits_for_every_import_of_a_library() -> None:
    """The writer of a child would wait forever for a module that a thread of its parent imports."""
    code = """
import sys
from datetime import UTC, datetime
from recorder.core.late_imports import _importing
class Watch:
    @staticmethod
    def find_spec(name, path, target=None):
        if name.partition(".")[0] in ("genai_prices", "sentencex", "vader") and not _importing._is_owned():
            print(name)
sys.meta_path.insert(0, Watch)
from recorder.analysis.extra import load
from recorder.costs.price_list import price_of
price_of("openai", "gpt-4o", datetime.now(UTC), input_tokens=1)
load("sentencex"), load("vader")
print("done", "genai_prices.validation" in sys.modules)
"""
    done = run_python(code)
    assert (done.stdout, done.stderr) == ("done True\n", "")
