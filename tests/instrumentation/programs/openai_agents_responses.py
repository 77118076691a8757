"""Asks agents of openai-agents over its default, the Responses API. Address and key are in the environment."""

import asyncio

from agents import Agent, Runner, function_tool


@function_tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


SINGER = Agent(name="Singer", model="gpt-4o-mini")
WEATHER = Agent(name="Weather", model="gpt-4o-mini", tools=[get_weather])


async def main() -> None:
    print((await Runner.run(SINGER, "Sing.")).final_output)
    streamed = Runner.run_streamed(SINGER, "Sing.")
    deltas = [event.data async for event in streamed.stream_events() if event.type == "raw_response_event"]
    print("".join(each.delta for each in deltas if each.type == "response.output_text.delta"))
    print((await Runner.run(WEATHER, "Is it sunny in Paris?")).final_output)
    streamed = Runner.run_streamed(WEATHER, "Is it sunny in Paris?")
    async for _ in streamed.stream_events():
        pass
    print(streamed.final_output)
    await leave_early()
    try:
        await Runner.run(SINGER, "Nonsense.")
    except Exception:
        print("refused")
    print((await Runner.run(SINGER, "Hurry.")).final_output)


async def leave_early() -> None:
    streamed = Runner.run_streamed(SINGER, "Count.")
    async for event in streamed.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            print(event.data.delta)
            streamed.cancel()


if __name__ == "__main__":
    asyncio.run(main())
