"""`generate` streams to the handlers and returns the complete result, with the usage, which LangChain's model lacks."""

from recorder.callbacks import StreamingStdOutCallbackHandler
from recorder.models import OpenAI

llm = OpenAI(streaming=True, callbacks=[StreamingStdOutCallbackHandler()], temperature=0)
result = llm.generate(["Tell me a joke."])
print()
print("finish reason:", result.generations[0][0].generation_info["finish_reason"])
print("token usage:", result.llm_output["token_usage"])
