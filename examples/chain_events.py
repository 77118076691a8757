"""`astream_events` over a chain of a prompt, a model and a parser: each event names the runs around it."""

import asyncio

from recorder.chains import PromptTemplate, StrOutputParser
from recorder.models import ChatAnthropic


async def main():
    prompt = PromptTemplate.from_template("Write me a 1 verse song about {topic}")
    chat = ChatAnthropic(model="claude-haiku-5-5")
    chain = prompt | chat | StrOutputParser()

    async for event in chain.astream_events({"topic": "goldfish on the moon"}):
        if event["event"] == "on_parser_stream":
            print(event["data"]["chunk"], end="|", flush=True)
        elif not event["event"].endswith("_stream"):
            print(event["event"], event["name"], "in", len(event["parent_ids"]), "runs")


asyncio.run(main())
