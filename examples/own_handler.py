"""A handler of your own: `on_chat_new_message` is called once for each message, the question and the reply."""

import sqlite3

from recorder.callbacks import CallbackHandler
from recorder.messages import HumanMessage
from recorder.models import ChatOpenAI


class ChatHistoryCallback(CallbackHandler):
    def __init__(self):
        self.conn = sqlite3.connect("own_history.db")
        self.c = self.conn.cursor()
        self.c.execute("""CREATE TABLE chathistory
            (id INTEGER PRIMARY KEY, role TEXT, content TEXT)""")

    def on_chat_new_message(self, message):
        self.c.execute("INSERT INTO chathistory VALUES (NULL, ?, ?)", (message.role, message.content))
        self.conn.commit()


handler = ChatHistoryCallback()
chat = ChatOpenAI(streaming=True, callbacks=[handler])
chat([HumanMessage("Hello!")])

for row in handler.c.execute("SELECT id, role, substr(content, 1, 40) FROM chathistory"):
    print(row)
handler.conn.close()
