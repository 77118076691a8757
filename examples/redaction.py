"""Addresses, cards and words of your own are replaced before they are stored. The application gets the original."""

import re

from recorder import ChatHistoryCallback
from recorder.models import ChatOpenAI
from recorder.replay import Replay
from recorder.testing import LoopbackProvider

ANSWER = "Jane (jane@example.com) booked it for project Bluebird, with card 4111 1111 1111 1111."
with LoopbackProvider(ANSWER) as provider:
    redact = ["keys", "email", "card", re.compile(r"project \w+", re.IGNORECASE)]
    with ChatHistoryCallback("sqlite:///redacted.db", conversation_id="trip-1", redact=redact) as history:
        chat = ChatOpenAI(base_url=provider.base_url, api_key="any", callbacks=[history])
        for chunk in chat.stream("I am joe@example.com. Who booked my trip?"):
            print(chunk.content, end="", flush=True)
print("\n\nWhat is stored:")
with Replay("sqlite:///redacted.db") as replay:
    for message in replay.messages("trip-1"):
        print(f"{message.role}: {message.text}")
