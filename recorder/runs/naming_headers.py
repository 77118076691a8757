"""The headers that name the conversation and the user of one call. They are removed before the request is sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

#: Header, in lower case -> the key in the metadata of the run.
NAMING_HEADERS = {"x-recorder-conversation": "conversation_id", "x-recorder-user": "user_id"}


class SplitHeaders(NamedTuple):
    """The headers of a request in two parts."""

    #: The headers that are sent.
    sent: dict[str, Any]
    #: What the others name, as metadata of the run.
    names: dict[str, str]


def split_headers(headers: Mapping[str, Any]) -> SplitHeaders:
    """The headers to send, and what the naming headers say. Names of headers may be in any case."""
    found = SplitHeaders({}, {})
    for name, value in headers.items():
        key = NAMING_HEADERS.get(name.lower()) if isinstance(name, str) else None
        if key is None:
            found.sent[name] = value
        elif (
            isinstance(value, (str, bytes)) and value
        ):  # the SDKs have values that mean "leave this header out"
            found.names[key] = value if isinstance(value, str) else value.decode("utf-8", "replace")
    return found
