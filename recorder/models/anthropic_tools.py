"""Translates tools and `tool_choice` into Anthropic's form."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from recorder.errors import ConfigError
from recorder.models.tools import openai_function, tool_extras
from recorder.redaction.credentials import shown

#: Type of a tool -> the beta that the API requires for it. LangChain sends these betas, too.
_BETAS = {
    "web_fetch_20250910": "web-fetch-2025-09-10",
    "code_execution_20250522": "code-execution-2025-05-22",
    "mcp_toolset": "mcp-client-2025-11-20",
    "memory_20250818": "context-management-2025-06-27",
    "computer_20250124": "computer-use-2025-01-24",
    "computer_20251124": "computer-use-2025-11-24",
    "tool_search_tool_regex_20251119": "advanced-tool-use-2025-11-20",
    "tool_search_tool_bm25_20251119": "advanced-tool-use-2025-11-20",
    "advisor_20260301": "advisor-tool-2026-03-01",
}
_MCP_BETA = "mcp-client-2025-11-20"
_NO_PARAMETERS = {"type": "object", "properties": {}}
#: Settings in `extras` of LangChain's tools that Anthropic has.
_EXTRAS = frozenset(
    ("allowed_callers", "cache_control", "defer_loading", "eager_input_streaming", "input_examples")
)
_CHOICES = {"any": "any", "required": "any", "auto": "auto", "none": "none"}


def anthropic_tool(tool: Any, strict: bool | None = None) -> dict[str, Any]:
    """One tool in the API's form. Raises `ConfigError` if it is not a tool."""
    extras = tool_extras(tool)
    if isinstance(definition := extras.get("provider_tool_definition"), Mapping):
        return dict(definition)
    if isinstance(tool, Mapping) and _is_anthropics(tool):
        found = dict(tool)
        return found | ({"strict": strict} if strict is not None and "input_schema" in found else {})
    return {
        **_from_function(openai_function(tool, strict)),
        **{key: extras[key] for key in _EXTRAS & extras.keys()},
    }


def _is_anthropics(tool: Mapping[str, Any]) -> bool:
    """Whether a dict has Anthropic's form: its own tools have a type, functions have `input_schema`."""
    return "input_schema" in tool or tool.get("type", "function") not in ("function", "object")


def _from_function(function: Mapping[str, Any]) -> dict[str, Any]:
    """The tool for a function in OpenAI's form."""
    found = {"name": function["name"], "input_schema": function.get("parameters", _NO_PARAMETERS)}
    return found | {key: function[key] for key in ("description", "strict") if function.get(key) is not None}


def anthropic_choice(choice: Any, parallel: bool | None, *, thinking: bool) -> dict[str, Any] | None:
    """`tool_choice` in the API's form. The choice is a tool's name, LangChain's or OpenAI's value, or the API's dict.

    The API does not allow forcing a tool while thinking is on: then this warns and drops the choice.
    """
    found = _choice(choice)
    if thinking and found and found["type"] in ("any", "tool"):
        warnings.warn(
            f"tool_choice={shown(choice)} was dropped, because the API does not allow forcing a tool while thinking "
            "is on",
            stacklevel=3,
        )
        found = None
    if parallel is not None:
        found = {**(found or {"type": "auto"}), "disable_parallel_tool_use": not parallel}
    return found


def _choice(choice: Any) -> dict[str, Any] | None:
    if choice is True:
        return {"type": "any"}
    if not choice:
        return None
    if isinstance(choice, str):
        return {"type": _CHOICES[choice]} if choice in _CHOICES else {"type": "tool", "name": choice}
    if isinstance(choice, Mapping) and isinstance(choice.get("function"), Mapping):
        return {"type": "tool", "name": choice["function"].get("name")}
    if isinstance(choice, Mapping):
        return dict(choice)
    raise ConfigError(f"tool_choice is {shown(choice)}; pass a tool's name, 'auto', 'any', 'none' or a dict")


def betas_of(body: Mapping[str, Any]) -> list[str]:
    """The betas of the caller, and those that the request's tools require."""
    needed = [_BETAS[kind] for tool in _tools(body) if (kind := tool.get("type")) in _BETAS]
    if body.get("mcp_servers"):
        needed.append(_MCP_BETA)
    return list(dict.fromkeys([*(body.get("betas") or ()), *needed]))


def _tools(body: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return [tool for tool in body.get("tools") or () if isinstance(tool, Mapping)]
