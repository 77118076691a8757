"""A recorded conversation is the memory of a chain. The handler and the memory see the same messages, stored once."""

import warnings

from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_openai import ChatOpenAI

from recorder.integrations.langchain import ChatHistoryCallback, ChatMessageHistory

# LangChain recommends LangGraph for new programs.
warnings.filterwarnings("ignore", "RunnableWithMessageHistory is deprecated")

prompt = ChatPromptTemplate([("system", "Be brief."), MessagesPlaceholder("past"), ("user", "{question}")])
with ChatHistoryCallback("sqlite:///chat_history.db") as history:
    chat = ChatOpenAI(model="gpt-5.4-mini", callbacks=[history])
    chain = RunnableWithMessageHistory(
        prompt | chat,
        lambda id: ChatMessageHistory(id, history),
        input_messages_key="question",
        history_messages_key="past",
    )
    config = {"configurable": {"session_id": "support-18"}}
    chain.invoke({"question": "Sing!"}, config)
    chain.invoke({"question": "Once more!"}, config)
    print(len(ChatMessageHistory("support-18", history).messages), "messages")
