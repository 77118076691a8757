"""The parameters of a request, whatever its wire format calls them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from recorder.export.otel.span_texts import short

#: Where Gemini and Ollama put them.
_INSIDE = ("generationConfig", "generation_config", "config", "options")
_MAX_STOPS = 16
_MAX_INT = 2**63 - 1


def parameters_of(request: Mapping[str, Any]) -> dict[str, Any]:
    """Key in the table of names -> value, for what the request has."""
    places = [request, *(inner for key in _INSIDE if isinstance(inner := request.get(key), Mapping))]
    found: dict[str, Any] = {}
    for name, (read, keys) in _READERS.items():
        value = _first(places, keys)
        if value is not None and (converted := read(value)) is not None:
            found[name] = converted
    if found.get("request.choices") == 1:
        del found["request.choices"]
    return found


def _first(places: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> Any:
    for place in places:
        for key in keys:
            if (value := place.get(key)) is not None:
                return value
    return None


def _number(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and abs(value) < 1e300 else None


def _count(value: Any) -> int | None:
    is_whole = type(value) is int or (type(value) is float and value.is_integer())
    return int(value) if is_whole and abs(value) <= _MAX_INT else None


def _stops(value: Any) -> list[str] | None:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list):
        return None
    return [short(stop) or "" for stop in stops[:_MAX_STOPS] if isinstance(stop, str)] or None


def _effort(value: Any) -> str | None:
    found = value.get("effort") if isinstance(value, Mapping) else value
    return short(found) if isinstance(found, str) else None


def _text(value: Any) -> str | None:
    return short(value) if isinstance(value, str) else None


def _output_type(value: Any) -> str | None:
    kind = value.get("type") if isinstance(value, Mapping) else value
    if not isinstance(kind, str):
        return None
    return "json" if "json" in kind else "text" if kind.startswith("text") else None


#: Key in the table of names -> how the value is read, and its keys in the requests of all providers.
_READERS: Mapping[str, tuple[Callable[[Any], Any], tuple[str, ...]]] = {
    "request.temperature": (_number, ("temperature",)),
    "request.top_p": (_number, ("top_p", "topP")),
    "request.top_k": (_count, ("top_k", "topK")),
    "request.max_tokens": (
        _count,
        ("max_tokens", "max_completion_tokens", "max_output_tokens", "maxOutputTokens", "num_predict"),
    ),
    "request.frequency_penalty": (_number, ("frequency_penalty", "frequencyPenalty")),
    "request.presence_penalty": (_number, ("presence_penalty", "presencePenalty")),
    "request.seed": (_count, ("seed",)),
    "request.choices": (_count, ("n", "candidateCount")),
    "request.stop": (_stops, ("stop", "stop_sequences", "stopSequences")),
    "request.output_type": (_output_type, ("response_format", "format", "responseMimeType")),
    "request.reasoning": (_effort, ("reasoning_effort", "reasoning")),
    "request.previous_response": (_text, ("previous_response_id",)),
}
