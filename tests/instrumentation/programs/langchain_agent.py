"""Asks models that `init_chat_model` made, and an agent, which is a graph of LangGraph."""

import asyncio
from typing import Any

from langchain.agents import create_agent
from langchain.chat_models import init_chat_model
from pydantic import BaseModel


class Person(BaseModel):
    """Somebody."""

    name: str
    age: int


def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


def question(text: str) -> Any:
    return {"messages": [{"role": "user", "content": text}]}


def ask(model: Any) -> None:
    print(model.invoke("Sing.").text)
    [answer] = model.batch(["Sing."])
    print(answer.text)
    print(model.with_structured_output(Person, method="function_calling").invoke("Who is it?"))
    agent = create_agent(model, [get_weather])
    print(agent.invoke(question("Is it sunny in Paris?"))["messages"][-1].text)
    tokens = agent.stream(question("Is it sunny in Paris?"), stream_mode="messages")
    print("".join(token.text for token, _ in tokens if token.type == "AIMessageChunk"))


async def ask_async(model: Any) -> None:
    agent = create_agent(model, [get_weather])
    print((await agent.ainvoke(question("Is it sunny in Paris?")))["messages"][-1].text)
    events = agent.astream_events(question("Is it sunny in Paris?"), version="v2")
    chunks = [event["data"]["chunk"] async for event in events if event["event"] == "on_chat_model_stream"]
    print("".join(chunk.text for chunk in chunks))


async def main(models: list[Any]) -> None:
    for model in models:
        await ask_async(model)


if __name__ == "__main__":
    models = [init_chat_model("openai:gpt-4o-mini"), init_chat_model("anthropic:claude-haiku-4-5")]
    for model in models:
        ask(model)
    asyncio.run(main(models))
