"""Asks ChatOpenAI and ChatAnthropic. Their addresses and keys are in the environment."""

import asyncio
from typing import Any

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI


@tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


def results(answer: Any) -> list[ToolMessage]:
    return [get_weather.invoke({**call, "type": "tool_call"}) for call in answer.tool_calls]


def ask(model: Any) -> None:
    print(model.invoke("Sing.").text)
    print("".join(chunk.text for chunk in model.stream("Sing.")))
    messages: list[Any] = [HumanMessage("Is it sunny in Paris?")]
    messages.append(model.bind_tools([get_weather]).invoke(messages))
    print(model.bind_tools([get_weather]).invoke([*messages, *results(messages[-1])]).text)
    for chunk in model.stream("Count."):
        if chunk.text:
            print(chunk.text)
            break
    try:
        model.invoke("Nonsense.")
    except Exception:
        print("refused")
    print(model.invoke("Hurry.").text)


async def ask_async(model: Any) -> None:
    print((await model.ainvoke("Sing.")).text)
    print("".join([chunk.text async for chunk in model.astream("Sing.")]))
    messages: list[Any] = [HumanMessage("Is it sunny in Paris?")]
    chunks = [chunk async for chunk in model.bind_tools([get_weather]).astream(messages)]
    answer = sum(chunks[1:], chunks[0])
    parts = [
        chunk.text
        async for chunk in model.bind_tools([get_weather]).astream([*messages, answer, *results(answer)])
    ]
    print("".join(parts))
    stream = model.astream("Count.")
    async for chunk in stream:
        if chunk.text:
            print(chunk.text)
            break
    await stream.aclose()
    try:
        await model.ainvoke("Nonsense.")
    except Exception:
        print("refused")
    print((await model.ainvoke("Hurry.")).text)


async def main(models: list[Any]) -> None:
    for model in models:
        await ask_async(model)


if __name__ == "__main__":
    models: list[Any] = [
        ChatOpenAI(model="gpt-4o-mini"),
        ChatOpenAI(model="gpt-4o-mini", use_responses_api=True),
        ChatAnthropic(model="claude-haiku-4-5"),
    ]
    for model in models:
        ask(model)
    asyncio.run(main(models))
