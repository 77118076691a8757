"""A conversation is continued by its id. Each message is stored once, although every call sends the history."""

from recorder import ChatHistoryCallback
from recorder.messages import HumanMessage
from recorder.models import ChatOpenAI

with ChatHistoryCallback("sqlite:///chat_history.db", conversation_id="support-17") as history:
    chat = ChatOpenAI(callbacks=[history])
    messages = [HumanMessage("Hello!")]
    messages.append(chat.invoke(messages))
    messages.append(HumanMessage("And once more?"))
    chat.invoke(messages)
print("recorder show support-17")
