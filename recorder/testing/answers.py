"""The answers of a scripted provider: the content of each HTTP response, and when each part of it is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count, cycle, repeat
from typing import Any

from recorder.testing.anthropic_messages import anthropic_error, anthropic_request_id
from recorder.testing.openai_chat import openai_error


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP response: its content, its timing, how it is cut into pieces, and where it breaks off."""

    #: The HTTP status.
    status: int = 200
    #: Response headers beside `date`, `x-request-id`, `content-type` and the framing.
    headers: Mapping[str, str] = field(default_factory=dict)
    #: The body of an answer that is not streamed.
    body: bytes = b""
    #: The events of a streamed answer. They are sent one by one instead of `body`; the iterable may be infinite.
    frames: Iterable[bytes] | None = None
    #: Seconds from the request to the response headers and the first frame.
    delay: float = 0.0
    #: Seconds from one frame to the next; 0 sends as fast as the client reads.
    interval: float = 0.0
    #: Microseconds from the request to each frame, in place of `interval`. Frames beyond the list follow at once.
    offsets_us: Sequence[int] | None = None
    #: Close the connection after this many frames, before the response is complete.
    cut_after: int | None = None
    #: Send nothing more after this many frames, and leave the connection open.
    hang_after: int | None = None
    #: Size of each HTTP chunk in bytes, or several sizes that are used in turn. Frames that are due at the same moment
    #: are joined and then cut, also in the middle of a frame. None sends each frame as one chunk.
    chunks: int | Sequence[int] | None = None

    @classmethod
    def error(
        cls,
        status: int,
        message: str | None = None,
        type: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """An error response of OpenAI's API. Arguments that are None take the API's usual values for `status`."""
        usual_message, usual_type, usual_code = _ERRORS.get(status, _ERRORS[500])
        body = openai_error(message or usual_message, type or usual_type, code or usual_code)
        return cls(status=status, body=body, headers=headers or {})

    @classmethod
    def anthropic_error(
        cls,
        status: int,
        message: str | None = None,
        type: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """An error response of Anthropic's API. Arguments that are None take the API's usual values for `status`."""
        usual_message, usual_type = _ANTHROPIC_ERRORS.get(status, _ANTHROPIC_ERRORS[500])
        request_id = anthropic_request_id()
        body = anthropic_error(message or usual_message, type or usual_type, request_id)
        return cls(status=status, body=body, headers={"request-id": request_id, **(headers or {})})

    @property
    def streamed(self) -> bool:
        """Whether the body is sent in chunks, without a `content-length` header."""
        return any(x is not None for x in (self.frames, self.chunks, self.cut_after, self.hang_after))

    def timed_frames(self) -> Iterator[tuple[float, bytes]]:
        """Each frame with the time at which it is due, in seconds since the request."""
        return zip(self._due(), [self.body] if self.frames is None else self.frames, strict=False)

    def _due(self) -> Iterator[float]:
        if self.offsets_us is None:
            return (self.delay + number * self.interval for number in count())
        offsets = [offset / 1e6 for offset in self.offsets_us]
        return chain(offsets, repeat(max(offsets, default=0.0)))

    def pieces(self, frames: list[bytes]) -> Iterator[bytes]:
        """The HTTP chunks for frames that are due at the same moment."""
        if self.chunks is None:
            return (frame for frame in frames if frame)
        return _cut(b"".join(frames), [self.chunks] if isinstance(self.chunks, int) else self.chunks)


#: A function of a request's body and path. It returns the answer, or a text that is sent in the path's wire format.
Script = Callable[[dict[str, Any], str], Answer | str]


def scripted(*answers: Answer | str) -> Script:
    """A script that gives one answer for each request, in this order; the last one is repeated.

    Raises `ValueError` without any answers.
    """
    if not answers:
        raise ValueError("scripted() was called without answers; give at least one.")
    left = list(answers)

    def script(request: dict[str, Any], path: str) -> Answer | str:
        return left.pop(0) if len(left) > 1 else left[0]

    return script


def _cut(body: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    """`body` in pieces of these sizes, used in turn."""
    if not sizes or min(sizes) < 1:
        raise ValueError(f"chunks={list(sizes)} cannot cut a body; give sizes of at least 1 byte.")
    start = 0
    for size in cycle(sizes):
        if start >= len(body):
            return
        yield body[start : start + size]
        start += size


#: Message, type and code of the errors of OpenAI's API, by HTTP status.
_ERRORS: dict[int, tuple[str, str, str | None]] = {
    400: ("We could not parse the JSON body of your request.", "invalid_request_error", None),
    401: (
        "Incorrect API key provided: x. You can find your API key at "
        "https://platform.openai.com/account/api-keys.",
        "invalid_request_error",
        "invalid_api_key",
    ),
    403: ("You are not allowed to sample from this model", "invalid_request_error", None),
    404: (
        "The model `gpt-0` does not exist or you do not have access to it.",
        "invalid_request_error",
        "model_not_found",
    ),
    429: (
        "Rate limit reached for gpt-4o-mini on requests per min (RPM): Limit 3, Used 3, Requested 1. "
        "Please try again in 20s. Visit https://platform.openai.com/account/rate-limits to learn more.",
        "requests",
        "rate_limit_exceeded",
    ),
    500: (
        "The server had an error while processing your request. Sorry about that!",
        "server_error",
        None,
    ),
    503: (
        "That model is currently overloaded with other requests. You can retry your request.",
        "server_error",
        None,
    ),
}

#: Message and type of the errors of Anthropic's API, by HTTP status.
_ANTHROPIC_ERRORS: dict[int, tuple[str, str]] = {
    400: ("messages: at least one message is required", "invalid_request_error"),
    401: ("invalid x-api-key", "authentication_error"),
    403: ("Your API key does not have permission to use the specified resource.", "permission_error"),
    404: ("model: claude-0", "not_found_error"),
    413: ("Request exceeds the maximum size", "request_too_large"),
    429: (
        "This request would exceed the rate limit for your organization of 50 requests per minute. For details, "
        "refer to: https://docs.claude.com/en/api/rate-limits.",
        "rate_limit_error",
    ),
    500: ("Internal server error", "api_error"),
    529: ("Overloaded", "overloaded_error"),
}
