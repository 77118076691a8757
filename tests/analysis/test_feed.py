"""What was committed becomes texts: sentences of streams stand where the stored message has them, for each provider."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recorder import ChatHistoryCallback
from recorder.analysis import AnalyzedText
from recorder.messages import HumanMessage
from recorder.models import ChatAnthropic, ChatOpenAI, OpenAI
from recorder.testing import LoopbackProvider
from tests.oracle import new_url, sql

ANSWER = 'He said "No. Never." 你好。 It costs 3.50 dollars 😀! Is that \x00 fine? Yes'
#: Makes a model of a provider.
Make = Callable[[LoopbackProvider, list[Any]], Any]

MODELS: dict[str, Make] = {
    "openai": lambda provider, callbacks: ChatOpenAI(
        base_url=provider.base_url, api_key="any", callbacks=callbacks, streaming=True
    ),
    "responses": lambda provider, callbacks: ChatOpenAI(
        base_url=provider.base_url, api_key="any", callbacks=callbacks, streaming=True, use_responses_api=True
    ),
    "completions": lambda provider, callbacks: OpenAI(
        base_url=provider.base_url, api_key="any", callbacks=callbacks, streaming=True
    ),
    "anthropic": lambda provider, callbacks: ChatAnthropic(
        base_url=provider.url, api_key="any", callbacks=callbacks, streaming=True
    ),
}


class Places:
    """Collects where sentences stand."""

    name, version = "places", "1"

    def __init__(self) -> None:
        self.sentences: list[AnalyzedText] = []
        self.messages: list[AnalyzedText] = []

    def on_sentence(self, sentence: AnalyzedText) -> None:
        self.sentences.append(sentence)

    def on_message(self, message: AnalyzedText) -> None:
        self.messages.append(message)


@pytest.mark.parametrize("name", MODELS)
def test_sentences_of_a_stream_stand_in_its_message(name: str, tmp_path: Path) -> None:
    """Of each provider's stream the offsets are those of the stored text, also with NUL and emoji."""
    url, places = new_url(tmp_path), Places()
    with (
        LoopbackProvider(ANSWER) as provider,
        ChatHistoryCallback(url, conversation_id="c", analyze=[places], analyze_in="thread") as history,
    ):
        model = MODELS[name](provider, [history])
        question = "Why? And how much?"
        for _ in model.stream(question if name == "completions" else [HumanMessage(question)]):
            pass
    asked, reply = places.messages
    assert (asked.role, asked.run_id, asked.text) == ("user", None, "Why? And how much?")
    assert (reply.role, reply.text) == ("assistant", ANSWER)
    assert [(reply.run_id,)] == sql(url, "SELECT id FROM runs")
    for sentence in places.sentences:
        text = ANSWER if sentence.run_id else asked.text
        assert text[sentence.start : sentence.end] == sentence.text
    assert [each.text for each in places.sentences] == [
        "Why?", "And how much?",
        'He said "No. Never."', "你好。", "It costs 3.50 dollars 😀!", "Is that \x00 fine?", "Yes",
    ]  # fmt: skip
