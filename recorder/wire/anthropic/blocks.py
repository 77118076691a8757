"""To which content block an event of Anthropic's belongs: by its index, and by what the block is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recorder.core.json import dumps
from recorder.wire.deltas import OTHER, TOOL_CALL, Delta

#: Of how many indexes is remembered which block they were last, and of how many numbers that they are used.
_MAX_INDEXES, _MAX_USED = 1_000, 10_000
#: Type of a delta -> the type of the blocks that it is a piece of, and of one that nobody opened.
_USUAL = {"text_delta": "text", "citations_delta": "text", "thinking_delta": "thinking",
          "signature_delta": "thinking", "input_json_delta": "tool_use"}  # fmt: skip
#: Blocks that have no input; all others may: calls, those of the provider's own tools, and whatever comes.
_WITHOUT_INPUT = frozenset(("text", "thinking", "redacted_thinking"))


@dataclass(slots=True)
class Block:
    """A content block from its start on."""

    type: str
    #: The place of its deltas.
    idx: str
    #: The provider's id of it, where it has one.
    id: Any = None
    is_open: bool = True
    #: What its stop says when nothing came in between.
    unsaid: Delta | None = None


class Blocks:
    """The blocks of one message.

    The API gives each its own index. Some proxies give all blocks the same one, or none, or count the blocks and their
    pieces apart: a start begins a block of its own, and a piece belongs to one that can have it.
    """

    def __init__(self) -> None:
        self._by_index: dict[Any, Block] = {}
        self._last: Block | None = None
        self._used: set[int] = set()
        self._highest = -1

    @property
    def have_begun(self) -> bool:
        """Whether there is one."""
        return self._highest >= 0

    def start(self, index: Any, type: str, id: Any, found: list[Delta]) -> Block:
        """A block begins; the same one where it was begun already and has said nothing since.

        What another one under that index has not said yet is put into `found`: its stop will not come.
        """
        known = self._by_index.get(index)
        if known is not None and known.unsaid is not None:
            if (known.type, known.id) == (type, id):
                return known
            found.append(known.unsaid)
            known.unsaid = None
        return self._started(index, type, id)

    def piece(self, index: Any, type: str, found: list[Delta]) -> Block:
        """The block that a delta of this type is a piece of; one that nobody opened begins in `found`."""
        known = self._by_index.get(index)
        last = self._last if self._last is not None and self._last.is_open else None
        if known is not None and _takes(known.type, type) and (known.is_open or last is None):
            return known
        if last is not None and _takes(last.type, type):
            return last
        begun = self._started(index, _USUAL.get(type, type.removesuffix("_delta")), None)
        if begun.type == "tool_use":
            found.append(Delta('{"id":null,"name":null}', TOOL_CALL, begun.idx))
        elif type in _USUAL:
            begun.unsaid = Delta(
                dumps({"content_block": {"type": begun.type, begun.type: ""}}), OTHER, begun.idx
            )
        else:
            found.append(Delta(dumps({"content_block": {"type": begun.type}}), OTHER, begun.idx))
        return begun

    def stop(self, index: Any) -> Block | None:
        """The block that ends; None where none is open."""
        known = self._by_index.get(index)
        if known is None or not known.is_open:
            known = self._last if index is None else None
        if known is None or not known.is_open:
            return None
        known.is_open = False
        return known

    def unsaid(self) -> list[Delta]:
        """What blocks have not said that were never closed."""
        waiting = [block for block in self._by_index.values() if block.unsaid is not None]
        found = [block.unsaid for block in waiting if block.unsaid is not None]
        for block in waiting:
            block.unsaid = None
        return found

    def _started(self, index: Any, type: str, id: Any) -> Block:
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


def _takes(block: str, delta: str) -> bool:
    """Whether a block of this type may have a delta of that type."""
    if delta == "input_json_delta":
        return block not in _WITHOUT_INPUT
    return block == _USUAL.get(delta, block)


def idx_of(number: int, type: str) -> str:
    """The place of a block's deltas; calls have a part of their own in every wire format."""
    return f"0.{number}" if number or type == "tool_use" else "0"


def _is_number(index: Any) -> bool:
    if isinstance(index, str):
        return index.isdecimal() and len(index) < 9
    return type(index) is int and index >= 0
