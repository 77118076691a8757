"""Asks a model with the clients of ollama. The address is in the environment."""

import asyncio
from collections.abc import Callable
from typing import Any

from ollama import AsyncClient, Client, ResponseError

MODEL = "qwen3"


def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def twice(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except ResponseError:
        return call()


def results(answer: Any) -> list[dict[str, Any]]:
    return [
        {"role": "tool", "tool_name": call.function.name, "content": get_weather(**call.function.arguments)}
        for call in answer.tool_calls
    ]


def ask(client: Client) -> None:
    print(client.chat(MODEL, user("Sing.")).message.content)
    print("".join(part.message.content or "" for part in client.chat(MODEL, user("Sing."), stream=True)))
    messages = user("Is it sunny in Paris?")
    answer = client.chat(MODEL, messages, tools=[get_weather]).message
    messages = [*messages, answer, *results(answer)]
    print(client.chat(MODEL, messages, tools=[get_weather]).message.content)
    stream = client.chat(MODEL, user("Count."), stream=True)
    print(next(part.message.content for part in stream))
    stream.close()
    try:
        client.chat(MODEL, user("Nonsense."))
    except ResponseError:
        print("refused")
    print(twice(lambda: client.chat(MODEL, user("Hurry."))).message.content)


async def ask_async(client: AsyncClient) -> None:
    print((await client.chat(MODEL, user("Sing."))).message.content)
    stream = await client.chat(MODEL, user("Sing."), stream=True)
    print("".join([part.message.content or "" async for part in stream]))
    messages = user("Is it sunny in Paris?")
    answer = (await client.chat(MODEL, messages, tools=[get_weather])).message
    messages = [*messages, answer.model_dump(exclude_none=True), *results(answer)]
    print((await client.chat(MODEL, messages, tools=[get_weather])).message.content)
    counting: Any = await client.chat(MODEL, user("Count."), stream=True)
    print((await anext(counting)).message.content)
    await counting.aclose()
    try:
        await client.chat(MODEL, user("Nonsense."))
    except ResponseError:
        print("refused")
    try:
        await client.chat(MODEL, user("Hurry."))
    except ResponseError:
        pass
    print((await client.chat(MODEL, user("Hurry."))).message.content)


def complete(client: Client) -> None:
    print(client.generate(MODEL, "Sing.").response)
    print("".join(part.response or "" for part in client.generate(MODEL, "Sing.", stream=True)))


if __name__ == "__main__":
    ask(Client())
    asyncio.run(ask_async(AsyncClient()))
    complete(Client())
