"""Turns the items of OpenAI's Responses API into messages, and messages back into items.

Consecutive items of the model are one message, as in `recorder/wire/openai/responses_request.py`. Items that a message
does not give back exactly are kept beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from recorder.core.json import dumps
from recorder.messages import AIMessage, BaseMessage, ToolMessage
from recorder.wire.openai.responses_items import (
    FUNCTION_CALL,
    MESSAGE,
    REASONING_ITEM,
    item_of_call,
    unwrapped_citation,
)
from recorder.wire.openai.responses_request import responses_messages

Item = dict[str, Any]

#: The key of `additional_kwargs` with the items of a message that gives them not back exactly.
ITEMS = "items"
#: OpenAI Agents gives this id to items that have none, and removes it from requests.
_NO_ID = "__fake_id__"
#: OpenAI Agents sends a reasoning item with this key to no Responses API, which would need its id.
_OF_ANOTHER_FORMAT = {"provider_data": {"recorded": "as text"}}


def messages_of(items: Sequence[Any]) -> list[BaseMessage]:
    """The messages of these items, to be stored."""
    found: list[BaseMessage] = []
    for group in grouped(items):
        (message,) = responses_messages({"input": group})
        if items_of(message) != group:
            message.additional_kwargs[ITEMS] = deepcopy(group)
        found.append(message)
    return found


def grouped(items: Sequence[Any]) -> list[list[Item]]:
    """The items of each message."""
    groups: list[list[Item]] = []
    for item in items:
        if groups and len(responses_messages({"input": [*groups[-1], item]})) == 1:
            groups[-1].append(item)
        else:
            groups.append([item])
    return groups


def items_of(message: BaseMessage) -> list[Item]:
    """The items of a message: as they were added, or else made from what the message says."""
    kept = message.additional_kwargs.get(ITEMS)
    if isinstance(kept, list) and kept and all(isinstance(item, dict) for item in kept):
        return deepcopy(kept)
    if isinstance(message, AIMessage):
        return _items_of_reply(message)
    if isinstance(message, ToolMessage):
        return [_item_of_result(message)]
    return [_item_of_input(message)]


def _item_of_input(message: BaseMessage) -> Item:
    content = message.content
    if isinstance(content, list) and len(content) == 1 and _is_item(content[0]):
        return dict(content[0])
    role = message.additional_kwargs.get("__openai_role__", message.role)
    return {"role": role, "content": content if isinstance(content, str) else [*map(_part, content)]}


def _is_item(block: Any) -> bool:
    """Whether a block is an item of an unknown type, and not a part of a content."""
    kind = block.get("type") if isinstance(block, dict) else None
    return (
        isinstance(kind, str) and not kind.startswith("input_") and kind not in ("text", "image", "image_url")
    )


def _part(block: Any) -> Any:
    if isinstance(block, str):
        return {"type": "input_text", "text": block}
    return {**block, "type": "input_text"} if block.get("type") == "text" else block


def _item_of_result(message: ToolMessage) -> Item:
    content, more = message.content, message.additional_kwargs
    first = content[0] if isinstance(content, list) and len(content) == 1 else None
    if isinstance(first, dict) and str(first.get("type")).endswith("_output"):
        return {"call_id": message.tool_call_id, **first}
    output = content if isinstance(content, str) else [*map(_part, content)]
    return {"call_id": message.tool_call_id, "output": output, "type": "function_call_output", **more}


def _items_of_reply(message: AIMessage) -> list[Item]:
    more = message.additional_kwargs
    others = [dict(item) for item in more.get("output") or () if isinstance(item, Mapping)]
    thoughts, refusal = more.get("reasoning_content"), more.get("refusal")
    found = _with_reasoning(others, thoughts) if thoughts else others
    if message.text or refusal or not (found or message.tool_calls or message.invalid_tool_calls):
        found.append(_item_of_text(message, refusal))
    return [*found, *map(_item_of_call, [*message.tool_calls, *message.invalid_tool_calls])]


def _with_reasoning(others: Sequence[Item], thoughts: str) -> list[Item]:
    """The items, with the text of the reasoning in the first reasoning item."""
    summary = {"summary": [{"type": "summary_text", "text": thoughts}]}
    place = next((n for n, item in enumerate(others) if item.get("type") == REASONING_ITEM), None)
    if place is None:
        return [{"id": _NO_ID, "type": REASONING_ITEM, **summary, **_OF_ANOTHER_FORMAT}, *others]
    return [{**item, **summary} if n == place else item for n, item in enumerate(others)]


def _item_of_text(message: AIMessage, refusal: Any) -> Item:
    citations = [unwrapped_citation(each) for each in message.additional_kwargs.get("annotations") or ()]
    text = {"type": "output_text", "text": message.text, "annotations": citations}
    part = text if message.text or not refusal else {"type": "refusal", "refusal": refusal}
    phase = message.additional_kwargs.get("phase")
    more = {"phase": phase} if phase else {}
    head = {"id": _NO_ID, "type": MESSAGE, "role": "assistant", "status": "completed"}
    return {**head, "content": [part], **more}


def _item_of_call(call: Mapping[str, Any]) -> Item:
    args = call.get("args")
    text = args if isinstance(args, str) else _text_of(args, call)
    fields = {
        "type": FUNCTION_CALL,
        **(call.get("extras") or {}),
        "id": call.get("id"),
        "name": call.get("name"),
    }
    return item_of_call(fields, text)


def _text_of(args: Any, call: Mapping[str, Any]) -> str:
    """The arguments as text; of a custom tool they are one text."""
    only = args.get("__arg1") if isinstance(args, Mapping) and len(args) == 1 else None
    is_custom = (call.get("extras") or {}).get("type") == "custom_tool_call"
    return only if is_custom and isinstance(only, str) else dumps(args or {})
