"""`AsyncIteratorCallbackHandler` with a task: how a web handler sends an answer while the model still streams."""

import asyncio
from collections.abc import AsyncIterable, Awaitable

from recorder.callbacks import AsyncIteratorCallbackHandler
from recorder.messages import HumanMessage
from recorder.models import ChatOpenAI


async def async_chat(message: str) -> AsyncIterable[str]:
    callback = AsyncIteratorCallbackHandler()
    chat = ChatOpenAI(streaming=True, callbacks=[callback])

    async def wrap_done(fn: Awaitable, event: asyncio.Event):
        try:
            await fn
        except Exception as e:
            print(f"Caught exception: {e}")
        finally:
            event.set()  # ends the iteration below, whatever happened

    answer = chat.agenerate(messages=[[HumanMessage(content=message)]])
    task = asyncio.create_task(wrap_done(answer, callback.done))
    async for token in callback.aiter():
        yield f"{token}"
    await task


async def async_print():
    async for token in async_chat("Write me a song about sparkling water."):
        print(token, end="")


asyncio.run(async_print())
