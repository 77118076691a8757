"""The rows of evaluations. An evaluation that is made again has the same id, so it is stored once."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID, uuid5

from recorder.analysis.analyzers import SENTENCE
from recorder.analysis.evaluation import Evaluation
from recorder.analysis.texts import AnalyzedText
from recorder.core.escaping import escape
from recorder.redaction.masking import Mask
from recorder.storage.rows import AnnotationRow

_NAMESPACE = UUID("6f1b7a52-6d0e-5c1f-9a34-5b7c1f0e8d21")


def annotation_id(text: AnalyzedText, name: str, version: str) -> str:
    """The id of what this version of an analyzer says about this text."""
    return str(uuid5(_NAMESPACE, "\n".join((text.owner_id, name, version, text.place))))


def annotation_of(
    text: AnalyzedText, name: str, version: str, evaluation: Evaluation, moment: datetime
) -> AnnotationRow:
    """The row of an evaluation. `data` has the analyzer's version, and the place of a sentence in its message."""
    return AnnotationRow(
        run_id=text.owner_id,
        id=annotation_id(text, name, version),
        message_id=text.message_id,
        name=escape(name + (SENTENCE if text.is_sentence else "")),
        label=escape(evaluation.label) if evaluation.label is not None else None,
        score=evaluation.score,
        data=Mask().json({**(evaluation.data or {}), "version": version, **_place(text)}, "data"),
        created_at=moment,
        conversation_id=escape(text.conversation_id) if text.run_id is None else None,
    )


def _place(text: AnalyzedText) -> dict[str, int]:
    if not text.is_sentence:
        return {}
    return {"start": text.start, "end": text.end, **({"choice": text.choice} if text.choice else {})}
