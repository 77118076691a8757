"""Annotations as events `gen_ai.evaluation.result`: log records in the span of the run that was evaluated."""

from __future__ import annotations

from typing import Any

from recorder.core.escaping import unescape
from recorder.core.version import VERSION
from recorder.export.otel.attributes import nanoseconds
from recorder.export.otel.conventions import Conventions
from recorder.export.otel.framework import SCOPE, LogRecord, SpanContext, context_of
from recorder.export.otel.span_texts import short
from recorder.export.otel.traced_run import json_object
from recorder.storage.rows import AnnotationRow

#: Keys in the data of an annotation under which a text explains the result.
_EXPLANATIONS = ("explanation", "comment", "reason")


class Evaluations:
    """The events of one logger provider."""

    def __init__(self, logger_provider: Any, conventions: Conventions, *, content: bool) -> None:
        self._logger = logger_provider.get_logger(SCOPE, VERSION, schema_url=conventions.schema_url)
        self._conventions, self._content = conventions, content

    def emit(self, row: AnnotationRow, span: SpanContext | None) -> bool:
        """Emit the event of an annotation. False if this version of the conventions has no such event."""
        name = self._conventions.names.get("event.evaluation")
        if name is None:
            return False
        moment = nanoseconds(row.created_at)
        record = LogRecord(
            timestamp=moment,
            observed_timestamp=moment,
            context=context_of(span),
            event_name=name,
            attributes=self._attributes(row),
        )
        self._logger.emit(record)
        return True

    def _attributes(self, row: AnnotationRow) -> dict[str, Any]:
        data = json_object(row.data) if self._content else {}
        explanation = next((data[key] for key in _EXPLANATIONS if isinstance(data.get(key), str)), None)
        return self._conventions.named(
            {
                "evaluation.name": short(unescape(row.name)),
                "evaluation.label": short(unescape(row.label)) if row.label is not None else None,
                "evaluation.score": row.score,
                "evaluation.explanation": short(explanation),
                "annotation": row.id,
                "run": row.run_id if row.conversation_id is None else None,
            }
        )
