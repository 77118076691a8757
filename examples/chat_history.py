"""Every message and token is stored in chat_history.db while it streams."""

import sqlite3

from recorder import ChatHistoryCallback
from recorder.messages import HumanMessage
from recorder.models import ChatOpenAI

history = ChatHistoryCallback()  # RECORDER_URL, or sqlite:///chat_history.db
chat = ChatOpenAI(streaming=True, callbacks=[history])
chat([HumanMessage("Hello!")])
history.close().wait()  # it would close itself when Python exits

connection = sqlite3.connect("chat_history.db")
for row in connection.execute("SELECT id, role, substr(content, 1, 40) FROM chathistory"):
    print(row)
connection.close()
