"""A chain of a prompt and a model prints the tokens as they arrive, and returns the whole answer."""

from recorder.callbacks import StreamingStdOutCallbackHandler
from recorder.chains import LLMChain, PromptTemplate
from recorder.models import ChatOpenAI

chat = ChatOpenAI(streaming=True, callbacks=[StreamingStdOutCallbackHandler()])
prompt = PromptTemplate.from_template("Write me a song about {topic}.")
chain = LLMChain(llm=chat, prompt=prompt)
answer = chain.run("sparkling water")
print("\n\ncharacters:", len(answer))
