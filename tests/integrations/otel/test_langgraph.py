"""The turn of a LangGraph agent is one tree of spans under the span of the application."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recorder.export.otel.resend import resend
from recorder.integrations.otel import OpenTelemetryExporter
from recorder.testing import Answer, LoopbackProvider, openai_chat_frames, scripted
from tests.collector import Collector, telemetry
from tests.oracle import new_url

langchain: Any = pytest.importorskip("recorder.integrations.langchain")
agents: Any = pytest.importorskip("langchain.agents")
openai: Any = pytest.importorskip("langchain_openai")


def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


def tree(spans: list[dict[str, Any]], parent: str | None) -> list[Any]:
    """Return the names of the spans below a parent, each with those below it, in the order of their starts."""
    below = sorted((span for span in spans if span["parent"] == parent), key=lambda span: span["start"])
    return [(span["name"], span["kind"], tree(spans, span["id"])) for span in below]


def test_the_turn_of_an_agent_is_one_tree(collector: Collector, tmp_path: Path) -> None:
    """The graph and its steps are INTERNAL spans around the CLIENT spans of the model, live and sent again."""
    url = new_url(tmp_path)
    calls = [{"name": "multiply", "arguments": '{"a": 6, "b": 7}', "id": "call_1"}]
    answers = [
        Answer(frames=openai_chat_frames([], tool_calls=calls)),
        Answer(frames=openai_chat_frames(["It is ", "42."])),
    ]
    with (
        telemetry(collector.url) as telling,
        LoopbackProvider(scripted(*answers)) as provider,
        langchain.ChatHistoryCallback(url) as history,
        OpenTelemetryExporter(history, **telling.providers()),
        telling.tracer_provider.get_tracer("app").start_as_current_span("request"),
    ):
        model = openai.ChatOpenAI(model="gpt-x", base_url=provider.base_url, api_key="k", streaming=True)
        agent = agents.create_agent(model, [multiply])
        config = {"callbacks": [history], "configurable": {"thread_id": "t1"}}
        found = agent.invoke({"messages": [("user", "6 * 7?")]}, config=config)
    assert found["messages"][-1].text == "It is 42."
    live = collector.received("span")
    [(name, _, [(graph, kind, steps)])] = tree(live, None)
    assert (name, graph, kind) == ("request", "chain LangGraph", "internal")
    assert [(step, [(each, kind) for each, kind, _ in inside]) for step, _, inside in steps] == [
        ("chain model", [("chat gpt-x", "client")]),
        ("chain tools", [("execute_tool multiply", "internal")]),
        ("chain model", [("chat gpt-x", "client")]),
    ]
    assert len({span["trace"] for span in live}) == 1
    assert {span["attributes"].get("gen_ai.conversation.id") for span in live} == {
        None,
        "t1",
    }  # None: "request"
    collector.behave("new")
    resend(url, endpoint=collector.url)
    again = {span["id"]: span for span in collector.received("span")}
    assert again == {span["id"]: span for span in live if span["name"] != "request"}
