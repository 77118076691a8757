"""A model of LangChain is recorded: the handler stands in its constructor, and the calls stay as they are."""

from langchain_openai import ChatOpenAI

from recorder.integrations.langchain import ChatHistoryCallback

with ChatHistoryCallback("sqlite:///chat_history.db") as history:
    chat = ChatOpenAI(model="gpt-5.4-mini", callbacks=[history])
    for chunk in chat.stream("Write me a song about sparkling water."):
        print(chunk.text, end="", flush=True)
