"""A recorded stream is played again: at fifty times the speed, then into a new handler."""

from recorder import ChatHistoryCallback
from recorder.callbacks import BaseCallbackHandler
from recorder.models import ChatOpenAI
from recorder.replay import Replay

with ChatHistoryCallback("sqlite:///chat_history.db") as history:
    chat = ChatOpenAI(streaming=True, callbacks=[history])
    chat.invoke("Write me a song about sparkling water.")


class LongestWord(BaseCallbackHandler):
    longest = ""

    def on_chat_new_message(self, message):
        if message.role == "assistant":
            self.longest = max(message.content.split(), key=len)


with Replay("sqlite:///chat_history.db") as replay:
    for chunk in replay.stream(speed=50):
        print(chunk.content, end="", flush=True)
    handler = LongestWord()
    replay.into(handler)
print("\n\nlongest word:", handler.longest)
