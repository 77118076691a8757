"""Asks models of OpenAI and Anthropic through LiteLLM. The addresses and keys are in the environment."""

import asyncio
import json
from typing import Any

import litellm

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
MODELS = ["openai/gpt-4o-mini", "anthropic/claude-haiku-4-5"]


def user(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def results(answer: Any) -> list[dict[str, Any]]:
    return [
        {
            "role": "tool",
            "tool_call_id": call.id,
            "content": f"sunny in {json.loads(call.function.arguments)['city']}",
        }
        for call in answer.tool_calls
    ]


def text_of(chunk: Any) -> str:
    return chunk.choices[0].delta.content or "" if chunk.choices else ""


def ask(model: str) -> None:
    print(litellm.completion(model, user("Sing.")).choices[0].message.content)
    chunks = litellm.completion(model, user("Sing."), stream=True, stream_options={"include_usage": True})
    print("".join(text_of(chunk) for chunk in chunks))
    messages = user("Is it sunny in Paris?")
    answer = litellm.completion(model, messages, tools=[TOOL]).choices[0].message
    messages = [*messages, answer.model_dump(), *results(answer)]
    print(litellm.completion(model, messages, tools=[TOOL]).choices[0].message.content)
    for chunk in litellm.completion(model, user("Count."), stream=True):
        if text_of(chunk):
            print(text_of(chunk))
            break
    try:
        litellm.completion(model, user("Nonsense."))
    except Exception:
        print("refused")
    print(litellm.completion(model, user("Hurry."), num_retries=2).choices[0].message.content)


async def ask_async(model: str) -> None:
    print((await litellm.acompletion(model, user("Sing."))).choices[0].message.content)
    chunks = await litellm.acompletion(model, user("Sing."), stream=True)
    print("".join([text_of(chunk) async for chunk in chunks]))
    messages = user("Is it sunny in Paris?")
    parts = await litellm.acompletion(model, messages, tools=[TOOL], stream=True)
    answer = litellm.stream_chunk_builder([part async for part in parts]).choices[0].message
    messages = [*messages, answer.model_dump(), *results(answer)]
    print((await litellm.acompletion(model, messages, tools=[TOOL])).choices[0].message.content)
    async for chunk in await litellm.acompletion(model, user("Count."), stream=True):
        if text_of(chunk):
            print(text_of(chunk))
            break
    try:
        await litellm.acompletion(model, user("Nonsense."))
    except Exception:
        print("refused")
    print((await litellm.acompletion(model, user("Hurry."), num_retries=2)).choices[0].message.content)


async def main() -> None:
    for model in MODELS:
        await ask_async(model)


if __name__ == "__main__":
    litellm.suppress_debug_info = True
    for model in MODELS:
        ask(model)
    asyncio.run(main())
