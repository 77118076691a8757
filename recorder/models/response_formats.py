"""The options of providers that make the model answer in a schema: OpenAI's `response_format`, Anthropic's `format`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recorder.errors import ConfigError
from recorder.models.json_schemas import class_schema, is_pydantic_class
from recorder.models.tools import openai_function


def response_format_of(schema: Any, strict: bool | None = None) -> dict[str, Any]:
    """OpenAI's `response_format` for a schema. A Pydantic class is strict, unless `strict` is False.

    The schema may also be a TypedDict, a JSON schema with a title, or a dict in OpenAI's form. Raises `ConfigError`
    for anything else, and for two values of `strict`.
    """
    if is_pydantic_class(schema):
        return _wrapped(_strict_class(schema) if strict is not False else _class(schema))
    if isinstance(schema, Mapping) and schema.get("type") == "json_schema" and "json_schema" in schema:
        return _agreeing(dict(schema), strict)
    if isinstance(schema, Mapping) and "name" in schema and "schema" in schema:
        return _agreeing(_wrapped(dict(schema)), strict)
    given = schema.get("strict") if isinstance(schema, Mapping) else None
    chosen = strict if strict is not None else given if isinstance(given, bool) else False
    function = openai_function(schema, chosen)
    parameters = function.pop("parameters", {"type": "object", "properties": {}})
    return _wrapped({**function, "schema": parameters})


def response_format_for_tools(schema: Any, strict: bool | None) -> dict[str, Any]:
    """The `response_format` of a request with tools. A dict in OpenAI's form has its own `strict`, as in LangChain."""
    inner = schema.get("json_schema") if isinstance(schema, Mapping) else None
    if isinstance(inner, Mapping) and "schema" in inner:
        return response_format_of(inner["schema"], inner.get("strict"))
    return response_format_of(schema, strict)


def anthropic_format_of(schema: Any) -> dict[str, Any]:
    """Anthropic's `output_config["format"]` for a schema. The SDK leaves out what the API does not support.

    Raises `ConfigError` for what has no schema.
    """
    from anthropic import transform_schema

    if not is_pydantic_class(schema):
        schema = _json_schema(schema)
    return {"type": "json_schema", "schema": transform_schema(schema)}


def _json_schema(schema: Any) -> dict[str, Any]:
    """The JSON schema for a schema of any form."""
    if (
        isinstance(schema, Mapping)
        and ("type" in schema or "properties" in schema)
        and "function" not in schema
    ):
        return dict(schema)
    function = openai_function(schema)
    about = {"description": function["description"]} if "description" in function else {}
    return {"title": function["name"], **about, **function.get("parameters", {})}


def _wrapped(inner: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": inner}


def _class(schema: Any) -> dict[str, Any]:
    return {"name": schema.__name__, "schema": class_schema(schema), "strict": False}


def _strict_class(schema: Any) -> dict[str, Any]:
    """The schema of a Pydantic class as the SDK sends it. The SDK knows which schemas strict mode accepts."""
    import openai

    try:
        tool = openai.pydantic_function_tool(schema)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{schema.__name__} has no strict JSON schema: {error}; pass strict=False or method='function_calling'"
        ) from error
    return {"name": schema.__name__, "schema": tool["function"]["parameters"], "strict": True}


def _agreeing(found: dict[str, Any], strict: bool | None) -> dict[str, Any]:
    """The format. Raises `ConfigError` if its `strict` is another one than the argument."""
    given = found["json_schema"].get("strict")
    if strict is not None and given is not None and strict is not given:
        raise ConfigError(
            f"The schema has strict={given}, but strict={strict} was passed; leave out one of them"
        )
    return found
