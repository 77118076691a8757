"""The tracer, meter and logger providers of an exporter: those that it was given, else those of the process."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from recorder.core.deadline import seconds
from recorder.export.otel.framework import get_logger_provider, metrics, trace

log = logging.getLogger("recorder")


@dataclass(slots=True, frozen=True)
class ResolvedProviders:
    """One provider of each kind."""

    tracer: Any
    meter: Any
    logger: Any


class Providers:
    """Looks for the process's providers when they are needed, because they may be set after the exporter is made."""

    def __init__(self, tracer: Any, meter: Any, logger: Any) -> None:
        self._given = (tracer, meter, logger)

    def resolve(self) -> ResolvedProviders:
        """The providers now. A process without a tracer provider gets a warning: its spans go nowhere."""
        found = self._now()
        if isinstance(found.tracer, trace.ProxyTracerProvider):
            log.warning(
                "No tracer provider is set, so spans are not exported; pass tracer_provider=, or call "
                "opentelemetry.trace.set_tracer_provider before the first run"
            )
        return found

    def force_flush(self, over: float) -> bool:
        """Let the providers send what they have, until a time (monotonic seconds). Whether all of them have.

        Each is called on a thread of its own, because the SDK does not always keep to the timeout that it gets.
        """
        found = self._now()
        all_of_them = (found.tracer, found.meter, found.logger)
        flushes = [_Flush(each.force_flush, over) for each in all_of_them if hasattr(each, "force_flush")]
        results = [flush.wait(over) for flush in flushes]  # each one is waited for
        return all(results)

    def _now(self) -> ResolvedProviders:
        tracer, meter, logger = self._given
        return ResolvedProviders(
            trace.get_tracer_provider() if tracer is None else tracer,
            metrics.get_meter_provider() if meter is None else meter,
            get_logger_provider() if logger is None else logger,
        )


class _Flush:
    """One `force_flush` on its own thread."""

    def __init__(self, force_flush: Callable[[int], object], over: float) -> None:
        self._force_flush, self._over = force_flush, over
        self._is_done = False
        self._thread = threading.Thread(target=self._run, name="recorder-otel-flush", daemon=True)
        with suppress(RuntimeError):  # the interpreter ends, and the provider's own exit sends the rest
            self._thread.start()

    def _run(self) -> None:
        try:
            self._is_done = self._force_flush(max(1, int((self._over - seconds()) * 1_000))) is not False
        except Exception:
            log.exception("A provider of OpenTelemetry could not send what it has")

    def wait(self, over: float) -> bool:
        """Whether it was done in time."""
        if self._thread.ident is None:
            return False
        self._thread.join(max(0.0, over - seconds()))
        return self._is_done
