"""Requests of all providers have the same parameters."""

from __future__ import annotations

from typing import Any

import pytest

from recorder.export.otel.request_parameters import parameters_of


@pytest.mark.parametrize(
    ("request_", "found"),
    [
        ({"temperature": 1, "max_tokens": 5, "top_p": 0.5, "stop": "END", "seed": 7, "n": 2},
         {"temperature": 1.0, "max_tokens": 5, "top_p": 0.5, "stop": ["END"], "seed": 7, "choices": 2}),
        ({"max_tokens": 5, "stop_sequences": ["A", "B"], "top_k": 40},
         {"max_tokens": 5, "stop": ["A", "B"], "top_k": 40}),
        ({"max_output_tokens": 5, "reasoning": {"effort": "low"}, "previous_response_id": "r1"},
         {"max_tokens": 5, "reasoning": "low", "previous_response": "r1"}),
        ({"generationConfig": {"topP": 0.1, "topK": 3.0, "maxOutputTokens": 9, "responseMimeType": "application/json"}},
         {"top_p": 0.1, "top_k": 3, "max_tokens": 9, "output_type": "json"}),
        ({"options": {"num_predict": 4, "temperature": 0.2}, "format": "json"},
         {"max_tokens": 4, "temperature": 0.2, "output_type": "json"}),
        ({"response_format": {"type": "json_schema"}, "n": 1}, {"output_type": "json"}),
        ({"temperature": "hot", "max_tokens": True, "top_p": float("inf"), "seed": 2**70, "stop": [1], "n": [],
          "reasoning": {"effort": {}}, "response_format": {"type": 3}, "options": "none"}, {}),
        ({}, {}),
    ],
    ids=["chat", "anthropic", "responses", "gemini", "ollama", "schema", "rubbish", "empty"],
)  # fmt: skip
def test_parameters_are_found_by_all_their_names(request_: dict[str, Any], found: dict[str, Any]) -> None:
    """What is no parameter of the right type is left out."""
    assert parameters_of(request_) == {f"request.{key}": value for key, value in found.items()}
