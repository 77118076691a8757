"""A conversation that goes on by its id; each message is stored once although the history is sent with every call."""

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
