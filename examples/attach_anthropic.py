"""A client of Anthropic's SDK on an event loop is recorded."""

import asyncio

import anthropic

from recorder import ChatHistoryCallback, attach


async def main() -> None:
    async with (
        anthropic.AsyncAnthropic() as client,
        ChatHistoryCallback("sqlite:///chat_history.db") as history,
    ):
        attach(client, callbacks=[history])
        question = {"role": "user", "content": "Write me a song about sparkling water."}
        async with client.messages.stream(
            model="claude-haiku-5-5", max_tokens=1000, messages=[question]
        ) as stream:
            async for text in stream.text_stream:
                print(text, end="", flush=True)


asyncio.run(main())
