"""Tools in OpenAI's form, from dicts, functions, Pydantic classes, TypedDicts and LangChain's tools."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from recorder.errors import ConfigError
from recorder.models.json_schemas import (
    class_schema,
    function_schema,
    is_pydantic_class,
    is_typed_dict,
    strict_schema,
    typed_dict_schema,
    without_titles,
)
from recorder.redaction.credentials import shown

_FORMS = (
    "a function, a Pydantic class, a TypedDict, a tool of LangChain, or a dict: "
    "{'type': 'function', 'function': {'name': ..., 'parameters': ...}}, "
    "{'name': ..., 'input_schema': ...} or a JSON schema with a title"
)
#: Keys of a function in OpenAI's form.
_FUNCTION_KEYS = ("name", "description", "parameters", "strict")
#: Settings in `extras` of LangChain's tools that OpenAI has.
_OPENAI_EXTRAS = ("defer_loading", "async")


def openai_tool(tool: Any, strict: bool | None = None) -> dict[str, Any]:
    """A tool in OpenAI's form. A dict with a `type` is returned as it is. Raises `ConfigError` if it is not a tool."""
    if isinstance(tool, Mapping) and tool.get("type", "object") != "object":
        return dict(tool)
    if custom := _custom_tool(tool):
        return custom
    found = {"type": "function", "function": openai_function(tool, strict)}
    extras = tool_extras(tool)
    return {**found, **{key: extras[key] for key in _OPENAI_EXTRAS if key in extras}}


def openai_function(tool: Any, strict: bool | None = None) -> dict[str, Any]:
    """The name, the description and the parameters of a tool. Raises `ConfigError` if it is not a tool.

    With `strict=True` all parameters are required, and there are no others.
    """
    found = _function(tool)
    if strict is None:
        return found
    if found.get("strict", strict) != strict:
        raise ConfigError(f"The tool {found['name']} has strict={found['strict']}; leave out strict={strict}")
    parameters = found.get("parameters", {"type": "object", "properties": {}})
    return {**found, "strict": strict, "parameters": strict_schema(parameters) if strict else parameters}


def tool_extras(tool: Any) -> Mapping[str, Any]:
    """The settings for a provider that a tool of LangChain has in `extras`."""
    extras = getattr(tool, "extras", None) if _is_langchain_tool(tool) else None
    return extras if isinstance(extras, Mapping) else {}


def openai_choice(choice: Any, tools: Sequence[Mapping[str, Any]]) -> Any:
    """`tool_choice` in OpenAI's form. It may be the name of one of these tools, or the type of one."""
    kinds = {_name(tool) or tool.get("type"): tool.get("type", "function") for tool in tools}
    if isinstance(choice, str) and choice in kinds:
        kind = kinds[choice]
        return {"type": kind, **({kind: {"name": choice}} if kind != choice else {})}
    return "required" if choice is True or choice == "any" else choice


def _name(tool: Mapping[str, Any]) -> Any:
    """The name of a function or a custom tool in either form; None for one of OpenAI's own tools."""
    inner = tool.get(str(tool.get("type")))
    return inner.get("name") if isinstance(inner, Mapping) else tool.get("name")


def _function(tool: Any) -> dict[str, Any]:
    if isinstance(tool, Mapping):
        return _function_of_dict(tool)
    if is_pydantic_class(tool):
        return _described(class_schema(tool))
    if is_typed_dict(tool):
        return _described(typed_dict_schema(tool))
    if _is_langchain_tool(tool):
        return _function_of_langchain_tool(tool)
    if callable(tool) and not isinstance(tool, type):
        return _described(function_schema(_named(tool)))
    raise ConfigError(f"{shown(tool)} is not a tool; pass {_FORMS}")


def _function_of_dict(tool: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(function := tool.get("function"), Mapping):
        return dict(function)
    if "name" in tool and "input_schema" in tool:
        found = {"name": tool["name"], "parameters": tool["input_schema"]}
        return found | {key: tool[key] for key in ("description",) if key in tool}
    if "name" in tool and ("parameters" in tool or "description" in tool):
        return {key: tool[key] for key in _FUNCTION_KEYS if key in tool}
    if "title" in tool:
        return _function_of_schema(tool)
    raise ConfigError(f"{shown(dict(tool))} is not a tool; pass {_FORMS}")


def _function_of_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The function for a JSON schema. Its title is the function's name."""
    found: dict[str, Any] = {"name": schema["title"]}
    if "description" in schema:
        found["description"] = schema["description"]
    parameters = {key: schema[key] for key in schema if key not in ("title", "description")}
    return {**found, "parameters": parameters} if "properties" in parameters else found


def _described(schema: dict[str, Any], name: str = "", description: str = "") -> dict[str, Any]:
    """The function for a schema that Pydantic made."""
    title, text = schema.pop("title", ""), schema.pop("description", "")
    return {
        "name": name or title,
        "description": description or text,
        "parameters": without_titles(schema),
    }


def _named(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function. Raises `ConfigError` if it has no name by which a model could call it."""
    if not getattr(function, "__name__", "").isidentifier():
        raise ConfigError(
            f"{shown(function)} is not a tool, because it has no name; pass a function that `def` made"
        )
    return function


# -- tools of LangChain: recognised by their attributes, because LangChain need not be installed ------------------


def _is_langchain_tool(tool: Any) -> bool:
    return not isinstance(tool, type) and all(
        hasattr(tool, name) for name in ("name", "description", "args_schema")
    )


def _function_of_langchain_tool(tool: Any) -> dict[str, Any]:
    names = {kind.__name__ for kind in type(tool).__mro__}
    if "Tool" in names and not tool.args_schema:
        # LangChain's tools for one text have no schema. They accept it under this name.
        parameters = {"type": "object", "properties": {"__arg1": {"type": "string"}}, "required": ["__arg1"]}
        return {"name": tool.name, "description": tool.description, "parameters": parameters}
    schema = getattr(tool, "tool_call_schema", None) or tool.args_schema
    if is_pydantic_class(schema):
        schema = class_schema(schema)
    if not isinstance(schema, Mapping):
        raise ConfigError(
            f"The tool {tool.name} has the arguments {shown(schema)}; its args_schema must be a Pydantic class or a "
            "JSON schema"
        )
    return _described(dict(schema), tool.name, tool.description)


def _custom_tool(tool: Any) -> dict[str, Any] | None:
    """LangChain's tool for a text in a format of its own, as OpenAI's custom tool. None for any other tool."""
    metadata = getattr(tool, "metadata", None) if _is_langchain_tool(tool) else None
    if not isinstance(metadata, Mapping) or metadata.get("type") != "custom_tool":
        return None
    found = {"type": "custom", "name": tool.name, "description": tool.description}
    return {**found, "format": metadata["format"]} if "format" in metadata else found
