"""A completion model prints its tokens as they arrive."""

from recorder.callbacks import StreamingStdOutCallbackHandler
from recorder.models import OpenAI

llm = OpenAI(streaming=True, callbacks=[StreamingStdOutCallbackHandler()], temperature=0)
resp = llm("Write me a song about sparkling water.")
assert isinstance(resp, str)  # the complete text, after the stream has ended
