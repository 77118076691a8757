"""A bot's loop: messages come from many channels, and each reply is edited while it streams."""

import asyncio

from recorder import ChatHistoryCallback
from recorder.messages import HumanMessage
from recorder.models import ChatOpenAI

history = ChatHistoryCallback("sqlite:///chat_history.db")
chat = ChatOpenAI(model="gpt-5.4-mini", streaming=True, callbacks=[history])


async def incoming():
    """Yield what users write: the channel, the user and the text. Your bot's library has such a loop."""
    for message in [("general", "anna", "Sing!"), ("music", "boris", "Write me a song.")]:
        yield message


async def answer(channel, user, text):
    """Answer one message. The library would edit the reply; here the last edit is printed."""
    reply = ""
    with history.conversation(channel, user=user):
        async for chunk in chat.astream([HumanMessage(text)]):
            reply += chunk.content
            # await message.edit(reply), at most once a second
    print(f"{channel}: {len(reply)} characters for {user}")


async def main():
    answers = []
    async with history:
        async for channel, user, text in incoming():
            answers.append(asyncio.create_task(answer(channel, user, text)))
        await asyncio.gather(*answers)


asyncio.run(main())
