"""`generate` streams to the handlers and gives the whole result, with the usage that LangChain's does not have here."""

from recorder.callbacks import StreamingStdOutCallbackHandler
from recorder.models import OpenAI

llm = OpenAI(streaming=True, callbacks=[StreamingStdOutCallbackHandler()], temperature=0)
result = llm.generate(["Tell me a joke."])
print()
print("finish reason:", result.generations[0][0].generation_info["finish_reason"])
print("token usage:", result.llm_output["token_usage"])
