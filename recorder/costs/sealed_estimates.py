"""Estimates the usage of silent runs in the rows that seal them, by the rule of thumb. On the writer's thread only.

It takes microseconds, so nothing is read again. Runs of a model whose vocabulary is on this machine are left out:
`LiveEstimates` counts them exactly after their commit.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from recorder.core.json import loads
from recorder.costs.encodings import has_local_encoding
from recorder.costs.missing_usage import is_partial, needs_estimate
from recorder.costs.token_counts import generated_tokens, input_tokens, rule_of_thumb, schemas_in
from recorder.storage.batch import RunRows
from recorder.storage.rows import STREAMING, RunEnd, RunStart
from recorder.wire.usage import ESTIMATED_USAGE

log = logging.getLogger("recorder")

#: So many names of models are remembered.
_MOST_MODELS = 1_000


class SealedEstimates:
    """Estimates the runs of a batch before it is stored."""

    def __init__(self, *, is_on: bool) -> None:
        self._is_on = is_on
        #: Model -> whether its vocabulary is on this machine.
        self._vocabularies: dict[str | None, bool] = {}
        self._has_failed = False

    def set_usage(self, parts: Sequence[RunRows]) -> None:
        """Set the usage of silent runs in their seals. The requests of runs that go on are counted, because their
        messages are dropped with the commit. Never raises."""
        for rows in parts if self._is_on else ():
            try:
                self._set(rows)
            except Exception:  # a bug, or a message of an unknown form
                if not self._has_failed:
                    self._has_failed = True
                    log.exception(
                        "The usage of run %s is not estimated; recording goes on", rows.start.run_id
                    )

    def _set(self, rows: RunRows) -> None:
        start, seal = rows.start, rows.seal
        if start.is_step:
            return
        if seal is None or seal.end.status == STREAMING:
            if rows.opens:
                start.sent_tokens = _sent(start)
            return
        if not needs_estimate(start.wire, seal.end) or self._has_vocabulary(start, seal.end):
            return
        if (found := _estimated(start, seal.end)) is not None:
            seal.end = found

    def _has_vocabulary(self, start: RunStart, end: RunEnd) -> bool:
        model = end.response_model or start.request_model
        if model not in self._vocabularies:
            if len(self._vocabularies) > _MOST_MODELS:  # a gateway may name each response's model anew
                self._vocabularies.clear()
            self._vocabularies[model] = model is not None and has_local_encoding(model)
        return self._vocabularies[model]


def _sent(start: RunStart) -> int | None:
    """The tokens of the request; None where its messages are not here."""
    if not start.messages:
        return start.sent_tokens
    request = loads(start.request) if start.request else None
    return input_tokens(start.messages, schemas_in(request), rule_of_thumb)


def _estimated(start: RunStart, end: RunEnd) -> RunEnd | None:
    """The end with its usage; None if it is not known what was sent or what arrived."""
    sent = end.input_tokens if is_partial(start.wire, end) else _sent(start)
    if sent is None or not end.replies:
        return None
    made = max(generated_tokens(end.replies, rule_of_thumb), end.output_tokens or 0)
    return replace(
        end, input_tokens=sent, output_tokens=made, total_tokens=sent + made, usage_source=ESTIMATED_USAGE
    )
