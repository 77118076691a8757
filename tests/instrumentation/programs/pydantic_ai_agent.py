"""Asks agents of pydantic-ai with models of OpenAI and Anthropic. The addresses and keys are in the environment."""

import asyncio

from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel


class Person(BaseModel):
    name: str
    age: int


def agent_of(model: Model) -> Agent:
    agent = Agent(model)

    @agent.tool_plain
    def get_weather(city: str) -> str:
        """The weather in a city."""
        return f"sunny in {city}"

    return agent


def ask(model: Model) -> None:
    print(Agent(model).run_sync("Sing.").output)
    print("".join(Agent(model).run_stream_sync("Sing.").stream_text(delta=True)))
    print(agent_of(model).run_sync("Is it sunny in Paris?").output)
    try:
        Agent(model).run_sync("Nonsense.")
    except Exception:
        print("refused")
    print(Agent(model).run_sync("Hurry.").output)


async def ask_async(model: Model) -> None:
    print((await Agent(model).run("Sing.")).output)
    async with Agent(model).run_stream("Sing.") as result:
        print("".join([text async for text in result.stream_text(delta=True)]))
    async with agent_of(model).run_stream("Is it sunny in Paris?") as result:
        print(await result.get_output())
    async with Agent(model).run_stream("Count.") as result:
        async for text in result.stream_text(delta=True, debounce_by=None):
            print(text)
            break
    try:
        await Agent(model).run("Nonsense.")
    except Exception:
        print("refused")
    print((await Agent(model).run("Hurry.")).output)


async def main(models: list[Model]) -> None:
    for model in models:
        await ask_async(model)


if __name__ == "__main__":
    models = [OpenAIChatModel("gpt-4o-mini"), AnthropicModel("claude-haiku-4-5")]
    for model in models:
        ask(model)
        print(Agent(model, output_type=Person).run_sync("Who is it?").output)
    asyncio.run(main(models))
