"""What a conversation costs, and a function that is called when it has cost more than a limit."""

import os

from recorder import Budget, BudgetEvent, ChatHistoryCallback
from recorder.models import ChatOpenAI


def on_budget(event: BudgetEvent) -> None:
    """Tell somebody. It runs on a thread of its own."""
    print(f"{event.per} {event.id} has cost more than ${event.limit:.6f}")


# The provider on this machine has no prices, so those of OpenAI are taken.
LOOPBACK = {"127.0.0.1": "openai"} if "127.0.0.1" in os.environ.get("OPENAI_BASE_URL", "") else {}
BUDGETS = [Budget(0.00001, per="conversation")]

with ChatHistoryCallback(
    "sqlite:///chat_history.db", budgets=BUDGETS, on_budget=on_budget, priced_as=LOOPBACK
) as history:
    chat = ChatOpenAI("gpt-5.4-mini", callbacks=[history])
    with history.conversation("support-17", user="anna"):
        chat.invoke("Write me a song about sparkling water.")
print("Now read the costs: recorder stats --cost")
