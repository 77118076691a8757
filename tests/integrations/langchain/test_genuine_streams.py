"""Every genuine stream through LangChain: what is recorded equals what is recorded through the SDK."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from recorder import ChatHistoryCallback
from recorder.testing import LoopbackProvider
from tests.genuine import Stream
from tests.instrumentation.test_genuine_streams import answer_of, every_stream, is_responses, read
from tests.integrations.langchain.ways import async_model_of, model_of
from tests.oracle import new_url, sql

#: Of the SDK's own types, which do not fit all events.
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
langchain: Any = pytest.importorskip("recorder.integrations.langchain")


def model_for(stream: Stream) -> str:
    """Return the name of LangChain's model for the provider of a stream."""
    if stream.path.endswith("/messages"):
        return "ChatAnthropic"
    return "ChatOpenAI over Responses" if is_responses(stream) else "ChatOpenAI"


def read_plain(stream: Stream, url: str, history: Any) -> Exception | None:
    """Read the stream with `stream`. Return the error that LangChain raises, if it raises one."""
    with model_of(model_for(stream), url, max_retries=0, callbacks=[history]) as model:
        try:
            for _ in model.stream("Hi"):
                pass
        except Exception as error:
            return error
    return None


async def read_async(stream: Stream, url: str, history: Any) -> Exception | None:
    """Read the stream with `astream`."""
    async with async_model_of(model_for(stream), url, max_retries=0, callbacks=[history]) as model:
        try:
            async for _ in model.astream("Hi"):
                pass
        except Exception as error:
            return error
    return None


def tokens(url: str) -> list[Any]:
    """Return kind, place and text of each token."""
    return sql(url, "SELECT kind, idx, text FROM tokens ORDER BY seq")


def end(url: str) -> Any:
    """Return how the run ended, with its usage."""
    columns = "status, finish_reason, response_id, input_tokens, output_tokens, usage, frames_sha256"
    [found] = sql(url, f"SELECT {columns} FROM runs")
    return found


@pytest.mark.matrix
@pytest.mark.parametrize("way", ["plain", "on a loop"])
@every_stream
def test_a_genuine_stream_is_recorded_through_langchain_as_through_the_sdk(
    stream: Stream | None, way: str, tmp_path: Path
) -> None:
    """Tokens, usage, finish reason and frames are equal; if LangChain raises, what came before is."""
    if stream is None:
        pytest.skip("no genuine provider streams")
    through_sdk, through_langchain = new_url(tmp_path, "sdk.db"), new_url(tmp_path, "langchain.db")
    with LoopbackProvider(answer_of(stream, None)) as provider:
        with ChatHistoryCallback(through_sdk) as history:
            read(stream, provider, history)
        with langchain.ChatHistoryCallback(through_langchain) as history:
            if way == "plain":
                error = read_plain(stream, provider.url, history)
            else:
                error = asyncio.run(read_async(stream, provider.url, history))
    found, expected = tokens(through_langchain), tokens(through_sdk)
    if error is None:
        assert found == expected
        assert end(through_langchain) == end(through_sdk)
    else:
        assert found == expected[: len(found)]
        assert end(through_langchain)[0] == "error"
