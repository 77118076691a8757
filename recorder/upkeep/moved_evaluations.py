"""Evaluations of a text that was redacted: they belong to its new message, and sentences stand at other places.

The id of an analyzer's annotation follows from the message and the place. So it gets the id that the redacted text has,
and `recorder analyze` finds that nothing is to be done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from sqlalchemy import Executable, delete, insert

from recorder.analysis.analyzers import SENTENCE
from recorder.analysis.annotations import annotation_id
from recorder.analysis.texts import AnalyzedText
from recorder.core.escaping import unescape
from recorder.core.json import dumps, loads
from recorder.redaction.redaction import MatchCounts, Redaction
from recorder.storage import schema


class _Text(NamedTuple):
    """A text before and after its redaction."""

    before: str
    after: str


class MovedEvaluations:
    """Moves the annotations of messages that have new ids, and those of sentences in texts that changed."""

    def __init__(self, ids: Mapping[str, str], redaction: Redaction) -> None:
        """`ids` are the old and new ids of messages."""
        self._ids, self._redaction = ids, redaction
        # By the id of the message, or by a run and the number of its reply.
        self._texts: dict[object, _Text] = {}

    def add(self, key: object, before: str, after: str) -> None:
        """Add a text, by the old id of its message, or by the id of its run and the number of the reply."""
        self._texts.setdefault(key, _Text(before, after))

    def add_reply(self, run_id: str, choice: int, message_id: str) -> None:
        """This message is a reply of the run: sentences that streamed name the run only."""
        if (text := self._texts.get(message_id)) is not None:
            self._texts.setdefault((run_id, choice), text)

    def forget_texts(self) -> None:
        """The sentences were moved: do not move them again."""
        self._texts.clear()

    def statements(self, rows: Sequence[Any]) -> Iterator[Executable]:
        """What moves those of these annotations that change. Of two that become the same one is left."""
        stays = {(row.run_id, row.id) for row in rows}
        changes = [(row, new) for row in rows if (new := self._moved(row)) != row._asdict()]
        for row, _ in changes:
            stays.remove((row.run_id, row.id))
            is_it = schema.annotations.c.run_id == row.run_id, schema.annotations.c.id == row.id
            yield delete(schema.annotations).where(*is_it)
        for _, new in changes:
            if new is not None and (key := (new["run_id"], new["id"])) not in stays:
                stays.add(key)
                yield insert(schema.annotations).values(new)

    def _moved(self, row: Any) -> dict[str, Any] | None:
        """The annotation as it is after the redaction; None if its sentence is no sentence any more."""
        names = ("message_id",) if row.conversation_id is None else ("message_id", "run_id")
        values: dict[str, Any] = row._asdict()
        values |= {name: self._ids.get(values[name], values[name]) for name in names}
        data = loads(row.data) if row.data else {}
        if not _is_of_analyzer(row, data):
            return values
        if "start" in data:
            places = self._places(row, data)
            if places is None:
                return None
            if places != (data["start"], data["end"]):
                data["start"], data["end"] = places
                values["data"] = dumps(data)
        values["id"] = _id_of(values, data)
        return values

    def _places(self, row: Any, data: Mapping[str, Any]) -> tuple[int, int] | None:
        """Where the sentence is now; None if a match reached over one of its ends."""
        start, end = data["start"], data["end"]
        key = row.message_id if row.message_id is not None else (row.run_id, data.get("choice", 0))
        text = self._texts.get(key)
        if text is None or text.before == text.after:
            return start, end
        bounds = sorted({0, start, end, len(text.before)})
        counts = MatchCounts(self._redaction)
        pieces = [self._redaction.text(text.before[low:high], counts) for low, high in pairwise(bounds)]
        if "".join(pieces) != text.after:
            return None
        moved = dict(zip(bounds, accumulate(map(len, pieces), initial=0), strict=True))
        return moved[start], moved[end]


def _is_of_analyzer(row: Any, data: Any) -> bool:
    """Whether an analyzer has made it: then its id follows from its place. Others are the application's."""
    return isinstance(data, dict) and "version" in data and _id_of(row._asdict(), data) == row.id


def _id_of(values: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    name, is_sentence = unescape(values["name"]), "start" in data
    text = AnalyzedText(
        "", "", "", values["run_id"], values["message_id"], is_sentence, data.get("choice", 0), data.get("start", 0),
        data.get("end", 0),
    )  # fmt: skip
    return annotation_id(
        text, name.removesuffix(SENTENCE) if is_sentence else name, unescape(str(data["version"]))
    )
