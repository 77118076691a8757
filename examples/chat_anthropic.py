"""A chat model of Anthropic prints its tokens as they arrive."""

from recorder.callbacks import StreamingStdOutCallbackHandler
from recorder.messages import HumanMessage
from recorder.models import ChatAnthropic

chat = ChatAnthropic(streaming=True, callbacks=[StreamingStdOutCallbackHandler()])
resp = chat([HumanMessage(content="Write me a song about sparkling water.")])
print("\n\nusage:", resp.usage_metadata)
