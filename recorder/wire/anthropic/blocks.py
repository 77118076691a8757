"""Finds the content block that an event of Anthropic's format belongs to, by its index and the block's type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recorder.core.json import dumps
from recorder.wire.deltas import OTHER, TOOL_CALL, Delta

#: The last block of at most 1,000 indexes is remembered, and at most 10,000 numbers that are in use.
_MAX_INDEXES, _MAX_USED = 1_000, 10_000
#: Type of a delta -> the type of the block that it belongs to. A block without a start event gets this type.
_USUAL = {"text_delta": "text", "citations_delta": "text", "thinking_delta": "thinking",
          "signature_delta": "thinking", "input_json_delta": "tool_use"}  # fmt: skip
#: Types of blocks that have no input. All other types may have input: tool calls, server tools, future types.
_WITHOUT_INPUT = frozenset(("text", "thinking", "redacted_thinking"))


@dataclass(slots=True)
class Block:
    """A content block that has started."""

    type: str
    #: The idx of its deltas.
    idx: str
    #: The provider's id, None if it has none.
    id: Any = None
    is_open: bool = True
    #: A delta that is added at the block's stop, unless content makes it superfluous before.
    pending: Delta | None = None


class Blocks:
    """The blocks of one message.

    The API gives each block its own index. Some proxies give all blocks the same index, or none, or number the starts
    and the pieces separately. So each start event begins a new block, and a piece goes to a block of a matching type.
    """

    def __init__(self) -> None:
        self._by_index: dict[Any, Block] = {}
        self._last: Block | None = None
        self._used: set[int] = set()
        self._highest = -1

    @property
    def any_started(self) -> bool:
        """Whether any block has started."""
        return self._highest >= 0

    def start(self, index: Any, type: str, id: Any, deltas: list[Delta]) -> Block:
        """Starts a block. If the same block was started before and has no content yet, that block is returned.

        The pending delta of another block with this index is added to `deltas`, because its stop will not come.
        """
        known = self._by_index.get(index)
        if known is not None and known.pending is not None:
            if (known.type, known.id) == (type, id):
                return known
            deltas.append(known.pending)
            known.pending = None
        return self._open(index, type, id)

    def piece(self, index: Any, type: str, deltas: list[Delta]) -> Block:
        """The block that a delta of this type belongs to. If none was started, one starts here, with its `deltas`."""
        known = self._by_index.get(index)
        last = self._last if self._last is not None and self._last.is_open else None
        if known is not None and _accepts(known.type, type) and (known.is_open or last is None):
            return known
        if last is not None and _accepts(last.type, type):
            return last
        opened = self._open(index, _USUAL.get(type, type.removesuffix("_delta")), None)
        if opened.type == "tool_use":
            deltas.append(Delta('{"id":null,"name":null}', TOOL_CALL, opened.idx))
        elif type in _USUAL:
            opened.pending = Delta(
                dumps({"content_block": {"type": opened.type, opened.type: ""}}), OTHER, opened.idx
            )
        else:
            deltas.append(Delta(dumps({"content_block": {"type": opened.type}}), OTHER, opened.idx))
        return opened

    def stop(self, index: Any) -> Block | None:
        """Ends a block and returns it; None if no such block is open."""
        known = self._by_index.get(index)
        if known is None or not known.is_open:
            known = self._last if index is None else None
        if known is None or not known.is_open:
            return None
        known.is_open = False
        return known

    def take_pending(self) -> list[Delta]:
        """Returns the pending deltas of the blocks that were never ended, and clears them."""
        blocks = [block for block in self._by_index.values() if block.pending is not None]
        deltas = [block.pending for block in blocks if block.pending is not None]
        for block in blocks:
            block.pending = None
        return deltas

    def _open(self, index: Any, type: str, id: Any) -> Block:
        number = self._highest + 1
        if _is_number(index) and int(index) not in self._used:
            number = int(index)
        self._highest = max(number, self._highest)
        if len(self._used) < _MAX_USED:
            self._used.add(number)
        self._last = block = Block(type, idx_of(number, type), id)
        if index in self._by_index or len(self._by_index) < _MAX_INDEXES:
            self._by_index[index] = block
        return block


def _accepts(block: str, delta: str) -> bool:
    """Whether a block of this type may have a delta of that type."""
    if delta == "input_json_delta":
        return block not in _WITHOUT_INPUT
    return block == _USUAL.get(delta, block)


def idx_of(number: int, type: str) -> str:
    """The idx of a block's deltas; a call's idx has a part in every wire format."""
    return f"0.{number}" if number or type == "tool_use" else "0"


def _is_number(index: Any) -> bool:
    if isinstance(index, str):
        return index.isdecimal() and len(index) < 9
    return type(index) is int and index >= 0
