"""The messages of a request, in the shapes in which frameworks and applications pass them."""

from __future__ import annotations

from typing import Any

import pytest

from recorder.messages import AIMessage, HumanMessage, SystemMessage
from recorder.recording.message_copies import request_from

langchain = pytest.importorskip("langchain_core.messages")

PAIRS = [("user", "Hi"), ("assistant", "Hello")]
OURS = [HumanMessage("Hi"), AIMessage("Hello")]
LANGCHAIN = [langchain.HumanMessage("Hi"), langchain.AIMessage("Hello")]
DICTS = [{"role": role, "content": content} for role, content in PAIRS]


@pytest.mark.parametrize(
    "given", [PAIRS, OURS, LANGCHAIN, DICTS], ids=["pairs", "ours", "LangChain's", "dicts"]
)
def test_a_request_is_a_list_in_a_list_or_a_flat_list(given: list[Any]) -> None:
    """Each message is recorded whole, also if the lists are tuples."""
    for batch in ([given], given, (tuple(given),), tuple(given)):
        assert [(message.type, message.content) for message in request_from(batch)] == [
            ("human", "Hi"),
            ("ai", "Hello"),
        ]


def test_a_request_of_texts_or_of_one_message() -> None:
    """A text is a human message. A role may come with content blocks."""
    for batch in (["Hi"], [["Hi"]], "Hi"):
        assert [(message.type, message.content) for message in request_from(batch)] == [("human", "Hi")]
    blocks = [{"type": "text", "text": "Be kind"}]
    [message] = request_from([("system", blocks)])
    assert isinstance(message, SystemMessage)
    assert message.content == blocks
    assert request_from([]) == request_from([[]]) == request_from(None) == []
