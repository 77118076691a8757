"""Asks agents of pydantic-ai over the Responses API. The address and the key are in the environment."""

import asyncio

from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIResponsesModel

MODEL = OpenAIResponsesModel("gpt-4o-mini")
SINGER, WEATHER = Agent(MODEL), Agent(MODEL)


@WEATHER.tool_plain
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


async def main() -> None:
    print((await SINGER.run("Sing.")).output)
    async with SINGER.run_stream("Sing.") as result:
        print("".join([text async for text in result.stream_text(delta=True)]))
    print((await WEATHER.run("Is it sunny in Paris?")).output)
    async with WEATHER.run_stream("Is it sunny in Paris?") as result:
        print(await result.get_output())
    async with SINGER.run_stream("Count.") as result:
        async for text in result.stream_text(delta=True, debounce_by=None):
            print(text)
            break
    try:
        await SINGER.run("Nonsense.")
    except Exception:
        print("refused")
    print((await SINGER.run("Hurry.")).output)


if __name__ == "__main__":
    asyncio.run(main())
