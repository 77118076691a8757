"""The whole process is recorded: every client of every library that uses httpx, here LangChain's model.

`recorder run` does the same for a program without this line.
"""

from langchain_openai import ChatOpenAI

import recorder

recorder.attach()

for chunk in ChatOpenAI(model="gpt-5.4-mini").stream("Write me a song about sparkling water."):
    print(chunk.content, end="", flush=True)
