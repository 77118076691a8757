"""Chains, graphs, tools and retrievers are runs around the runs of models, which the views and commands leave out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from typer.testing import CliRunner

from recorder.cli.app import app
from recorder.recording.step_values import MAX_CHARACTERS, shortened
from recorder.replay import Replay
from tests.oracle import new_url, sql

langchain: Any = pytest.importorskip("recorder.integrations.langchain")
runnables: Any = pytest.importorskip("langchain_core.runnables")
fakes: Any = pytest.importorskip("langchain_core.language_models.fake_chat_models")
tools: Any = pytest.importorskip("langchain_core.tools")
messages: Any = pytest.importorskip("langchain_core.messages")


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Return the URL of a new database."""
    return new_url(tmp_path)


@pytest.fixture
def history(url: str) -> Iterator[Any]:
    """Yield a recorder that is closed afterwards."""
    with langchain.ChatHistoryCallback(url) as history:
        yield history


def model(*answers: str) -> Any:
    """Return a model of LangChain with these answers."""
    return fakes.FakeListChatModel(responses=list(answers))


def runs(url: str, history: Any) -> list[tuple[Any, ...]]:
    """Return name, operation, status and the name of the parent of each run, in the order of their starts."""
    history.flush().wait()
    rows = sql(url, "SELECT id, parent_run_id, operation, status, request FROM runs ORDER BY started_at, id")
    names = {id: json.loads(request or "{}").get("name") for id, _, _, _, request in rows}
    return [(names[id], operation, status, names.get(parent)) for id, parent, operation, status, _ in rows]


def test_a_chain_and_its_steps_stand_around_the_run_of_the_model(url: str, history: Any) -> None:
    """Each has its parent, and all belong to one conversation."""
    chain = runnables.RunnableLambda(str.upper).with_config(run_name="louder") | model("Hello")
    chain.invoke("hi", config={"callbacks": [history], "run_name": "greeting"})
    assert runs(url, history) == [
        ("greeting", "chain", "complete", None),
        ("louder", "chain", "complete", "greeting"),
        (None, "chat", "complete", "greeting"),
    ]
    assert sql(url, "SELECT count(DISTINCT conversation_id) FROM runs") == [(1,)]


def test_inputs_and_outputs_are_stored(url: str, history: Any) -> None:
    """A message is an object."""
    chain = runnables.RunnableLambda(lambda text: messages.AIMessage(text * 2))
    chain.invoke("hi", config={"callbacks": [history]})
    history.flush().wait()
    [(request, output)] = sql(url, "SELECT request, output FROM runs")
    assert json.loads(request)["inputs"] == "hi"
    assert json.loads(output) == {"output": {"type": "ai", "content": "hihi"}}


def test_a_tool_is_a_run(url: str, history: Any) -> None:
    """Its arguments are its input."""
    tools.tool(description="Adds.")(add).invoke({"a": 1, "b": 2}, config={"callbacks": [history]})
    assert runs(url, history) == [("add", "execute_tool", "complete", None)]
    [(request, output)] = sql(url, "SELECT request, output FROM runs")
    assert json.loads(request)["inputs"] == {"a": 1, "b": 2}
    assert json.loads(output) == {"output": 3}


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def test_a_retriever_is_a_run(url: str, history: Any) -> None:
    """The documents are its output."""
    retrievers: Any = pytest.importorskip("langchain_core.retrievers")
    documents = pytest.importorskip("langchain_core.documents")

    class Shelf(retrievers.BaseRetriever):  # type: ignore[misc]
        def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Any]:
            return [documents.Document(f"About {query}")]

    Shelf().invoke("tea", config={"callbacks": [history]})
    assert runs(url, history) == [("Shelf", "retrieval", "complete", None)]
    [(output,)] = sql(url, "SELECT output FROM runs")
    assert json.loads(output) == {"output": [{"page_content": "About tea", "metadata": {}}]}


def test_a_step_that_fails_has_its_error(url: str, history: Any) -> None:
    """The chain around it fails, too."""
    chain = runnables.RunnableLambda(int).with_config(run_name="number") | model("Hello")
    with pytest.raises(ValueError, match="invalid literal"):
        chain.invoke("hi", config={"callbacks": [history], "run_name": "whole"})
    assert [row[:3] for row in runs(url, history)] == [
        ("whole", "chain", "error"),
        ("number", "chain", "error"),
    ]
    assert sql(url, "SELECT DISTINCT error_type FROM runs") == [("ValueError",)]


def test_a_hidden_step_is_left_out(url: str, history: Any) -> None:
    """Its children are those of the step around it."""
    inner = (runnables.RunnableLambda(str.upper) | model("Hello")).with_config(tags=["langsmith:hidden"])
    outer = runnables.RunnableLambda(lambda text: inner.invoke(text)).with_config(run_name="outer")
    outer.invoke("hi", config={"callbacks": [history]})
    assert {row[3] for row in runs(url, history)} <= {None, "outer"}


def test_views_and_commands_look_at_the_runs_of_models_only(url: str, history: Any) -> None:
    """Also while a chain runs, and after one that failed."""
    config = {"callbacks": [history]}
    (runnables.RunnableLambda(str.upper) | model("Hello")).invoke("hi", config=config)
    runnables.RunnableLambda(str.upper).invoke("hi", config=config)
    history.flush().wait()
    assert sql(url, "SELECT count(*) FROM runs WHERE operation = 'chain'") == [(3,)]
    assert sql(url, "SELECT count(*) FROM run_stats") == [(1,)]
    assert sql(url, "SELECT role, content FROM transcripts ORDER BY position") == [
        ("user", "HI"), ("assistant", "Hello"),
    ]  # fmt: skip
    with Replay(url) as replay:
        assert "".join(chunk.text for chunk in replay.stream(speed=None)) == "Hello"
    found = CliRunner().invoke(app, ["ls", "--url", url, "--json"])
    assert [row["runs"] for row in json.loads(found.output)] == [1]
    assert json.loads(CliRunner().invoke(app, ["stats", "--url", url, "--json"]).output)["runs"] == 1


def test_a_chain_is_shown_with_all_runs_in_it(url: str, history: Any) -> None:
    """`recorder show` indents them, and `--json` has them, too."""
    chain = runnables.RunnableLambda(str.upper).with_config(run_name="louder") | model("Hello")
    chain.invoke("hi", config={"callbacks": [history], "run_name": "greeting"})
    history.flush().wait()
    [(id,)] = sql(url, "SELECT id FROM runs WHERE parent_run_id IS NULL")
    shown = CliRunner().invoke(app, ["show", id, "--url", url]).output
    lines = [line.split() for line in shown.splitlines()[-3:]]
    assert [line[1:4] for line in lines[:2]] == [
        ["chain", "greeting", "complete"], ["chain", "louder", "complete"],
    ]  # fmt: skip
    found = json.loads(CliRunner().invoke(app, ["show", id, "--url", url, "--json"]).output)
    assert (found["output"], [run["depth"] for run in found["runs"]]) == ({"output": ANY}, [0, 1, 1])


def test_long_values_are_cut() -> None:
    """Their length is told, and nothing after them is kept."""
    found = shortened({"text": "x" * 2 * MAX_CHARACTERS, "more": "y"})
    assert str(found["text"]).endswith(f"... ({2 * MAX_CHARACTERS:,} characters)")
    assert len(json.dumps(found)) < MAX_CHARACTERS + 100


def test_a_value_that_contains_itself_is_cut() -> None:
    """Only so many levels are kept."""
    value: list[Any] = []
    value.append(value)
    assert json.dumps(shortened(value)).count("[") < 20


def test_a_graph_of_agents_is_one_conversation(url: str, history: Any) -> None:
    """`thread_id` is its id, and its nodes are in the metadata of the model's runs."""
    graph_module = pytest.importorskip("langgraph.graph")
    graph = graph_module.StateGraph(graph_module.MessagesState)
    for name in ("ask", "answer"):
        graph.add_node(name, lambda state: {"messages": [model("Hello").invoke(state["messages"])]})
    graph.add_edge(graph_module.START, "ask")
    graph.add_edge("ask", "answer")
    config = {"callbacks": [history], "configurable": {"thread_id": "t1"}}
    graph.compile().invoke({"messages": [("user", "hi")]}, config=config)
    history.flush().wait()
    rows = sql(url, "SELECT metadata FROM runs WHERE operation = 'chat' ORDER BY started_at")
    assert [json.loads(metadata)["langgraph_node"] for (metadata,) in rows] == ["ask", "answer"]
    assert sql(url, "SELECT DISTINCT conversation_id FROM runs") == [("t1",)]


def test_a_graph_that_waits_for_somebody_is_interrupted_and_goes_on(url: str) -> None:
    """No error is recorded, and the conversation is the same, though the process was another one meanwhile."""
    graph_module = pytest.importorskip("langgraph.graph")
    types = pytest.importorskip("langgraph.types")
    memory = pytest.importorskip("langgraph.checkpoint.memory")
    graph = graph_module.StateGraph(graph_module.MessagesState)
    graph.add_node("ask", lambda state: {"messages": [("user", types.interrupt("Your name?"))]})
    graph.add_edge(graph_module.START, "ask")
    compiled = graph.compile(checkpointer=memory.InMemorySaver())
    for given in ({"messages": [("user", "hi")]}, types.Command(resume="Ann")):
        with langchain.ChatHistoryCallback(url) as history:
            compiled.invoke(given, config={"callbacks": [history], "configurable": {"thread_id": "t1"}})
    statuses = "SELECT status FROM runs WHERE parent_run_id IS NULL ORDER BY started_at"
    assert sql(url, statuses) == [("interrupted",), ("complete",)]
    assert sql(url, "SELECT count(*) FROM runs WHERE error_type IS NOT NULL OR status = 'streaming'") == [
        (0,)
    ]
    assert sql(url, "SELECT DISTINCT conversation_id FROM runs") == [("t1",)]
