"""A conversation goes on where the last process left it: its memory is what is recorded. Run it twice."""

from recorder import ChatHistoryCallback
from recorder.callbacks import StreamingStdOutCallbackHandler
from recorder.chains import ConversationChain
from recorder.models import ChatOpenAI

with ChatHistoryCallback("sqlite:///chat_history.db", conversation_id="support-19") as history:
    chat = ChatOpenAI(streaming=True, callbacks=[history, StreamingStdOutCallbackHandler()])
    conversation = ConversationChain(llm=chat)
    result = conversation("Write me a song about sparkling water.")
    print("\n\nmessages before:", len(result["history"]))
