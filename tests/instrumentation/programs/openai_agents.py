"""Asks agents of openai-agents over chat completions. The address and the key are in the environment."""

import asyncio

from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool
from openai import AsyncOpenAI


@function_tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


def new_agents() -> tuple[Agent, Agent]:
    # A client belongs to one event loop.
    model = OpenAIChatCompletionsModel("gpt-4o-mini", openai_client=AsyncOpenAI())
    return Agent(name="Singer", model=model), Agent(name="Weather", model=model, tools=[get_weather])


def ask(singer: Agent, weather: Agent) -> None:
    print(Runner.run_sync(singer, "Sing.").final_output)
    print(Runner.run_sync(weather, "Is it sunny in Paris?").final_output)


async def ask_async(singer: Agent, weather: Agent) -> None:
    print((await Runner.run(singer, "Sing.")).final_output)
    streamed = Runner.run_streamed(singer, "Sing.")
    deltas = [event.data async for event in streamed.stream_events() if event.type == "raw_response_event"]
    print("".join(each.delta for each in deltas if each.type == "response.output_text.delta"))
    streamed = Runner.run_streamed(weather, "Is it sunny in Paris?")
    async for _ in streamed.stream_events():
        pass
    print(streamed.final_output)
    await leave_early(singer)
    try:
        await Runner.run(singer, "Nonsense.")
    except Exception:
        print("refused")
    print((await Runner.run(singer, "Hurry.")).final_output)


async def leave_early(singer: Agent) -> None:
    streamed = Runner.run_streamed(singer, "Count.")
    async for event in streamed.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            print(event.data.delta)
            streamed.cancel()


if __name__ == "__main__":
    first, second = new_agents(), new_agents()
    ask(*first)
    asyncio.run(ask_async(*second))
