"""Reads a body with the official OpenAI client, over a real socket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import openai

from recorder.testing import Answer, LoopbackProvider

#: Reads a body, streamed or not, and returns a summary of what the client returned.
BySdk = Callable[..., dict[str, Any]]


@contextmanager
def reading(
    request: Callable[[openai.OpenAI, bool], Any], summary: Callable[[Any, bool], dict[str, Any]]
) -> Iterator[BySdk]:
    """Yield a reader of bodies: `request` calls the client, and `summary` makes a dict of the response."""
    bodies: list[Answer] = []
    with (
        LoopbackProvider(lambda received, path: bodies[-1]) as provider,
        openai.OpenAI(base_url=provider.base_url, api_key="any", max_retries=0) as client,
    ):

        def read(body: bytes, *, stream: bool = True) -> dict[str, Any]:
            kind = "text/event-stream" if stream else "application/json"
            bodies.append(Answer(body=body, headers={"content-type": kind}))
            return summary(request(client, stream), stream)

        yield read
