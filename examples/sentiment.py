"""Sentiment of each chat message while it streams, and its aggregate by SQL. No API key: a provider on this machine."""

import sqlite3

from recorder import ChatHistoryCallback
from recorder.messages import HumanMessage
from recorder.models import ChatOpenAI
from recorder.testing import LoopbackProvider, scripted

ANSWER = "I am sorry to hear that, it must be very frustrating. The new version is much better, and I hope you love it!"
QUESTIONS = ["My order is late and nobody answers. This is terrible!", "Thank you, that is wonderful news."]
DATABASE = "sentiment.db"


def show(history: ChatHistoryCallback) -> None:
    """Print what was evaluated last: everything that is committed is analyzed, and its results are stored."""
    for wait in (history.flush, history.analysis.flush, history.flush):
        wait().wait()
    with sqlite3.connect(DATABASE) as connection:
        rows = connection.execute(
            "SELECT role, name, label, round(score, 2) FROM evaluations WHERE name = 'sentiment' ORDER BY occurred_at"
        ).fetchall()
    for row in rows[-2:]:
        print(*row)


with (
    LoopbackProvider(scripted(ANSWER, "You are welcome, I am happy that it works!")) as provider,
    ChatHistoryCallback(f"sqlite:///{DATABASE}", analyze=["sentiment"]) as history,
):
    chat = ChatOpenAI(base_url=provider.base_url, api_key="any", streaming=True, callbacks=[history])
    with history.conversation("support"):
        for question in QUESTIONS:
            print(f"> {question}")
            for chunk in chat.stream([HumanMessage(question)]):
                print(chunk.text, end="", flush=True)
            print()
            show(history)

with sqlite3.connect(DATABASE) as connection:
    print("role, messages, mean")
    for row in connection.execute(
        "SELECT role, count, round(mean_score, 2) FROM evaluations_by_conversation "
        "WHERE conversation_id = 'support' AND name = 'sentiment' ORDER BY role"
    ):
        print(*row)
