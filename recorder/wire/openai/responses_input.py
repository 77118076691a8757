"""Converts messages to the `input` items of an OpenAI Responses request.

What the model sent goes back as the items that it came in (`responses_outline.py`), with their ids and their encrypted
reasoning, but only to the host that sent it. Another host, and the same one if the application has changed the message,
gets the text and the calls. Items in the API's own form are sent unchanged.
https://platform.openai.com/docs/api-reference/responses/create
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from recorder.core.json import dumps
from recorder.messages import AIMessage, BaseMessage, ToolMessage, messages_from
from recorder.messages.merge import CUSTOM_CALL
from recorder.wire.openai.request import to_openai
from recorder.wire.openai.responses_items import MESSAGE, REASONING_ITEM, TEXT_PARTS, without_empty
from recorder.wire.openai.responses_outline import call_item, citations_of, items_of, text_part
from recorder.wire.openai.responses_request import responses_messages
from recorder.wire.reasoning import host_of, origin_field

#: Types of items whose names do not end with `_call` or `_output`.
_ITEMS = frozenset(
    (MESSAGE, REASONING_ITEM, "compaction", "item_reference", "mcp_list_tools", "mcp_approval_request",
     "mcp_approval_response", "program", "program_output", "configuration_update", "additional_tools")
)  # fmt: skip
#: Types of blocks in LangChain's messages that are not items, though their names end with `_call`.
_BLOCKS = frozenset(("tool_call", "invalid_tool_call", "server_tool_call"))
#: Types of blocks with calls that are also among the message's calls.
_CALL_BLOCKS = frozenset(("tool_call", "invalid_tool_call", "tool_use"))
#: Types of blocks that are the content of a message; a block of another type is an item of its own.
_CONTENT = frozenset(("input_text", "input_image", "input_file", "input_audio"))
_IMAGE_CALL = "image_generation_call"


class Destination(NamedTuple):
    """Where the items are sent."""

    #: The host, as `response_metadata["origin"]` names it; None if it is not known.
    host: str | None = None
    #: Whether OpenAI stores the responses, so that it knows the ids of their items.
    stored: bool = True


ANYWHERE = Destination()


def input_items(given: Sequence[Any], to: Destination = ANYWHERE, start: int = 0) -> list[Any]:
    """The `input` of a request from the message with the number `start` on; the server has the ones before.

    `given` is what `messages_and_items` returned.
    """
    items: list[Any] = []
    #: Id of a call -> the type of its item.
    kinds: dict[str, str] = {}
    for number, each in enumerate(given):
        added = _items_of_message(each, to, kinds) if isinstance(each, BaseMessage) else [each]
        kinds |= {item["call_id"]: item["type"] for item in added if _is_call_with_id(item)}
        items += added if number >= start else ()
    return items


def messages_and_items(given: Sequence[Any]) -> list[Any]:
    """The messages of an input, and as dicts the items in the API's form that are among them. Raises `ConfigError`."""
    return [
        found for each in given for found in ([_as_dict(each)] if is_item(each) else messages_from([each]))
    ]


def recorded_messages(given: Sequence[Any], instructions: Any = None) -> list[BaseMessage]:
    """The messages of a request with these instructions. `given` is what `messages_and_items` returned.

    Items become messages; consecutive ones of the model become one.
    """
    found = responses_messages({"instructions": instructions})
    for is_message, group in groupby(given, lambda each: isinstance(each, BaseMessage)):
        each = [*group]
        found += each if is_message else responses_messages({"input": each})
    return found


def is_item(value: Any) -> bool:
    """Whether a value is an item in the API's form, as a dict or as an object of the SDK."""
    kind = value.get("type") if isinstance(value, Mapping) else getattr(value, "type", None)
    if not isinstance(kind, str) or isinstance(value, BaseMessage) or hasattr(value, "additional_kwargs"):
        return False
    if kind == MESSAGE:  # Anthropic's answers have this type, too
        return not (hasattr(value, "stop_reason") or (isinstance(value, Mapping) and "stop_reason" in value))
    return kind not in _BLOCKS and (kind in _ITEMS or kind.endswith(("_call", "_output")))


def _as_dict(item: Any) -> dict[str, Any]:
    """The item as a dict; applications pass objects of the SDK, too."""
    dump = getattr(item, "model_dump", None)
    return dump(mode="json", exclude_unset=True, by_alias=True) if callable(dump) else dict(item)


def _is_call_with_id(item: dict[str, Any]) -> bool:
    return isinstance(item.get("call_id"), str) and str(item.get("type")).endswith("_call")


def _items_of_message(message: BaseMessage, to: Destination, kinds: Mapping[str, str]) -> list[Any]:
    if isinstance(message, AIMessage):
        return _items_of_reply(message, to)
    if isinstance(message, ToolMessage):
        return [_result(message, kinds.get(message.tool_call_id, ""))]
    return _items_of_user(message)


# -- what the user or the application says ----------------------------------------------------------------------


def _items_of_user(message: BaseMessage) -> list[Any]:
    """The message, after the blocks that are items of their own."""
    sent = to_openai(message)
    content = sent["content"]
    if isinstance(content, str):
        return [{"type": MESSAGE, "role": sent["role"], "content": content}]
    blocks = [*map(_block, content)]
    items = [block for block in blocks if block.get("type") not in _CONTENT]
    parts = [block for block in blocks if block.get("type") in _CONTENT]
    return [
        *items,
        *([{"type": MESSAGE, "role": sent["role"], "content": parts}] if parts or not items else []),
    ]


def _block(block: dict[str, Any]) -> dict[str, Any]:
    """A content block of chat completions in the form of Responses; others unchanged."""
    kind = block.get("type")
    if kind in TEXT_PARTS:
        return {**block, "type": "input_text"}
    if kind == "image_url":
        image = block["image_url"]
        fields = {"url": image} if isinstance(image, str) else dict(image)
        rest = {key: block[key] for key in block if key not in ("type", "image_url")}
        return {"type": "input_image", "image_url": fields.pop("url", None), **fields, **rest}
    if kind == "file" and isinstance(block.get("file"), Mapping):
        rest = {key: block[key] for key in block if key not in ("type", "file")}
        return {"type": "input_file", **block["file"], **rest}
    return block["value"] if kind == "non_standard" and isinstance(block.get("value"), dict) else block


# -- results of tools -------------------------------------------------------------------------------------------


def _result(message: ToolMessage, call_kind: str) -> dict[str, Any]:
    """The result of a tool. Its type is that of its only block, or the one that its call wants."""
    more = message.additional_kwargs
    block = _block_of_result(message)
    if block is not None:
        failed = {"status": "failed" if message.status == "error" else "completed"}
        status = failed if block["type"] == "apply_patch_call_output" else {}
        return {"call_id": message.tool_call_id, **status, **block, **without_empty(more)}
    kind = more.get("type") if str(more.get("type")).endswith("_output") else _RESULTS.get(call_kind)
    rest = {key: value for key, value in more.items() if key != "type"}
    output = _output(message.content)
    if kind == "computer_call_output":
        output = _screenshot(output)
    id_key = "id" if kind == "local_shell_call_output" else "call_id"
    return {"type": kind or "function_call_output", id_key: message.tool_call_id, "output": output, **rest}


#: Type of a call -> the type of its result, if it is not `function_call_output`.
_RESULTS = {
    CUSTOM_CALL: "custom_tool_call_output",
    "computer_call": "computer_call_output",
    "local_shell_call": "local_shell_call_output",
}


def _block_of_result(message: ToolMessage) -> dict[str, Any] | None:
    """The block of a result that is the item itself; None if the result is text or other content."""
    blocks = message.content if isinstance(message.content, list) else []
    for block in blocks:
        found = block.get("value") if _kind_of(block) == "non_standard" else block
        if _kind_of(found).endswith("_output"):
            return dict(found)
    return None


def _output(content: Any) -> Any:
    """The content of a result: a text, blocks of the API, or as a text what is neither."""
    if isinstance(content, str):
        return content
    blocks = [*map(_block, to_openai(ToolMessage(content, ""))["content"])]
    return blocks if all(block.get("type") in _CONTENT for block in blocks) else dumps(content)


def _screenshot(output: Any) -> Any:
    """The output of a computer: an image, which a text names by its URL."""
    if isinstance(output, str):
        return {"type": "input_image", "image_url": output}
    return next((block for block in output if block["type"] == "input_image"), output)


def _kind_of(block: Any) -> str:
    return str(block.get("type") or "") if isinstance(block, Mapping) else ""


# -- replies of the model ---------------------------------------------------------------------------------------


def _items_of_reply(message: AIMessage, to: Destination) -> list[dict[str, Any]]:
    if isinstance(message.content, list):
        return _items_of_blocks(message, to)
    items = None
    if to.host is not None and host_of(message) == to.host:
        items = items_of(message, origin_field(message, "output"))
    if items is None:
        return _plain_items(message, to)
    stored = to.stored and origin_field(message, "stored") is not False
    return _as_known(items, stored) or _plain_items(message, to)


def _plain_items(message: AIMessage, to: Destination) -> list[dict[str, Any]]:
    """The text and the calls, without ids of items."""
    more = message.additional_kwargs
    parts = [text_part(message.text, citations_of(message))] if message.text else []
    if refusal := more.get("refusal"):
        parts.append({"type": "refusal", "refusal": refusal})
    calls = _call_items(message, to)
    if not parts and not calls:
        parts = [text_part("", ())]
    phase = {"phase": more["phase"]} if more.get("phase") else {}
    texts = [{"type": MESSAGE, "role": "assistant", "content": parts, **phase}] if parts else []
    return [*texts, *calls]


def _call_items(message: AIMessage, to: Destination) -> list[dict[str, Any]]:
    """The items of the calls. Other keys of a function's call go to the host that sent them."""
    is_home = to.host is not None and host_of(message) == to.host
    calls = (*message.tool_calls, *message.invalid_tool_calls)
    return [call_item(call, with_extras=is_home) for call in calls]


def _as_known(items: Sequence[dict[str, Any]], stored: bool) -> list[dict[str, Any]]:
    """The items as OpenAI accepts them back.

    Of an image that it stored, the id is sufficient. Where it stores nothing, it does not know the ids of messages, nor
    reasoning that is not encrypted. Reasoning without the item that it led to is refused, so it is left out.
    """
    found = [known for item in items if (known := _known(item, stored)) is not None]
    while found and found[-1].get("type") == REASONING_ITEM:
        found.pop()
    return found


def _known(item: dict[str, Any], stored: bool) -> dict[str, Any] | None:
    kind = item.get("type")
    if stored:
        has_id = kind == _IMAGE_CALL and item.get("id")
        return {"type": kind, "id": item["id"]} if has_id else item
    if kind == MESSAGE:
        return {key: value for key, value in item.items() if key != "id"}
    return item if kind != REASONING_ITEM or item.get("encrypted_content") else None


def _items_of_blocks(message: AIMessage, to: Destination) -> list[dict[str, Any]]:
    """The items of a message whose content is blocks, as LangChain has them, and its other calls.

    If a block has another format, for example Anthropic's, the text and the calls are sent: without that block, OpenAI
    would refuse the ids of the items that it led to.
    """
    items: list[dict[str, Any]] = []
    for block in message.content:
        if (part := _part_of_block(block)) is not None:
            _add_part(items, block, part)
        elif isinstance(block, dict) and _is_sent_block(block):
            items.append(_without_index(block))
        elif _kind_of(block) not in _CALL_BLOCKS:
            return _plain_items(message, to)
    known = {item.get("call_id") for item in items}
    calls = _call_items(message, to)
    items += [item for item in calls if (item.get("call_id") or item.get("id")) not in known]
    return _as_known(items, to.stored) or _plain_items(message, to)


def _part_of_block(block: Any) -> dict[str, Any] | None:
    """The part of a message for a block with text or a refusal."""
    if isinstance(block, str):
        return text_part(block, ())
    if _kind_of(block) in TEXT_PARTS and isinstance(block.get("text"), str):
        return text_part(block["text"], [*map(_annotation, block.get("annotations") or ())])
    return {"type": "refusal", "refusal": block["refusal"]} if _kind_of(block) == "refusal" else None


def _annotation(given: Any) -> Any:
    """The citation of a block with the API's name for its place in a file, which LangChain changes."""
    if _kind_of(given) != "file_citation" or "file_index" not in given:
        return given
    return {**{key: given[key] for key in given if key != "file_index"}, "index": given["file_index"]}


def _add_part(items: list[dict[str, Any]], block: Any, part: dict[str, Any]) -> None:
    """Adds a part to the message before it if that has the same id; else in a message of its own."""
    own = {key: block[key] for key in ("id", "phase") if block.get(key)} if isinstance(block, dict) else {}
    if str(own.get("id", "msg")).startswith("lc_"):
        del own["id"]  # LangChain's own id, which the API refuses
    last = items[-1] if items and items[-1]["type"] == MESSAGE else None
    if last is not None and last.get("id") == own.get("id"):
        last["content"].append(part)
        last |= own
    else:
        items.append({"type": MESSAGE, "role": "assistant", "content": [part], **own})


def _is_sent_block(block: dict[str, Any]) -> bool:
    """Whether a block is an item; reasoning of other formats is not."""
    if _kind_of(block) == REASONING_ITEM:
        return "summary" in block or "encrypted_content" in block
    return is_item(block)


def _without_index(block: Mapping[str, Any]) -> dict[str, Any]:
    """The block without the places that LangChain adds to it and to the parts of its summary."""
    found = {key: value for key, value in block.items() if key != "index"}
    if isinstance(found.get("summary"), list):
        found["summary"] = [
            {key: part[key] for key in part if key != "index"} if isinstance(part, Mapping) else part
            for part in found["summary"]
        ]
    return {"summary": [], **found} if found.get("type") == REASONING_ITEM else found
