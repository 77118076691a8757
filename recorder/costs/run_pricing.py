"""Sets what a run cost when it is sealed, by the price on the day on which it began. On the writer's thread only.

A price is never guessed. The cost stays NULL without usage, for an unknown model, host or service tier, and for counts
that contradict each other.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from recorder.core.escaping import escape_json
from recorder.core.json import loads
from recorder.costs import price_list
from recorder.costs.missing_usage import is_partial
from recorder.costs.price_list import PARTS, STANDARD, ModelPrice
from recorder.costs.units import reported_cost, tier_in, units_in
from recorder.storage.batch import RunRows
from recorder.storage.rows import STREAMING
from recorder.wire.recorded_run import ANTHROPIC
from recorder.wire.usage import ESTIMATED_USAGE, is_counted

log = logging.getLogger("recorder")


class BilledRun(NamedTuple):
    """What decides the cost of a run."""

    provider_name: str | None
    #: As in `RunStart`.
    host: str | None
    #: The model of the response and of the request. The first one that has a price is taken.
    models: Sequence[str | None]
    started_at: datetime
    wire: str | None
    usage: Mapping[str, Any]
    #: The service tier in the response; None if it is not known.
    service_tier: str | None = None
    #: The service tier that the request asked for.
    requested_tier: str | None = None


class RunCost(NamedTuple):
    """As the columns of `runs`: US dollars, and the price as JSON.

    Without a cost the price is only the host, so that the run can be priced later.
    """

    input_cost: float | None = None
    output_cost: float | None = None
    cost: float | None = None
    price: str | None = None


def cost_of(run: BilledRun) -> RunCost:
    """The cost of a run. Needs the library only if the provider does not report the cost itself."""
    reported = reported_cost(_reporter(run), run.usage)
    if reported is not None:
        return RunCost(cost=reported, price=escape_json({"source": "provider", "provider": _reporter(run)}))
    provider = price_list.provider_of(run.provider_name, run.host) if price_list.is_installed() else None
    is_known = provider is not None and is_counted(run.usage)
    units = units_in(run.usage, is_anthropic=run.wire == ANTHROPIC) if is_known else None
    price = _price(run, provider, units) if provider is not None and units is not None else None
    return _computed(price, units or {}, run.started_at) if price is not None else without_cost(run.host)


def estimated_usage(reported: Mapping[str, Any] | None, sent: int, made: int) -> Mapping[str, Any]:
    """A usage as a provider reports it. Of a reported input the details stay: cached input has a price of its own."""
    if reported and is_counted(reported):
        return {**reported, "output_tokens": made}
    return {**(reported or {}), "input_tokens": sent, "output_tokens": made, "total_tokens": sent + made}


def without_cost(host: str | None) -> RunCost:
    """The columns of a run without a cost."""
    return RunCost(price=escape_json({"host": host}) if host else None)


def _reporter(run: BilledRun) -> str | None:
    """The provider, as far as it is known without the library."""
    host = (run.host or "").lower()
    by_host = {"openrouter.ai": "openrouter", "api.perplexity.ai": "perplexity"}
    return by_host.get(host) or (run.provider_name if not host or host == run.provider_name else host)


def _price(run: BilledRun, provider: str, units: Mapping[str, int]) -> ModelPrice | None:
    tier = run.service_tier or tier_in(run.usage)
    if tier is None and run.requested_tier not in STANDARD:
        return None  # whether the request got it is not known
    for model in filter(None, run.models):
        found = price_list.price_of(
            provider, model, run.started_at, input_tokens=units.get("input_tokens", 0), tier=tier
        )
        if found is not None:
            # Tokens that are both cached and audio have a price of their own, and no usage object counts them.
            is_ambiguous = {"cache_read_tokens", "input_audio_tokens"} <= units.keys()
            return None if is_ambiguous and "cache_audio_read_mtok" in found.prices else found
    return None


def _computed(price: ModelPrice, units: Mapping[str, int], at: datetime) -> RunCost:
    counted = [(price.rates[unit], count) for unit, count in units.items() if unit in PARTS]
    about = {
        "source": price_list.version(),
        "provider": price.provider,
        "model": price.model,
        "day": at.date().isoformat(),
        "prices": price.prices,
    }
    return RunCost(
        sum(rate.input * count for rate, count in counted),
        sum(rate.output * count for rate, count in counted),
        price.once + sum(rate.total * count for rate, count in counted),
        escape_json(about),
    )


class RunPricing:
    """Sets the costs of the runs of a batch. `priced_as` is as in `Config`."""

    def __init__(self, priced_as: Mapping[str, str]) -> None:
        self._priced_as = priced_as
        self._has_failed = False

    def set_costs(self, parts: Sequence[RunRows]) -> None:
        """Set the costs in the seals of these runs. A run whose usage cannot be read gets none; never raises."""
        for rows in parts:
            seal = rows.seal
            if seal is None or seal.end.status == STREAMING or rows.start.is_step:
                continue
            found = without_cost(self.host_of(rows.start.host))
            is_estimated = seal.end.usage_source == ESTIMATED_USAGE
            if is_estimated or (seal.end.usage and not is_partial(rows.start.wire, seal.end)):
                found = self._cost(rows, found)
            seal.input_cost, seal.output_cost, seal.cost, seal.price = found

    def host_of(self, host: str | None) -> str | None:
        """Whose prices hold for a host: the provider that the application named, or the host itself."""
        if host is None:
            return None
        return self._priced_as.get(host) or self._priced_as.get(host.partition(":")[0]) or host

    def _cost(self, rows: RunRows, otherwise: RunCost) -> RunCost:
        try:
            return cost_of(self._billed(rows))
        except Exception:  # a bug, or an entry of the library's list that it cannot compute
            if not self._has_failed:
                self._has_failed = True
                log.exception(
                    "The cost of run %s could not be computed and is left out; recording goes on",
                    rows.start.run_id,
                )
            return otherwise

    def _billed(self, rows: RunRows) -> BilledRun:
        start, end = rows.start, rows.seal.end  # type: ignore[union-attr]  # the caller has looked
        usage = loads(end.usage or "{}")
        if end.usage_source == ESTIMATED_USAGE:
            usage = estimated_usage(usage, end.input_tokens or 0, end.output_tokens or 0)
        return BilledRun(
            start.provider_name,
            self.host_of(start.host),
            (end.response_model, start.request_model),
            start.started_at,
            start.wire,
            usage if isinstance(usage, dict) else {},
            end.service_tier,
            start.requested_tier,
        )
