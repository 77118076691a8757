"""The names of OpenTelemetry's GenAI conventions in each of their versions: the only table of them.

https://github.com/open-telemetry/semantic-conventions/tree/v1.41.0/docs/gen-ai and, since then,
https://github.com/open-telemetry/semantic-conventions-genai
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from recorder.errors import ConfigError

#: The versions, oldest first. "genai-0.1" is 0.1.0 of the repository of their own that the conventions have now.
VERSIONS = ("1.36", "1.37", "1.38", "1.40", "1.41", "genai-0.1")
#: The newest version of the shared conventions, which most backends read.
DEFAULT = "1.41"

#: What is exported -> its names, each with the first version that has it. None: the name is gone.
_NAMES: Mapping[str, tuple[tuple[str, str | None], ...]] = {
    # spans
    "operation": (("1.36", "gen_ai.operation.name"),),
    "provider": (("1.36", "gen_ai.system"), ("1.37", "gen_ai.provider.name")),
    "conversation": (("1.36", "gen_ai.conversation.id"),),
    "error": (("1.36", "error.type"),),
    "request.model": (("1.36", "gen_ai.request.model"),),
    "request.stream": (("1.41", "gen_ai.request.stream"),),
    "request.temperature": (("1.36", "gen_ai.request.temperature"),),
    "request.top_p": (("1.36", "gen_ai.request.top_p"),),
    "request.top_k": (("1.36", "gen_ai.request.top_k"),),
    "request.max_tokens": (("1.36", "gen_ai.request.max_tokens"),),
    "request.frequency_penalty": (("1.36", "gen_ai.request.frequency_penalty"),),
    "request.presence_penalty": (("1.36", "gen_ai.request.presence_penalty"),),
    "request.seed": (("1.36", "gen_ai.request.seed"),),
    "request.choices": (("1.36", "gen_ai.request.choice.count"),),
    "request.stop": (("1.36", "gen_ai.request.stop_sequences"),),
    "request.output_type": (("1.36", "gen_ai.output.type"),),
    "request.reasoning": (("genai-0.1", "gen_ai.request.reasoning.level"),),
    "request.previous_response": (("genai-0.1", "gen_ai.request.previous_response.id"),),
    "response.id": (("1.36", "gen_ai.response.id"),),
    "response.model": (("1.36", "gen_ai.response.model"),),
    "response.finish_reasons": (("1.36", "gen_ai.response.finish_reasons"),),
    "response.first_chunk": (("1.41", "gen_ai.response.time_to_first_chunk"),),
    "usage.input": (("1.36", "gen_ai.usage.input_tokens"),),
    "usage.output": (("1.36", "gen_ai.usage.output_tokens"),),
    "usage.cache_read": (("1.40", "gen_ai.usage.cache_read.input_tokens"),),
    "usage.cache_write": (
        ("1.40", "gen_ai.usage.cache_creation.input_tokens"),
        ("genai-0.1", "gen_ai.usage.cache_write.input_tokens"),
    ),
    "usage.reasoning": (("1.41", "gen_ai.usage.reasoning.output_tokens"),),
    "tool.name": (("1.36", "gen_ai.tool.name"),),
    # content, on spans
    "content.input": (("1.37", "gen_ai.input.messages"),),
    "content.output": (("1.37", "gen_ai.output.messages"),),
    "content.instructions": (("1.37", "gen_ai.system_instructions"),),
    "content.tool_arguments": (("1.38", "gen_ai.tool.call.arguments"),),
    "content.tool_result": (("1.38", "gen_ai.tool.call.result"),),
    "content.query": (("1.40", "gen_ai.retrieval.query.text"),),
    # evaluations
    "event.evaluation": (("1.38", "gen_ai.evaluation.result"),),
    "evaluation.name": (("1.38", "gen_ai.evaluation.name"),),
    "evaluation.label": (("1.38", "gen_ai.evaluation.score.label"),),
    "evaluation.score": (("1.38", "gen_ai.evaluation.score.value"),),
    "evaluation.explanation": (("1.38", "gen_ai.evaluation.explanation"),),
    # metrics
    "metric.duration": (
        ("1.36", "gen_ai.client.operation.duration"),
        ("genai-0.1", "gen_ai.client.inference.duration"),
    ),
    "metric.first_chunk": (
        ("1.41", "gen_ai.client.operation.time_to_first_chunk"),
        ("genai-0.1", "gen_ai.client.inference.time_to_first_chunk"),
    ),
    "metric.per_chunk": (
        ("1.41", "gen_ai.client.operation.time_per_output_chunk"),
        ("genai-0.1", "gen_ai.client.inference.time_per_output_chunk"),
    ),
    "metric.usage": (("1.36", "gen_ai.client.token.usage"), ("genai-0.1", None)),
    "metric.usage.input": (("genai-0.1", "gen_ai.client.inference.usage.input_tokens"),),
    "metric.usage.output": (("genai-0.1", "gen_ai.client.inference.usage.output_tokens"),),
    "metric.usage.cache_read": (("genai-0.1", "gen_ai.client.inference.usage.cache_read.input_tokens"),),
    "metric.usage.cache_write": (("genai-0.1", "gen_ai.client.inference.usage.cache_write.input_tokens"),),
    "metric.usage.reasoning": (("genai-0.1", "gen_ai.client.inference.usage.reasoning.output_tokens"),),
    "token.type": (("1.36", "gen_ai.token.type"), ("genai-0.1", None)),
    # recorder's own, in every version
    "run": (("1.36", "recorder.run.id"),),
    "attempt": (("1.36", "recorder.run.attempt"),),
    "status": (("1.36", "recorder.run.status"),),
    "step": (("1.36", "recorder.step.name"),),
    "annotation": (("1.36", "recorder.annotation.id"),),
}

#: The provider in recorder's and LangChain's words -> in the conventions' words. Other words stay as they are.
PROVIDERS: Mapping[str, str] = {
    "amazon_bedrock": "aws.bedrock",
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "bedrock_converse": "aws.bedrock",
    "gemini": "gcp.gemini",
    "google_genai": "gcp.gemini",
    "google_vertexai": "gcp.vertex_ai",
    "ibm": "ibm.watsonx.ai",
    "mistral": "mistral_ai",
    "mistralai": "mistral_ai",
    "moonshot": "moonshot_ai",
    "xai": "x_ai",
}
#: The first part of a wire format -> the provider whose format it is, if nothing names the provider.
PROVIDERS_BY_WIRE: Mapping[str, str] = {
    "openai": "openai",
    "anthropic": "anthropic",
    "gemini": "gcp.gemini",
    "ollama": "ollama",
}

#: The boundaries of the histograms that the conventions ask for: of times (seconds) and of counts of tokens.
SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKENS = tuple(4**exponent for exponent in range(14))


@dataclass(frozen=True, slots=True)
class Conventions:
    """One version of the names."""

    version: str
    schema_url: str
    #: As in `_NAMES`. A name that this version does not have is missing.
    names: Mapping[str, str]

    def named(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values under the names of this version, without None and without what this version has no name for."""
        names = self.names
        return {names[key]: value for key, value in values.items() if value is not None and key in names}


@cache
def conventions_of(version: str) -> Conventions:
    """The names of a version. Raises `ConfigError` for an unknown one."""
    if version not in VERSIONS:
        raise ConfigError(f"conventions is {version!r}; choose one of {', '.join(VERSIONS)}")
    number = version.removeprefix("genai-")
    path = f"gen-ai/{number}" if version != number else number
    return Conventions(version, f"https://opentelemetry.io/schemas/{path}.0", _names_in(version))


def check_content(conventions: Conventions) -> None:
    """Raise `ConfigError` if this version has no attributes for the content of messages."""
    if "content.input" not in conventions.names:
        raise ConfigError(
            f"Version {conventions.version} of the conventions has no attributes for messages; choose 1.37 or later, "
            "or leave content out"
        )


def _names_in(version: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, names in _NAMES.items():
        newest = [name for since, name in names if VERSIONS.index(since) <= VERSIONS.index(version)]
        if newest and newest[-1] is not None:
            found[key] = newest[-1]
    return found
