"""The table of docs/langchain.md: what is recorded of each way of calling a model, however the call ends."""

from __future__ import annotations

from functools import partial
from inspect import isasyncgenfunction
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("recorder.integrations.langchain")

from recorder.integrations.langchain import ChatHistoryCallback
from recorder.testing import (
    Answer,
    LoopbackProvider,
    anthropic_messages_body,
    anthropic_messages_frames,
    openai_chat_body,
    openai_chat_frames,
    openai_responses_body,
    openai_responses_frames,
)
from tests.calls import called, text_of
from tests.integrations.langchain import ends
from tests.integrations.langchain.ways import MODELS, PIECES, TEXT, WAYS, Way, async_model_of, model_of
from tests.oracle import new_url, sql

#: LangChain warns that the third version of its events may change, and of a call of a tool that was not offered.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*:langchain_core._api.beta_decorator.LangChainBetaWarning"),
    pytest.mark.filterwarnings("ignore:Received unexpected tool content block:UserWarning"),
    pytest.mark.filterwarnings("ignore:Received only system message:UserWarning"),
]
#: Model -> the call of a tool, a streamed answer with it, one that is not streamed, and the finish reason.
_CALL = {"id": "call_1", "name": "get_weather"}
_PROVIDERS: dict[str, tuple[dict[str, Any], Any, Any, str]] = {
    "ChatOpenAI": (_CALL | {"arguments": '{"city":"Paris"}'}, openai_chat_frames, openai_chat_body, "tool_calls"),
    "ChatOpenAI over Responses": (
        _CALL | {"arguments": '{"city":"Paris"}'}, openai_responses_frames, openai_responses_body, "tool_calls"
    ),
    "ChatAnthropic": (
        _CALL | {"input": '{"city":"Paris"}'}, anthropic_messages_frames, anthropic_messages_body, "tool_use"
    ),
}  # fmt: skip


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("model", "way", "end"),
    [pytest.param(*cell, id=f"{cell[0]}, {cell[1].__name__}, {cell[2]}") for cell in ends.cells()],
)
def test_the_status_is_that_of_the_table(model: str, way: Way, end: str, tmp_path: Path) -> None:
    """`python -m tests.integrations.langchain.ends` makes each call and writes the table."""
    cell = ends.shown()[(way.__doc__ or "").removesuffix("."), end]
    statuses = dict(each.split(": ") for each in cell.split(", ")) if ": " in cell else {}
    assert ends.status_of(model, way, end, tmp_path) == statuses.get(model, cell)


@pytest.mark.matrix
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("model", MODELS)
def test_everything_of_an_answer_is_recorded(model: str, way: Way, tmp_path: Path) -> None:
    """Text, call of a tool, usage, finish reason and conversation, once."""
    call, frames, body, reason = _PROVIDERS[model]

    def answer(request: dict[str, Any], path: str) -> Answer:
        if request.get("stream"):
            return Answer(frames=frames(PIECES, tool_calls=[call]))
        headers = {"content-type": "application/json"}
        return Answer(headers=headers, body=body(PIECES, tool_calls=[call]))

    url = new_url(tmp_path)
    open_model = async_model_of if isasyncgenfunction(way) else model_of
    with ChatHistoryCallback(url) as history, LoopbackProvider(answer) as provider, history.conversation("c"):
        got = called(way, partial(open_model, model, provider.url, callbacks=[history]))
    assert (got.text, got.error) == (TEXT, None)
    columns = "id, status, finish_reason, usage_source, input_tokens, output_tokens > 0, conversation_id"
    [(run_id, *run)] = sql(url, f"SELECT {columns} FROM runs WHERE operation = 'chat'")
    assert [*map(str, run)] == ["complete", reason, "provider", "14", "1", "c"]
    assert text_of(url, run_id) == TEXT
    kinds = "SELECT text FROM tokens WHERE run_id = ? AND kind = 'tool_args' ORDER BY seq"
    assert "".join(text for (text,) in sql(url, kinds, run_id)).replace(" ", "") == '{"city":"Paris"}'
