"""A recorded conversation is the session of an agent. The client is attached; each item is stored once."""

import asyncio

import openai
from agents import Agent, OpenAIResponsesModel, Runner, set_tracing_disabled

import recorder
from recorder.integrations.agents import Session


async def main() -> None:
    set_tracing_disabled(True)  # the traces would go to OpenAI
    async with (
        recorder.ChatHistoryCallback("sqlite:///chat_history.db") as history,
        openai.AsyncOpenAI() as client,
    ):
        recorder.attach(client, callbacks=[history])
        agent = Agent("singer", model=OpenAIResponsesModel("gpt-5.4-mini", client))
        session = Session("support-19", history)
        with history.conversation("support-19"):
            for question in ("Sing!", "Once more!"):
                await Runner.run(agent, question, session=session)
        print(len(await session.get_items()), "items")


asyncio.run(main())
