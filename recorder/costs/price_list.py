"""The published prices of models, from the library genai-prices. Nothing is downloaded: its list is in the package.

The library computes the price of a usage in 120 to 340 us, because it splits the counts for each call. Prices are
linear in the counts, so it is called once for one more million of each unit, and a run is a few multiplications. A
price that depends on the length of the request has one set of rates for each tier.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import Any, NamedTuple

from recorder.core.installation import INSTALL_PRICES
from recorder.core.late_imports import late_imports

#: The names of providers in LangChain, LangSmith and recorder that differ from the library's.
_PROVIDERS = {
    "amazon_bedrock": "aws",
    "azure_openai": "azure",
    "bedrock": "aws",
    "bedrock_converse": "aws",
    "gemini": "google",
    "google_genai": "google",
    "google_vertexai": "google",
    "mistralai": "mistral",
    "xai": "x-ai",
}
#: A unit, and those that it is a part of, in the library's names. These are the counts that usage objects have.
PARTS: Mapping[str, Sequence[str]] = {
    "input_tokens": (),
    "output_tokens": (),
    "cache_read_tokens": ("input_tokens",),
    "cache_write_tokens": ("input_tokens",),
    "cache_write_1h_tokens": ("cache_write_tokens", "input_tokens"),
    "input_audio_tokens": ("input_tokens",),
    "output_audio_tokens": ("output_tokens",),
    "output_reasoning_tokens": ("output_tokens",),
    "web_searches": (),
}
#: So many units are priced to find the price of one.
_MANY = 1_000_000
#: Longer names are no names of models.
_LONGEST_NAME = 300
#: What a request is charged as if it says nothing, and names of the same.
STANDARD: frozenset[str | None] = frozenset(
    (None, "", "auto", "default", "standard", "standard_only", "on_demand")
)
#: So many prices are kept.
_MOST_KNOWN = 1_000


class Rate(NamedTuple):
    """US dollars for one unit."""

    input: float
    output: float
    total: float


class ModelPrice(NamedTuple):
    """What one model costs at one time, for requests of one length and service tier."""

    #: The library's names.
    provider: str
    model: str
    #: US dollars as the library writes them: `{"input_mtok": 2.5}` is for a million tokens.
    prices: Mapping[str, float]
    #: By unit. A unit without a price of its own is in that of what it is a part of.
    rates: Mapping[str, Rate]
    #: What a request costs beside its units.
    once: float


def is_installed() -> bool:
    """Whether the library is installed. Does not import it."""
    return find_spec("genai_prices") is not None


@cache
def version() -> str:
    """The name and version of the library."""
    import genai_prices

    return f"genai-prices {genai_prices.__version__}"


def install_hint() -> str:
    """How to get the library, for messages."""
    return f"Prices need genai-prices, which is not installed; run: {INSTALL_PRICES}"


def provider_of(name: str | None, host: str | None) -> str | None:
    """The library's name of who publishes the price; None if it knows neither.

    `host` is where the request went, without a scheme, or the short name of a provider. It decides, because the SDK of
    one provider is used for many others. `name` counts where no host is known.
    """
    given = host or name
    if not given:
        return None
    lowered = given.lower()
    known = _PROVIDERS.get(lowered, lowered)
    if known in _providers():
        return known
    return _provider_of_url(f"https://{lowered}") if host else None


def price_of(
    provider: str, model: str, at: datetime, *, input_tokens: int, tier: str | None = None
) -> ModelPrice | None:
    """The price of a model at a time; None if it is unknown, also for this service tier."""
    entry, context = _entry(provider, model[: _LONGEST_NAME + 1].lower()), _context(tier)
    if entry is None or (context and not _has_variant(provider, entry, context)):
        return None
    standard = entry.get_prices(at)  # an object of the library's list, which is never freed
    key = provider, entry.id, id(standard), tier, at.date()
    found = _known.get(key)
    if found is None:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        price = entry.get_prices(at, context) if context else standard
        found = _known[key] = _Tiers(provider, entry.id, price)
    return found.at(input_tokens)


#: The prices by provider, model, the library's object, tier and day.
_known: dict[tuple[Any, ...], _Tiers] = {}


@lru_cache(1_000)
def _provider_of_url(url: str) -> str | None:
    return next((each.id for each in _providers().values() if re.match(each.api_pattern, url)), None)


@cache
def _providers() -> dict[str, Any]:
    """The library's providers, by name. The first call takes a quarter of a second, most of it the library's import."""
    with late_imports():
        from genai_prices.data_snapshot import get_snapshot

        get_snapshot()  # imports the list itself
    return {each.id: each for each in get_snapshot().providers}


@lru_cache(1_000)
def _entry(provider: str, model: str) -> Any:
    """The library's entry of a model. Kept for unknown models as well, because finding none takes a millisecond."""
    if len(model) > _LONGEST_NAME or (found := _providers().get(provider)) is None:
        return None
    return found.find_model(model, all_providers=[*_providers().values()])


def _context(tier: str | None) -> dict[str, str]:
    """How the request was charged, in the library's words. Anthropic reports a batch as a tier."""
    if tier in STANDARD:
        return {}
    assert tier is not None
    return {"processing": "batch"} if tier == "batch" else {"service_tier": tier}


def _has_variant(provider: str, entry: Any, context: Mapping[str, str]) -> bool:
    """Whether the provider itself has a price for that; another one's entry of the model says nothing about it."""
    if all(each is not entry for each in _providers()[provider].models):
        return False
    variants = entry.price_variants or ()
    return any(all(context.get(key) == value for key, value in each.when.items()) for each in variants)


class _Tiers:
    """The prices of one model at one time, by the length of the request."""

    def __init__(self, provider: str, model: str, price: Any) -> None:
        self._names = provider, model
        self._price = price
        tiered = [each.tiers for each in price.__dict__.values() if hasattr(each, "tiers")]
        self._starts = sorted({tier.start for tiers in tiered for tier in tiers})
        self._known: dict[int, ModelPrice] = {}

    def at(self, input_tokens: int) -> ModelPrice:
        """The price for a request of this length."""
        tier = bisect_left(self._starts, input_tokens)
        found = self._known.get(tier)
        if found is None:
            with late_imports():  # the library imports some of its modules only when it computes
                found = self._known[tier] = self._computed(input_tokens)
        return found

    def _computed(self, input_tokens: int) -> ModelPrice:
        from genai_prices.types import ModelPrice as FlatPrice

        given = {name: _of_tier(price, input_tokens) for name, price in self._price.__dict__.items()}
        flat = FlatPrice(**{name: price for name, price in given.items() if price is not None})
        once, rates = _cost(flat, ()), {}
        for unit, parents in PARTS.items():
            above = _cost(flat, parents)
            more = _cost(flat, (unit, *parents))
            rates[unit] = Rate(*((new - old) / _MANY for new, old in zip(more, above, strict=True)))
        prices = {name: float(price) for name, price in flat.__dict__.items()}
        return ModelPrice(*self._names, prices, rates, once.total)


def _of_tier(price: Any, input_tokens: int) -> Any:
    """A price without tiers. The highest tier whose start is exceeded holds for all tokens of the request."""
    exceeded = [tier.price for tier in getattr(price, "tiers", ()) if input_tokens > tier.start]
    return exceeded[-1] if exceeded else getattr(price, "base", price)


def _cost(price: Any, units: Sequence[str]) -> Rate:
    from genai_prices import Usage

    found = price.calc_price(Usage(**dict.fromkeys(units, _MANY)))
    return Rate(float(found["input_price"]), float(found["output_price"]), float(found["total_price"]))
