"""A graph of LangGraph is recorded: `thread_id` is the conversation, and each node is a run around its model's."""

from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph

from recorder.integrations.langchain import ChatHistoryCallback

chat = ChatOpenAI(model="gpt-5.4-mini")


def answer(state: MessagesState) -> dict[str, list[object]]:
    """Ask the model."""
    return {"messages": [chat.invoke(state["messages"])]}


graph = StateGraph(MessagesState)
graph.add_node("answer", answer)
graph.add_edge(START, "answer")
with ChatHistoryCallback("sqlite:///chat_history.db") as history:
    found = graph.compile().invoke(
        {"messages": [("user", "Write me a song about sparkling water.")]},  # type: ignore[arg-type, typeddict-item, list-item]
        config={"callbacks": [history], "configurable": {"thread_id": "songs"}},  # type: ignore[list-item]
    )
print(found["messages"][-1].text)
