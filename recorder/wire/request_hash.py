"""The part of a request that decides its answer, and a hash of it, by which equal requests are found."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from recorder.core.json import dumps
from recorder.redaction.credentials import is_secret, without_secrets

#: Keys of a request that hold the conversation, and keys that only control the transport.
CONTENT_KEYS = frozenset(
    (
        "messages",
        "input",
        "prompt",
        "system",
        "instructions",
        "contents",
        "systemInstruction",
        "system_instruction",
    )
)
TRANSPORT_KEYS = frozenset(("stream", "stream_options", "extra_headers", "extra_query", "timeout"))
#: Arguments of the SDKs that are not sent under their names: `extra_body` is merged into the body, `betas` is a header.
_ELSEWHERE = frozenset(("extra_body", "betas"))
_SCALARS = (str, int, float, bool)


def comparable_fields(body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a request that decide its answer; equal for an SDK's arguments and the JSON that the SDK sends.

    Credentials are left out, so that a recording made with one key answers requests with another key.
    """
    fields = {**body, **(body.get("extra_body") or {})}
    return {
        key: without_secrets(value, key, [])
        if key not in CONTENT_KEYS and type(value) not in _SCALARS
        else value
        for key, value in fields.items()
        if value is not None
        and key not in TRANSPORT_KEYS
        and key not in _ELSEWHERE
        and not is_secret(key, value)
    }


def input_hash(body: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of the comparable fields; a request has the same hash streamed and not streamed."""
    text = dumps(comparable_fields(body), sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
