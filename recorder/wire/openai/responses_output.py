"""Turns the output items of OpenAI's Responses format into deltas, each piece of them once.

`responses.py` describes the deltas. `responses_progress.py` remembers what was received of each item.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recorder.core.json import dumps
from recorder.messages.merge import CUSTOM_CALL
from recorder.wire.deltas import (
    CITATION,
    OTHER,
    REASONING,
    REFUSAL,
    SIGNATURE,
    TEXT,
    TOOL_ARGS,
    TOOL_CALL,
    Delta,
    as_text,
)
from recorder.wire.openai.responses_items import (
    CODE_CALL,
    FUNCTION_CALL,
    MCP_CALL,
    MESSAGE,
    REASONING_ITEM,
    SEPARATOR,
    TEXT_PARTS,
    call_of,
    is_call,
    list_in,
    reasoning_parts,
    reasoning_text,
    without_empty,
    wrapped_citation,
)
from recorder.wire.openai.responses_outline import is_needed, outline_of
from recorder.wire.openai.responses_progress import (
    MAX_ITEMS,
    OutputItem,
    OutputItems,
    StreamedPart,
    items_in,
    number_in,
)
from recorder.wire.repeated_answer import rest_of
from recorder.wire.reply import Reply

#: Event without its last word -> the kind of its text, the type of its item, the key and the index of its part, the key
#: of the complete text.
TEXT_EVENTS = {
    "response.output_text": (TEXT, MESSAGE, "content", "content_index", "text"),
    "response.refusal": (REFUSAL, MESSAGE, "content", "content_index", "refusal"),
    "response.reasoning_summary_text": (REASONING, REASONING_ITEM, "summary", "summary_index", "text"),
    "response.reasoning_text": (REASONING, REASONING_ITEM, "content", "content_index", "text"),
    "response.function_call_arguments": (TOOL_ARGS, FUNCTION_CALL, "arguments", "", "arguments"),
    "response.mcp_call_arguments": (TOOL_ARGS, MCP_CALL, "arguments", "", "arguments"),
    "response.custom_tool_call_input": (TOOL_ARGS, CUSTOM_CALL, "arguments", "", "input"),
}

Event = dict[str, Any]


class OutputDecoder:
    """Decodes the output items of one response, from events with pieces of them and from complete items."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._items = OutputItems()
        #: (idx, kind) -> the text that the last piece belongs to.
        self._newest: dict[tuple[str, str], StreamedPart] = {}
        self._has_reasoning = False
        #: The calls that the client has to execute: all but those whose output is in the response.
        self.open_calls: set[str] = set()
        #: The number of each complete item -> its outline.
        self._outlines: dict[int, dict[str, Any]] = {}
        #: `output_index`, `content_index` and `item_id` of the text whose pieces may take the fast path.
        self.fast_place: tuple[Any, Any, Any] | None = None

    @property
    def is_full(self) -> bool:
        """Whether there were more items than are remembered; then the rest is missing from the reply."""
        return self._items.is_full

    def complete_output(self, response: Mapping[str, Any], deltas: list[Delta]) -> None:
        """Adds what the output of a complete response has beyond what was received before."""
        output = items_in(response)
        for item, fields in zip(self._items.matched(output), output, strict=True):
            self._complete_item(item, fields, deltas)

    def outline(self) -> list[dict[str, Any]]:
        """The outline of all complete items; empty if the message alone is sufficient to send them back."""
        found = [self._outlines[number] for number in sorted(self._outlines)]
        return found if is_needed(found) and not self.is_full else []

    # -- texts --------------------------------------------------------------------------------------------------

    def text_piece(self, event: Event, deltas: list[Delta]) -> None:
        """Decodes a piece of the answer's text; the next piece of the same text may take the fast path."""
        self.text("response.output_text", "delta", event, deltas)
        place = event.get("output_index"), event.get("content_index"), event.get("item_id")
        has_place = type(place[0]) is int and type(place[1]) is int
        self.fast_place = place if has_place and deltas else None

    def text(self, stem: str, word: str, event: Event, deltas: list[Delta]) -> None:
        """Decodes an event of `TEXT_EVENTS` with a piece of a text (`word` is delta) or the complete text (done)."""
        kind, item_type, key, index_key, text_key = TEXT_EVENTS[stem]
        item = self._items.at(event, item_type)
        text = as_text(event.get("delta" if word == "delta" else text_key) or "")
        idx = item.idx if kind == TOOL_ARGS else "0"
        if kind == TOOL_ARGS:
            self._open_call(item, {}, deltas)
        part = self._part(item, key, number_in(event, index_key) or 0, kind, text if word == "done" else None)
        if kind == TEXT and (word == "delta" or not part.is_open):
            self._add_logprobs(event)
        if word == "done":
            self._complete_text(part, kind, idx, text, deltas)
        elif text:
            self._piece(part, kind, idx, text, deltas)

    def _part(
        self, item: OutputItem, key: str, index: int, kind: str, text: str | None = None
    ) -> StreamedPart:
        """The text at a place of an item, of which a piece or the complete text was received.

        vLLM gives each piece of one text another index. So a place that was not announced belongs to the open text.
        """
        known = self._newest.get(("0", kind))
        if key != "content" or (key, index) in item.parts or known is None:
            return self._items.part(item, key, index)
        is_open = known.owner is item and not known.is_complete and not known.is_split
        if is_open and (text is None or text.startswith(self._received(known, "0", kind))):
            return self._items.part(item, key, index, known)
        return self._items.part(item, key, index)

    def _received(self, part: StreamedPart, idx: str, kind: str) -> str:
        """The text of a part so far; it must be the newest one."""
        return "".join(self._reply.pieces(idx, kind)[part.start :])

    def _add_logprobs(self, fields: Event) -> None:
        if logprobs := fields.get("logprobs"):
            self._reply.add_logprobs(0, {"content": logprobs})

    def _piece(self, part: StreamedPart, kind: str, idx: str, text: str, deltas: list[Delta]) -> None:
        if not part.is_open:
            self._open_part(part, kind, idx, deltas)
        elif self._newest.get((idx, kind)) is not part:
            part.is_split = True
        self._newest[idx, kind] = part
        deltas.append(Delta(text, kind, idx))

    def _open_part(self, part: StreamedPart, kind: str, idx: str, deltas: list[Delta]) -> None:
        if kind == REASONING and self._has_reasoning:
            deltas.append(Delta(SEPARATOR, kind, idx))
        self._has_reasoning = self._has_reasoning or kind == REASONING
        part.is_open = True
        pending = sum(delta.kind == kind and delta.idx == idx for delta in deltas)
        part.start = len(self._reply.pieces(idx, kind)) + pending

    def _complete_text(self, part: StreamedPart, kind: str, idx: str, text: Any, deltas: list[Delta]) -> None:
        """Adds what a complete text has beyond its pieces."""
        text = as_text(text or "")
        if part.is_complete or not text:
            return
        part.is_complete = True
        self.fast_place = None
        if not part.is_open:
            self._piece(part, kind, idx, text, deltas)
        elif self._newest.get((idx, kind)) is part and not part.is_split and not self._reply.truncated:
            rest = rest_of(text, self._received(part, idx, kind))
            deltas += [Delta(rest, kind, idx)] if rest else []

    def annotation(self, event: Event, deltas: list[Delta]) -> None:
        """Decodes a citation."""
        item = self._items.at(event, MESSAGE)
        part = self._part(item, "content", number_in(event, "content_index") or 0, TEXT)
        part.citations += 1
        deltas.append(Delta(dumps(wrapped_citation(event["annotation"])), CITATION))

    def part_added(self, event: Event, deltas: list[Delta]) -> None:
        """Remembers that a part of an item's content begins."""
        fields = event.get("part")
        kind = fields.get("type") if isinstance(fields, dict) else None
        item = self._items.at(event, REASONING_ITEM if kind == "reasoning_text" else None)
        self._items.part(item, "content", number_in(event, "content_index") or 0)

    def part_done(self, event: Event, deltas: list[Delta]) -> None:
        """Decodes a complete part of an item's content."""
        fields = event.get("part")
        kind = fields.get("type") if isinstance(fields, dict) else None
        item = self._items.at(event, REASONING_ITEM if kind == "reasoning_text" else None)
        self._complete_part(item, number_in(event, "content_index") or 0, fields, deltas)

    def summary_done(self, event: Event, deltas: list[Delta]) -> None:
        """Decodes a complete part of the summary of reasoning."""
        part = self._items.part(
            self._items.at(event, REASONING_ITEM), "summary", number_in(event, "summary_index") or 0
        )
        self._complete_text(part, REASONING, "0", reasoning_text(event.get("part")), deltas)

    def _complete_part(self, item: OutputItem, index: int, fields: Any, deltas: list[Delta]) -> None:
        """Adds what a complete part of an item's content has beyond its pieces."""
        kind = fields.get("type") if isinstance(fields, dict) else None
        if kind == "reasoning_text" or (kind in TEXT_PARTS and item.type == REASONING_ITEM):
            self._complete_place(item, index, REASONING, fields.get("text"), deltas)
        elif kind == "refusal":
            self._complete_place(item, index, REFUSAL, fields.get("refusal"), deltas)
        elif kind in TEXT_PARTS:
            self._complete_text_part(item, index, fields, deltas)
        elif fields is not None and not (part := self._items.part(item, "content", index)).is_complete:
            part.is_complete = True
            piece = {"type": item.type or MESSAGE, "content": [fields], "index": item.number}
            deltas.append(Delta(dumps({"output": [piece]}), OTHER, item.idx))

    def _complete_place(
        self, item: OutputItem, index: int, kind: str, text: Any, deltas: list[Delta]
    ) -> None:
        text = as_text(text or "")
        self._complete_text(self._part(item, "content", index, kind, text), kind, "0", text, deltas)

    def _complete_text_part(self, item: OutputItem, index: int, fields: Event, deltas: list[Delta]) -> None:
        """Adds the text, the log probabilities and the citations of a part."""
        text = as_text(fields.get("text") or "")
        part = self._part(item, "content", index, TEXT, text)
        if not part.is_open:
            self._add_logprobs(fields)
        self._complete_text(part, TEXT, "0", text, deltas)
        citations = list_in(fields, "annotations")[part.citations :]
        part.citations += len(citations)
        deltas += [Delta(dumps(wrapped_citation(citation)), CITATION) for citation in citations]

    # -- items --------------------------------------------------------------------------------------------------

    def item_added(self, event: Event, deltas: list[Delta]) -> None:
        """Decodes the start of an item."""
        fields = event.get("item")
        if not isinstance(fields, dict):
            return  # some servers announce an item without its fields
        item = self._items.announced(event, fields)
        if is_call(fields):
            self._open_call(item, fields, deltas)
        elif fields.get("type") == MESSAGE:
            self._phase(item, fields, deltas)

    def item_done(self, event: Event, deltas: list[Delta]) -> None:
        """Decodes a complete item."""
        fields = event["item"]
        self._complete_item(self._items.announced(event, fields), fields, deltas)

    def _complete_item(self, item: OutputItem, fields: Event, deltas: list[Delta]) -> None:
        """Adds what a complete item has beyond its pieces."""
        if item.is_complete:
            return
        kind = fields.get("type")
        if is_call(fields):
            self._complete_call(item, fields, deltas)
        elif kind == MESSAGE:
            self._phase(item, fields, deltas)
            content = fields.get("content")
            parts = [{"type": "output_text", "text": content}] if isinstance(content, str) else content
            for index, part in enumerate(parts or ()):
                self._complete_part(item, index, part, deltas)
        elif kind == REASONING_ITEM:
            self._complete_reasoning(item, fields, deltas)
        else:
            self._complete_other(item, fields, deltas)
        item.is_complete = True
        if len(self._outlines) < MAX_ITEMS:
            self._outlines[item.number] = outline_of(fields, item.number)

    def _phase(self, item: OutputItem, fields: Event, deltas: list[Delta]) -> None:
        if (phase := fields.get("phase")) and "phase" not in item.sent:
            item.sent.add("phase")
            deltas.append(Delta(dumps({"phase": phase}), OTHER))

    def _complete_reasoning(self, item: OutputItem, fields: Event, deltas: list[Delta]) -> None:
        for key, index, text in reasoning_parts(fields):
            part = self._part(item, key, index, REASONING, text)
            self._complete_text(part, REASONING, "0", text, deltas)
        # The content is encrypted again for each event, so only the first complete item counts.
        if signature := fields.get("encrypted_content"):
            deltas.append(Delta(as_text(signature), SIGNATURE))

    def _open_call(self, item: OutputItem, fields: Event, deltas: list[Delta]) -> None:
        """Adds the id, the name and the other keys of a call, each once."""
        changes: dict[str, Any] = {}
        if fields:
            call = call_of(fields)
            changes = without_empty({"id": call.id, "name": call.name, **call.extras})
            changes = {key: value for key, value in changes.items() if key not in item.sent}
            if fields["type"] != MCP_CALL and len(self.open_calls) < MAX_ITEMS:
                self.open_calls.add(call.id)
        if changes or not item.is_open:
            item.is_open = True
            item.sent.update(changes)
            deltas.append(Delta(dumps(changes), TOOL_CALL, item.idx))

    def _complete_call(self, item: OutputItem, fields: Event, deltas: list[Delta]) -> None:
        self._open_call(item, fields, deltas)
        part = self._items.part(item, "arguments", 0)
        self._complete_text(part, TOOL_ARGS, item.idx, call_of(fields).arguments, deltas)

    def _complete_other(self, item: OutputItem, fields: Event, deltas: list[Delta]) -> None:
        """Adds an item of another type, without what was received of it before."""
        if str(fields.get("type")).endswith("_output"):
            self.open_calls.discard(as_text(fields.get("call_id")))
        fresh = {key: value for key, value in fields.items() if key not in item.sent and value is not None}
        deltas.append(Delta(dumps({"output": [{**fresh, "index": item.number}]}), OTHER, item.idx))

    def code(self, event: Event, deltas: list[Delta]) -> None:
        """Decodes a piece of a code interpreter's code, or the complete code if there were no pieces."""
        item = self._items.at(event, CODE_CALL)
        code = event.get("delta") if event["type"].endswith(".delta") else event.get("code")
        if not code or (not event["type"].endswith(".delta") and "code" in item.sent):
            return
        first = without_empty({"id": item.id, "type": item.type}) if not item.sent else {}
        item.sent.update((*first, "code"))
        piece = {**first, "code": as_text(code), "index": item.number}
        deltas.append(Delta(dumps({"output": [piece]}), OTHER, item.idx))
