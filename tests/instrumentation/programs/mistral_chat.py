"""Asks a model with Mistral's SDK. The address and the key are in the environment."""

import asyncio
import json
import os
from typing import Any

from mistralai.client import Mistral
from mistralai.client.utils import BackoffStrategy, RetryConfig

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
MODEL = "mistral-small-latest"


def user(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def results(answer: Any) -> list[dict[str, Any]]:
    return [
        {
            "role": "tool",
            "tool_call_id": call.id,
            "name": call.function.name,
            "content": f"sunny in {json.loads(call.function.arguments)['city']}",
        }
        for call in answer.tool_calls
    ]


def text_of(event: Any) -> str:
    return event.data.choices[0].delta.content or "" if event.data.choices else ""


def complete_code(client: Mistral) -> None:
    answer = client.fim.complete(model="codestral-latest", prompt="Sing.", suffix="the end")
    print(answer.choices[0].message.content)
    with client.fim.stream(model="codestral-latest", prompt="Sing.", suffix="the end") as events:
        print("".join(text_of(event) for event in events))


def ask_an_agent(client: Mistral) -> None:
    answer = client.agents.complete(agent_id="ag_1", messages=user("Sing."))
    print(answer.choices[0].message.content)
    with client.agents.stream(agent_id="ag_1", messages=user("Sing.")) as events:
        print("".join(text_of(event) for event in events))


def ask(client: Mistral) -> None:
    print(client.chat.complete(model=MODEL, messages=user("Sing.")).choices[0].message.content)
    with client.chat.stream(model=MODEL, messages=user("Sing.")) as events:
        print("".join(text_of(event) for event in events))
    messages = user("Is it sunny in Paris?")
    answer = client.chat.complete(model=MODEL, messages=messages, tools=[TOOL]).choices[0].message
    messages = [*messages, answer.model_dump(), *results(answer)]
    print(client.chat.complete(model=MODEL, messages=messages, tools=[TOOL]).choices[0].message.content)
    with client.chat.stream(model=MODEL, messages=user("Count.")) as events:
        print(next(text_of(event) for event in events if text_of(event)))
    try:
        client.chat.complete(model=MODEL, messages=user("Nonsense."))
    except Exception:
        print("refused")
    print(client.chat.complete(model=MODEL, messages=user("Hurry.")).choices[0].message.content)


async def ask_async(client: Mistral) -> None:
    print((await client.chat.complete_async(model=MODEL, messages=user("Sing."))).choices[0].message.content)
    async with await client.chat.stream_async(model=MODEL, messages=user("Sing.")) as events:
        print("".join([text_of(event) async for event in events]))
    async with await client.chat.stream_async(model=MODEL, messages=user("Count.")) as events:
        async for event in events:
            if text_of(event):
                print(text_of(event))
                break
    try:
        await client.chat.complete_async(model=MODEL, messages=user("Nonsense."))
    except Exception:
        print("refused")
    print((await client.chat.complete_async(model=MODEL, messages=user("Hurry."))).choices[0].message.content)


if __name__ == "__main__":
    client = Mistral(
        api_key=os.environ["MISTRAL_API_KEY"],
        server_url=os.environ["MISTRAL_SERVER_URL"],
        retry_config=RetryConfig("backoff", BackoffStrategy(1, 10, 1.5, 1000), False),
    )
    ask(client)
    complete_code(client)
    ask_an_agent(client)
    asyncio.run(ask_async(client))
