"""A provider that does what LangChain's standard tests ask a model to do: it calls the tools, and fills the schemas."""

from __future__ import annotations

import json
import re
from typing import Any

from recorder.testing import Answer, LoopbackProvider, openai_chat_body, openai_chat_frames

#: Values of arguments and of schemas, by their names.
_VALUES: dict[str, Any] = {"input": 3, "a": 1, "b": 2, "location": "San Francisco", "city": "Boston"}


def obliging_provider() -> LoopbackProvider:
    """Return a provider of chat completions."""
    return LoopbackProvider(_answer)


def _answer(request: dict[str, Any], path: str) -> Answer:
    fields = {**_fields(request), "model": request["model"], "prompt_tokens": 8}
    if not request.get("stream"):
        return Answer(body=openai_chat_body(**fields))
    usage = bool((request.get("stream_options") or {}).get("include_usage"))
    return Answer(frames=openai_chat_frames(**fields, usage=usage))


def _fields(request: dict[str, Any]) -> dict[str, Any]:
    """Return the text or the calls of the answer."""
    question = _question(request)
    if schema := (request.get("response_format") or {}).get("json_schema"):
        return {"pieces": [json.dumps(_filled(schema["schema"], question))]}
    if request.get("response_format"):
        return {"pieces": [json.dumps(dict.fromkeys(("setup", "punchline"), "Why?"))]}
    if request.get("tools") and request["messages"][-1]["role"] == "user":
        return {
            "pieces": [],
            "tool_calls": [_call(tool["function"], question) for tool in request["tools"][:1]],
        }
    return {"pieces": ["It ", "is ", "fine."]}


def _question(request: dict[str, Any]) -> str:
    return str(request["messages"][-1].get("content"))


def _call(function: dict[str, Any], question: str) -> dict[str, Any]:
    arguments = json.dumps(_filled(function["parameters"], question), ensure_ascii=False)
    return {"id": "call_1", "name": function["name"], "arguments": arguments}


def _filled(schema: dict[str, Any], question: str) -> dict[str, Any]:
    quoted = re.findall("'([^']*)'", question)
    return {
        name: _VALUES.get(name, (quoted or ["Why?"])[0])
        for name in schema.get("properties", {})
        if name in schema.get("required", [name])
    }
