"""The message classes, with LangChain's names and shapes. Making a chunk takes well under a microsecond."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from types import NoneType
from typing import Any

from recorder.messages.merge import (
    Content,
    InvalidToolCall,
    ToolCall,
    ToolCallChunk,
    UsageMetadata,
    add_usage,
    invalid_tool_call,
    merge_content,
    merge_dicts,
    merge_latest,
    merge_lists,
    parse_calls,
    tool_call,
    tool_call_chunk,
)


class BaseMessage:
    """Base class of all messages. `content` is text, or a list of texts and blocks (dicts with a `type`)."""

    __slots__ = ("additional_kwargs", "content", "id", "name", "response_metadata")
    __hash__ = None  # type: ignore[assignment]  # mutable, and equal by value

    #: LangChain's name: human, ai, system, tool, chat, AIMessageChunk.
    type: str = ""
    #: The providers' name: user, assistant, system, tool.
    role: str = ""
    #: Fields that repr() always shows, and fields that it shows if they are not empty.
    _always: tuple[str, ...] = ("content", "additional_kwargs", "response_metadata")
    _sometimes: tuple[str, ...] = ("name", "id")

    content: Content
    additional_kwargs: dict[str, Any]
    response_metadata: dict[str, Any]
    name: str | None
    id: str | None

    def __init__(
        self,
        content: Content | None = "",
        *,
        id: str | None = None,
        name: str | None = None,
        additional_kwargs: dict[str, Any] | None = None,
        response_metadata: dict[str, Any] | None = None,
    ) -> None:
        self.content = "" if content is None else content
        self.additional_kwargs = {} if additional_kwargs is None else additional_kwargs
        self.response_metadata = {} if response_metadata is None else response_metadata
        self.name = name
        self.id = id

    @property
    def text(self) -> str:
        """The text parts, joined. Images, calls and other blocks are left out."""
        if isinstance(self.content, str):
            return self.content
        return "".join(_block_text(block) for block in self.content)

    def _fields(self) -> Iterator[tuple[str, Any]]:
        for name in self._always:
            yield name, getattr(self, name)
        for name in self._sometimes:
            value = getattr(self, name)
            if value is not None and value != [] and value != {}:
                yield name, value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._fields())})"

    def __str__(self) -> str:
        return " ".join(f"{name}={value!r}" for name, value in self._fields())

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in (*self._always, *self._sometimes))


def _block_text(block: Any) -> str:
    if isinstance(block, str):
        return block
    text = block.get("text") if isinstance(block, dict) and block.get("type", "text") == "text" else None
    return text if isinstance(text, str) else ""


class HumanMessage(BaseMessage):
    """A message of the user."""

    __slots__ = ()
    type = "human"
    role = "user"


class SystemMessage(BaseMessage):
    """Instructions for the model. `additional_kwargs={"__openai_role__": "developer"}` sends the role developer."""

    __slots__ = ()
    type = "system"
    role = "system"


class ChatMessage(BaseMessage):
    """A message with any other role."""

    __slots__ = ("role",)
    type = "chat"
    _sometimes = ("name", "id", "role")

    def __init__(self, content: Content | None = "", role: str = "", **fields: Any) -> None:
        super().__init__(content, **fields)
        self.role = role


class ToolMessage(BaseMessage):
    """The result of the tool call with the id `tool_call_id`. `status` is success or error."""

    __slots__ = ("status", "tool_call_id")
    type = "tool"
    role = "tool"
    _always = ("content",)
    _sometimes = ("additional_kwargs", "response_metadata", "name", "id", "tool_call_id", "_status")

    def __init__(
        self, content: Content | None = "", tool_call_id: str = "", *, status: str = "success", **fields: Any
    ) -> None:
        super().__init__(content, **fields)
        self.tool_call_id = tool_call_id
        #: success or error.
        self.status = status

    @property
    def _status(self) -> str | None:
        return None if self.status == "success" else self.status

    def _fields(self) -> Iterator[tuple[str, Any]]:
        return ((name.lstrip("_"), value) for name, value in super()._fields())


class AIMessage(BaseMessage):
    """A message of the model, and its tool calls."""

    __slots__ = ("_invalid_tool_calls", "_tool_calls", "usage_metadata")
    type = "ai"
    role = "assistant"
    _sometimes: tuple[str, ...] = ("name", "id", "tool_calls", "invalid_tool_calls", "usage_metadata")

    usage_metadata: UsageMetadata | None

    def __init__(
        self,
        content: Content | None = "",
        *,
        tool_calls: Sequence[Mapping[str, Any]] | None = None,
        invalid_tool_calls: Sequence[Mapping[str, Any]] | None = None,
        usage_metadata: UsageMetadata | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(content, **fields)
        # None for an empty list that nobody has read: the garbage collector visits each list of the waiting messages.
        self._tool_calls: list[ToolCall] | None = [_call(call) for call in tool_calls or ()] or None
        calls = [_invalid_call(call) for call in invalid_tool_calls or ()]
        self._invalid_tool_calls: list[InvalidToolCall] | None = calls or None
        self.usage_metadata = usage_metadata

    @property
    def tool_calls(self) -> list[ToolCall]:
        """`[{name, args (a dict), id, type: "tool_call"}]`"""
        if self._tool_calls is None:
            self._tool_calls = []
        return self._tool_calls

    @tool_calls.setter
    def tool_calls(self, calls: list[ToolCall]) -> None:
        self._tool_calls = calls

    @property
    def invalid_tool_calls(self) -> list[InvalidToolCall]:
        """`[{name, args (text), id, error, type: "invalid_tool_call"}]`"""
        if self._invalid_tool_calls is None:
            self._invalid_tool_calls = []
        return self._invalid_tool_calls

    @invalid_tool_calls.setter
    def invalid_tool_calls(self, calls: list[InvalidToolCall]) -> None:
        self._invalid_tool_calls = calls

    @property
    def has_calls(self) -> bool:
        """Whether it has calls, valid or not."""
        return bool(self._tool_calls or self._invalid_tool_calls)


def _call(call: Mapping[str, Any]) -> ToolCall:
    return tool_call(call["name"], call["args"], call.get("id"), call.get("extras"))


def _invalid_call(call: Mapping[str, Any]) -> InvalidToolCall:
    return invalid_tool_call(
        call.get("name"), call.get("args"), call.get("id"), call.get("error"), call.get("extras")
    )


class AIMessageChunk(AIMessage):
    """A streamed piece of an `AIMessage`. `+` joins it with one chunk or a list of chunks."""

    __slots__ = ("chunk_position", "labels", "tool_call_chunks")
    type = "AIMessageChunk"
    _sometimes = (*AIMessage._sometimes, "tool_call_chunks", "chunk_position")

    #: `[{name, args (text), id, index, type: "tool_call_chunk"}]`
    tool_call_chunks: list[ToolCallChunk]
    #: "last" on the chunk that ends the message.
    chunk_position: str | None
    #: Keys of `additional_kwargs` whose later text or number replaces the earlier one; others are joined or added.
    labels: frozenset[str]

    # Without super() or **fields, because one object is made for each token. An argument that is not given is not set;
    # `__getattr__` makes its value when it is read. Of most chunks only the content is ever read.
    def __init__(
        self,
        content: Content = "",
        *,
        id: str | None = None,
        name: str | None = None,
        additional_kwargs: dict[str, Any] | None = None,
        response_metadata: dict[str, Any] | None = None,
        tool_call_chunks: list[ToolCallChunk] | None = None,
        usage_metadata: UsageMetadata | None = None,
        chunk_position: str | None = None,
        tool_calls: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        self.content = content
        self.id = id
        if name is not None:
            self.name = name
        if additional_kwargs is not None:
            self.additional_kwargs = additional_kwargs
        if response_metadata is not None:
            self.response_metadata = response_metadata
        if tool_call_chunks is not None:
            self.tool_call_chunks = tool_call_chunks
        if usage_metadata is not None:
            self.usage_metadata = usage_metadata
        if chunk_position is not None:
            self.chunk_position = chunk_position
        if tool_calls:
            self.tool_calls = [_call(call) for call in tool_calls]

    def __getattr__(self, name: str) -> Any:
        # Called only for an attribute that is not set.
        if name not in _NOT_SET:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        value = _NOT_SET[name]()
        setattr(self, name, value)
        return value

    def __getstate__(self) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        # For copy and pickle. Without `tool_calls`: setting them would overwrite `tool_call_chunks`.
        names = (
            *self._always,
            "name",
            "id",
            "usage_metadata",
            "tool_call_chunks",
            "chunk_position",
            "labels",
        )
        return getattr(self, "__dict__", None), {name: getattr(self, name) for name in names}

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The calls so far. Before the last chunk, incomplete JSON arguments are parsed up to where they end."""
        return parse_calls(self.tool_call_chunks, complete=self.chunk_position == "last")[0]

    @tool_calls.setter
    def tool_calls(self, calls: list[ToolCall]) -> None:
        self.tool_call_chunks = [
            tool_call_chunk(call["name"], json.dumps(call["args"]), call["id"], None, call.get("extras"))
            for call in calls
        ]

    @property
    def invalid_tool_calls(self) -> list[InvalidToolCall]:
        """Calls whose arguments are not a JSON object."""
        return parse_calls(self.tool_call_chunks, complete=self.chunk_position == "last")[1]

    @invalid_tool_calls.setter
    def invalid_tool_calls(self, calls: list[InvalidToolCall]) -> None:
        self.tool_call_chunks += [
            tool_call_chunk(call["name"], call["args"], call["id"], None, call.get("extras"))
            for call in calls
        ]

    @property
    def has_calls(self) -> bool:
        """Whether it has calls so far, valid or not."""
        return bool(self.tool_calls or self.invalid_tool_calls)

    def __add__(self, other: AIMessageChunk | Sequence[AIMessageChunk]) -> AIMessageChunk:
        if isinstance(other, AIMessageChunk):
            return _join(self, (other,))
        if isinstance(other, (list, tuple)) and all(isinstance(chunk, AIMessageChunk) for chunk in other):
            return _join(self, other)
        return NotImplemented

    def to_message(self) -> AIMessage:
        """The finished message. A call with incomplete arguments becomes an invalid call."""
        calls, invalid = parse_calls(self.tool_call_chunks, complete=True)
        return AIMessage(
            self.content,
            id=self.id,
            name=self.name,
            additional_kwargs=self.additional_kwargs,
            response_metadata=self.response_metadata,
            tool_calls=calls,
            invalid_tool_calls=invalid,
            usage_metadata=self.usage_metadata,
        )


#: The type of an attribute of a chunk that was not given.
_NOT_SET: dict[str, type] = {
    "additional_kwargs": dict,
    "response_metadata": dict,
    "tool_call_chunks": list,
    "labels": frozenset,
    "name": NoneType,
    "usage_metadata": NoneType,
    "chunk_position": NoneType,
}


def text_chunk(content: str, id: str | None) -> AIMessageChunk:
    """A chunk with text only. Three times as fast as the constructor."""
    chunk = _new_chunk(AIMessageChunk)
    chunk.content = content
    chunk.id = id
    return chunk


_new_chunk = AIMessageChunk.__new__


def _join(first: AIMessageChunk, others: Sequence[AIMessageChunk]) -> AIMessageChunk:
    joined = AIMessageChunk(
        _join_content(first, others), id=first.id, name=first.name, usage_metadata=first.usage_metadata
    )
    chunks = (first, *others)
    joined.labels = frozenset().union(*[chunk.labels for chunk in chunks if chunk.additional_kwargs])
    joined.additional_kwargs = merge_latest(_all("additional_kwargs", chunks), joined.labels)
    joined.response_metadata = merge_dicts({}, *_all("response_metadata", chunks))
    joined.tool_call_chunks = merge_lists([], *_all("tool_call_chunks", chunks))
    joined.chunk_position = first.chunk_position
    for chunk in others:
        _join_rest(joined, chunk)
    return joined


def _join_content(first: AIMessageChunk, others: Sequence[AIMessageChunk]) -> Content:
    contents = [first.content, *[chunk.content for chunk in others]]
    try:
        return "".join(contents)  # type: ignore[arg-type]  # nearly always all are text
    except TypeError:
        return merge_content(contents[0], contents[1:])


def _all(field: str, chunks: Sequence[AIMessageChunk]) -> list[Any]:
    return [value for chunk in chunks if (value := getattr(chunk, field))]


def _join_rest(joined: AIMessageChunk, chunk: AIMessageChunk) -> None:
    if chunk.usage_metadata:
        joined.usage_metadata = add_usage(joined.usage_metadata, chunk.usage_metadata)
    joined.id = _better_id(joined.id, chunk.id)
    joined.name = joined.name or chunk.name
    joined.chunk_position = joined.chunk_position or chunk.chunk_position


def _better_id(left: str | None, right: str | None) -> str | None:
    """The first id that a provider gave, else LangChain's run id, else any id."""
    if left == right or not right or (left and _rank(left) >= _rank(right)):
        return left
    return right


def _rank(id: str) -> int:
    if not id.startswith("lc_"):
        return 2
    return 1 if id.startswith("lc_run-") else 0
