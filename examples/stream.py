"""`stream` yields chunks; a `|` between them shows where one ends."""

from recorder.models import ChatAnthropic

chat = ChatAnthropic(model="claude-haiku-5-5")
for chunk in chat.stream("Write me a 1 verse song about goldfish on the moon"):
    print(chunk.content, end="|", flush=True)
