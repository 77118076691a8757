"""What is recorded, between the callback and the database: plain values without behaviour.

The callback gives a `RunStart`, deltas and frames, gaps and a `RunEnd`. Each table has a row type, whose fields are its
columns. `recorder/storage/batch.py` has what one transaction stores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, NamedTuple, TypeVar

from recorder.messages import BaseMessage
from recorder.redaction.masking import Mask
from recorder.redaction.run_redaction import RunRedaction
from recorder.storage.columns import EscapedText, JsonText, Uuid
from recorder.storage.operations import STEPS
from recorder.storage.unnamed_conversations import HistoryOwner, UnnamedConversation

#: The types of JSON objects and arrays in `RunColumns`.
Object = TypeVar("Object")
Array = TypeVar("Array")

STREAMING = "streaming"
COMPLETE = "complete"
INCOMPLETE = "incomplete"
CANCELLED = "cancelled"
ERROR = "error"
INTERRUPTED = "interrupted"


class Placement(NamedTuple):
    """Where the request of a run ends in the tree of its conversation. Known once the request is threaded."""

    #: None where the conversation has no message.
    prompt_message_id: str | None = None
    #: How many messages come before that one; -1 where there is none.
    position: int = -1
    #: The time of the newest message of the conversation when the run began; the replies are dated after it.
    said_at: datetime | None = None
    #: As in `RunColumns`.
    instructions: JsonText | None = None
    input: JsonText | None = None
    #: The content hash of the last message of the request; 0 where it has none.
    prompt_content: int = 0


#: Of a run whose request is not threaded yet, or has no messages and is the first of its conversation.
AT_THE_ROOT = Placement()


class PreviousResponse(NamedTuple):
    """A response of OpenAI's Responses API that a request names."""

    #: The provider's id, as `RunColumns.response_id`.
    id: str
    #: Whether the request reads this response again, and does not continue it.
    is_read_again: bool = False


@dataclass(slots=True)
class RunStart:
    """One call of one model: what is known before the first token."""

    run_id: str
    conversation_id: str
    #: Whether the conversation was created for this run, so that no message of it can be stored yet.
    fresh: bool
    started_at: datetime
    #: A number that orders all starts, ends and additions of this process; their times may be equal.
    order: int = 0
    operation: str = "chat"
    parent_run_id: str | None = None
    attempt: int = 1
    #: The id that the application gave, if another run has this id already and `run_id` is a new one.
    first_run_id: str | None = None
    provider_name: str | None = None
    request_model: str | None = None
    #: The wire format of the frames, "openai.chat"; None when none are expected.
    wire: str | None = None
    #: The host that the request goes to, or the short name of a provider for its own host; None if unknown. Prices
    #: depend on it.
    host: str | None = None
    #: The service tier that the request asks for.
    requested_tier: str | None = None
    #: The request's body without messages, input, prompt and system.
    request: JsonText | None = None
    input_hash: str | None = None
    tags: JsonText | None = None
    metadata: JsonText | None = None
    user_id: str | None = None
    #: With `thread="history"`: who sent the request.
    history_owner: HistoryOwner | None = None
    #: If the conversation may turn out to be a stored one, with `thread="history"` or `previous`: the one of its runs.
    unnamed: UnnamedConversation | None = None
    #: The response below which its messages go; None if it sends its messages again.
    previous: PreviousResponse | None = None
    #: Masks credentials. The start and the end are masked by the callback, frames when they are serialized.
    mask: Mask | None = None
    #: Redacts the run, if the recorder redacts.
    redacts: RunRedaction | None = None
    #: The whole history that was sent, oldest first.
    messages: Sequence[BaseMessage] = ()
    #: Those of them after the instructions; `request_input` computes this and what follows.
    after_instructions: Sequence[BaseMessage] | None = None
    #: Ids of what was said in them, where it is a path from a root, and its content hashes.
    path: Sequence[str] = ()
    contents: Sequence[int] = ()
    placement: Placement = AT_THE_ROOT

    @property
    def is_step(self) -> bool:
        """Whether the run is one of `STEPS`: it has no messages, and makes no conversation."""
        return self.operation in STEPS


@dataclass(slots=True)
class RunEnd:
    """How a run ended, and the provider's facts about it."""

    status: str
    #: None if the run was closed as idle and is streaming again.
    ended_at: datetime | None
    #: As in `RunStart`.
    order: int = 0
    first_token_at: datetime | None = None
    finish_reason: str | None = None
    response_id: str | None = None
    response_model: str | None = None
    error_type: str | None = None
    error_message: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    #: As the provider sent it.
    usage: JsonText | None = None
    #: provider, estimated or none.
    usage_source: str = "none"
    #: How the provider says that it charges: "flex". Prices depend on it.
    service_tier: str | None = None
    #: What a run that is one of `STEPS` returned.
    output: JsonText | None = None
    #: The replies, one for each choice; partial ones if the run did not complete.
    replies: Sequence[BaseMessage] = ()


class ConversationRow(NamedTuple):
    """One conversation, every column."""

    id: str
    user_id: str | None
    title: str | None
    metadata: JsonText | None
    created_at: datetime
    #: A list of texts.
    tags: JsonText | None = None


class RunColumns(NamedTuple, Generic[Object, Array]):
    """One run, every column: the only list of them. A subclass says whether JSON is text or decoded."""

    id: Uuid
    conversation_id: str
    parent_run_id: Uuid | None
    attempt: int
    operation: str
    provider_name: str | None
    request_model: EscapedText | None
    response_model: EscapedText | None
    response_id: EscapedText | None
    wire: str | None
    status: str
    started_at: datetime
    first_token_at: datetime | None
    ended_at: datetime | None
    finish_reason: EscapedText | None
    error_type: EscapedText | None
    error_message: EscapedText | None
    input_tokens: int | None
    output_tokens: int | None
    total_tokens: int | None
    usage: Object | None
    usage_source: str
    token_count: int
    sha256: str | None
    frames_sha256: str | None
    request: Object | None
    input_hash: str | None
    tags: Array | None
    metadata: Object | None
    prompt_message_id: Uuid | None
    response_message_id: Uuid | None
    producer_id: Uuid | None
    pruned_at: datetime | None
    #: The time of the newest message of the conversation when the run started. The run sorts after this message.
    said_at: datetime | None
    #: Ids of the instructions that were sent, in their order; None without instructions.
    instructions: Array | None
    #: The messages that were sent after the instructions: ids, and positions on the path that ends at the prompt
    #: message, "4" or "4-9". None for the whole path.
    input: Array | None
    #: What a chain, a tool or a retriever returned, shortened if it is long; None of a model's run. What it got is in
    #: `request`.
    output: Object | None
    #: US dollars, by the price on the day of the run; None without usage or for a model without a known price.
    input_cost: float | None
    output_cost: float | None
    #: Their sum, with what is charged beside them, as cache writes are.
    cost: float | None
    #: The price: who publishes it, of which model, and as of when.
    price: Object | None
    #: What was replaced in the run before it was stored, or later: counts by the pattern's name, `{"email": 2}`. None
    #: if nothing was looked for.
    redaction: Object | None


class RunRow(RunColumns[JsonText, JsonText]):
    """One run as it is stored: `RunStart` and `RunSeal`."""

    __slots__ = ()


class MessageRow(NamedTuple):
    """One message, every column."""

    conversation_id: str
    id: Uuid
    parent_id: Uuid | None
    position: int
    role: str
    #: The text of the message.
    content: str
    #: The complete message; None if role and content are everything.
    parts: JsonText | None
    run_id: Uuid | None
    created_at: datetime
    #: As `recorder.messages.identity.content_hash`; None in rows of older versions.
    content_hash: int | None = None
    #: Of a reply with `thread="history"`: as `continued_conversations.thread_key`.
    thread_key: int | None = None


class ContextMessageRow(NamedTuple):
    """A message that a run was sent and that is no part of what was said, every column.

    It is an instruction, or stands in place of other messages, as a summary does.
    """

    conversation_id: str
    id: Uuid
    role: str
    content: str
    #: As in `MessageRow`.
    parts: JsonText | None
    created_at: datetime


class SegmentRow(NamedTuple):
    """Consecutive deltas of one run, every column."""

    run_id: Uuid
    #: Number of its first token, from 0.
    seq: int
    count: int  # type: ignore[assignment]  # hides the method of tuples, which is not used
    #: `[[at_us, text], [at_us, text, kind, idx], ...]`.
    deltas: JsonText


class FrameRow(NamedTuple):
    """Consecutive frames of one run, every column."""

    run_id: Uuid
    #: Number of its first frame, from 0.
    seq: int
    #: Number of the first token in or after the first frame.
    first_delta: int
    count: int  # type: ignore[assignment]  # hides the method of tuples, which is not used
    #: Offset of its first frame (microseconds).
    at_us: int
    #: The frames as a block (`frame_block`), compressed.
    data: bytes
    #: Name of the compression dictionary; None for none.
    dictionary: str | None


class GapRow(NamedTuple):
    """Missing tokens of one run and the reason, every column."""

    run_id: Uuid
    seq: int
    count: int  # type: ignore[assignment]  # hides the method of tuples, which is not used
    reason: str


class AnnotationRow(NamedTuple):
    """One evaluation of a run or of one of its messages, every column."""

    run_id: Uuid
    id: Uuid
    message_id: Uuid | None
    name: str
    label: str | None
    score: float | None
    data: JsonText | None
    created_at: datetime
    #: The conversation of a message that belongs to no run, whose id is the `run_id` then. None for other annotations.
    conversation_id: str | None = None

    @property
    def is_without_run(self) -> bool:
        """Whether it evaluates a message that belongs to no run."""
        return self.conversation_id is not None


class StopRequest(NamedTuple):
    """A request to stop a run, every column."""

    run_id: Uuid
    requested_at: datetime
    #: The user who requested it; None without users.
    requested_by: str | None


#: The types of the rows whose key begins with the id of their run, in the order of an export.
ROWS_OF_A_RUN = (SegmentRow, FrameRow, GapRow, AnnotationRow)


@dataclass(frozen=True, slots=True)
class Producer:
    """One process that records."""

    id: Uuid
    host: str
    pid: int
    started_at: datetime
    heartbeat_at: datetime
    #: Distinguishes it from another process with the same host and pid (`liveness`); None if unknown or marked dead.
    process: str | None = None
