"""Reads the parts of Gemini's contents, in answers and in the replies that clients send back.

Both are read by the same code, so that a reply which comes back means the same as the recorded one.
https://ai.google.dev/api/caching#Part
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from recorder.core.json import dumps
from recorder.wire.deltas import OTHER, REASONING, SIGNATURE, TEXT, TOOL_ARGS, TOOL_CALL, Delta, as_text

#: The key of an `other` delta with the parts that are neither text nor calls: code, its results, images, files.
PARTS = "parts"
#: The keys of a part that become deltas of their own kinds.
_READ = frozenset(("text", "thought", "functionCall", "thoughtSignature"))
_CALL_KEYS = frozenset(("id", "name", "args"))
_UNDERSCORE = re.compile(r"_([a-z])")


class PartReader:
    """Makes deltas of the parts of one response. Calls are numbered in the order in which they come."""

    def __init__(self) -> None:
        #: idx of a candidate -> the number of its calls.
        self._calls: dict[str, int] = {}

    def read(self, part: Any, idx: str, deltas: list[Delta]) -> None:
        """Adds the deltas of a part of the candidate with this idx. A part that is no object becomes `other`."""
        if not isinstance(part, Mapping):
            deltas.append(_other(part, idx))
            return
        part, before = camel_keys(part), len(deltas)
        rest = {key: value for key, value in part.items() if key not in _READ and value is not None}
        rest |= self._text(part, idx, deltas)
        rest |= self._call(part, idx, deltas)
        if rest:
            deltas.append(_other(rest, idx))
        if signature := part.get("thoughtSignature"):
            signed = deltas[before].idx if len(deltas) > before else idx
            deltas.append(Delta(as_text(signature), SIGNATURE, signed))

    def _text(self, part: Mapping[str, Any], idx: str, deltas: list[Delta]) -> dict[str, Any]:
        """Adds the text. Returns what stands in its place."""
        text = part.get("text")
        if not isinstance(text, str):
            return {} if text is None else {"text": text}
        if text:
            deltas.append(Delta(text, REASONING if part.get("thought") is True else TEXT, idx))
        return {}

    def _call(self, part: Mapping[str, Any], idx: str, deltas: list[Delta]) -> dict[str, Any]:
        """Adds the call. Returns what stands in its place: pieces of arguments, which Vertex sends on request."""
        call = part.get("functionCall")
        if call is None or call == {}:
            return {}
        if not isinstance(call, Mapping) or not call.get("name"):
            return {"functionCall": call}
        number = self._calls.get(idx, 0)
        self._calls[idx] = number + 1
        place = f"{idx}.{number}"
        more = {key: value for key, value in call.items() if key not in _CALL_KEYS and value is not None}
        fields = {"id": call.get("id"), "name": as_text(call["name"]), **more}
        deltas.append(Delta(dumps(fields), TOOL_CALL, place))
        if args := call.get("args"):
            deltas.append(Delta(as_text(args), TOOL_ARGS, place))
        return {}


def parts_of(content: Any) -> Sequence[Any]:
    """The parts of a content. The API also accepts one part without a list, and some clients send only a text."""
    parts = content.get("parts") if isinstance(content, Mapping) else content
    if parts is None:
        return ()
    found = parts if isinstance(parts, list) else [parts]
    return [{"text": part} if isinstance(part, str) else part for part in found]


def camel_keys(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields under the names that the API answers with; it accepts `inline_data` for `inlineData`, too."""
    return {
        _UNDERSCORE.sub(lambda found: found[1].upper(), key) if "_" in key else key: value
        for key, value in fields.items()
    }


def _other(part: Any, idx: str) -> Delta:
    return Delta(dumps({PARTS: [part]}), OTHER, idx)
