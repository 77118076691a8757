"""`astream_events` yields the events of a run in LangChain's form; the first four are printed."""

import asyncio

from recorder.models import ChatAnthropic


async def main():
    chat = ChatAnthropic(model="claude-haiku-5-5")
    idx = 0

    async for event in chat.astream_events("Write me a 1 verse song about goldfish on the moon"):
        idx += 1
        if idx >= 5:  # Truncate the output
            print("...Truncated")
            break
        print(event)


asyncio.run(main())
