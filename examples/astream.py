"""`astream` is `stream` on an event loop."""

import asyncio

from recorder.models import ChatAnthropic


async def main():
    chat = ChatAnthropic(model="claude-haiku-5-5")
    async for chunk in chat.astream("Write me a 1 verse song about goldfish on the moon"):
        print(chunk.content, end="|", flush=True)


asyncio.run(main())
