"""Translates tools and `tool_choice` into Anthropic's form."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from recorder.errors import ConfigError
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
_FORMS = (
    "{'name': ..., 'description': ..., 'input_schema': {...}}, a tool of Anthropic with its 'type', or "
    "OpenAI's {'type': 'function', 'function': {...}}"
)
_CHOICES = {"any": "any", "required": "any", "auto": "auto", "none": "none"}


def anthropic_tool(tool: Any, strict: bool | None = None) -> dict[str, Any]:
    """One tool in the API's form. Raises `ConfigError` if it is not a tool."""
    if not isinstance(tool, Mapping):
        raise ConfigError(f"bind_tools got {shown(tool)}; pass dicts: {_FORMS}")
    function = tool.get("function") if tool.get("type") == "function" else tool
    if isinstance(function, Mapping) and "name" in function and "parameters" in function:
        found = {"name": function["name"], "input_schema": function["parameters"]}
        found |= {key: function[key] for key in ("description", "strict") if function.get(key) is not None}
    elif "input_schema" in tool or (tool.get("type") and tool["type"] != "function"):
        found = dict(tool)
    else:
        raise ConfigError(f"bind_tools got {shown(dict(tool))}, which is not a tool; pass {_FORMS}")
    if strict is not None and "input_schema" in found:
        found["strict"] = strict
    return found


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
