"""What a request asks, and the hash by which two requests that ask the same are found."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from recorder.core.json import dumps
from recorder.redaction.credentials import is_secret, without_secrets

#: Keys of a request that hold what is said, and those that only say how it travels.
SAID = frozenset(("messages", "input", "prompt", "system"))


TRAVEL = frozenset(("stream", "stream_options", "extra_headers", "extra_query", "timeout"))


#: Arguments of the SDKs that are sent in another place than under their name: merged into the body, in a header.
_ELSEWHERE = frozenset(("extra_body", "betas"))


_SCALARS = (str, int, float, bool)


def asked(body: Mapping[str, Any]) -> dict[str, Any]:
    """What a request asks, however it travels: the same of the arguments of an SDK and of the JSON that it sends.

    Without credentials, which are no part of the question: a recording made with one key answers with another.
    """
    said = {**body, **(body.get("extra_body") or {})}
    return {
        key: without_secrets(value, key, []) if key not in SAID and type(value) not in _SCALARS else value
        for key, value in said.items()
        if value is not None and key not in TRAVEL and key not in _ELSEWHERE and not is_secret(key, value)
    }


def input_hash(body: Mapping[str, Any]) -> str:
    """SHA-256 of what is asked: the same request streamed or not has the same hash."""
    text = dumps(asked(body), sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
