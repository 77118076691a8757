"""With `thread="history"` a request without an id goes on in the conversation whose messages it repeats."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest

from recorder import ChatHistoryCallback
from recorder.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from recorder.models import ChatOpenAI
from recorder.replay import Replay
from recorder.testing import LoopbackProvider
from tests.oracle import begin, finish, record, say, sql


def following(database: str, **options: Any) -> ChatHistoryCallback:
    """A recorder that looks for the conversation of each request."""
    return ChatHistoryCallback(database, thread="history", **options)


def conversations(database: str) -> list[list[str]]:
    """The texts of each conversation in the order in which they were stored; the earliest conversation first."""
    found: dict[str, list[str]] = {}
    for id, text in sql(database, "SELECT conversation_id, content FROM messages ORDER BY created_at"):
        found.setdefault(id, []).append(text)
    return list(found.values())


def paths(*texts: str) -> list[BaseMessage]:
    """Questions and answers in turn."""
    return [AIMessage(text) if place % 2 else HumanMessage(text) for place, text in enumerate(texts)]


@dataclass
class Chat:
    """A program that names no conversation and sends the history again."""

    history: ChatHistoryCallback
    messages: list[BaseMessage] = field(default_factory=list)

    def say(self, text: str, reply: str, window: int = 100, **more: Any) -> None:
        """A turn with the last messages of the history."""
        sent = [*self.messages[-window:], HumanMessage(text)]
        self.messages += [HumanMessage(text), AIMessage(reply)]
        record(self.history, *sent, reply=reply, **more)

    @property
    def texts(self) -> list[str]:
        """What was said."""
        return [message.text for message in self.messages]


@pytest.mark.parametrize("interval", [0, 3600], ids=["batch by batch", "in one batch"])
@pytest.mark.parametrize("window", [100, 6, 2], ids=["the whole history", "the last six", "the last two"])
def test_several_conversations_without_ids_are_told_apart(
    database: str, interval: float, window: int
) -> None:
    """Their turns alternate, and some words are the same in all. Each message is stored once."""
    with following(database, flush_interval=interval) as history:
        chats = [Chat(history) for _ in range(3)]
        for turn in range(5):
            for number, chat in enumerate(chats):
                chat.say("go on" if turn % 2 else f"q{turn} of {number}", f"a{turn} of {number}", window)
                if not interval:
                    history.flush().wait(20)
    assert conversations(database) == [chat.texts for chat in chats]
    runs = "SELECT count(DISTINCT conversation_id), count(*) FROM runs"
    assert sql(database, runs) == [(3, 15)]
    assert sql(database, "SELECT count(*) FROM conversations") == [(3,)]


def test_a_chain_follows_the_models_run_in_it(database: str) -> None:
    """The chain begins before its model says which conversation it is; both rows are of that conversation."""
    with following(database, flush_interval=3600) as history:
        chat = Chat(history)
        for turn in range(3):
            chain_id = uuid4()
            history.on_chain_start({}, {"turn": turn}, run_id=chain_id, name="chain")
            chat.say(f"q{turn}", f"a{turn}", parent_run_id=chain_id)
            history.on_chain_end("done", run_id=chain_id)
            history.flush().wait(20)
    assert conversations(database) == [chat.texts]
    runs = (
        "SELECT operation, count(DISTINCT conversation_id), count(*) FROM runs GROUP BY operation ORDER BY 1"
    )
    assert sql(database, runs) == [("chain", 1, 3), ("chat", 1, 3)]
    assert sql(database, "SELECT count(*) FROM conversations") == [(1,)]


def test_another_process_continues_a_conversation(database: str) -> None:
    """What is known is in the database."""
    messages: list[BaseMessage] = []
    for turn in range(3):
        with following(database) as history:
            chat = Chat(history, messages)
            chat.say(f"q{turn}", f"a{turn}")
    assert conversations(database) == [["q0", "a0", "q1", "a1", "q2", "a2"]]


def test_it_is_off_unless_it_is_set(database: str) -> None:
    """Each request opens a conversation, and no message has a key."""
    with ChatHistoryCallback(database) as history:
        chat = Chat(history)
        chat.say("q", "a")
        chat.say("r", "b")
    assert conversations(database) == [["q", "a"], ["q", "a", "r", "b"]]
    assert sql(database, "SELECT count(*) FROM messages WHERE thread_key IS NOT NULL") == [(0,)]


def test_users_and_keys_are_kept_apart(database: str) -> None:
    """The same words to the same answer are continued only by the same user, or with the same API key."""
    with LoopbackProvider("Hello.") as provider, following(database) as history:

        def ask(*messages: BaseMessage, user: str | None, key: str) -> None:
            chat = ChatOpenAI(model="gpt-5-mini", base_url=provider.url, api_key=key, callbacks=[history])
            chat.invoke(list(messages), {"metadata": {"user_id": user} if user else {}})
            history.flush().wait(20)

        who = [
            ("ada", "k1-234567890123456"),
            ("bob", "k1-234567890123456"),
            (None, "k1-234567890123456"),
            (None, "k2-234567890123456"),
        ]
        for user, key in who:
            ask(HumanMessage("Hi"), user=user, key=key)
        for user, key in who:
            ask(
                HumanMessage("Hi"),
                AIMessage("Hello."),
                HumanMessage(f"I am {user} {key[:2]}"),
                user=user,
                key=key,
            )
    assert conversations(database) == [
        ["Hi", "Hello.", f"I am {user} {key[:2]}", "Hello."] for user, key in who
    ]
    [keys] = sql(database, "SELECT count(*) FROM messages WHERE thread_key IS NOT NULL")
    assert keys == (8,)


def test_a_greeting_does_not_join_conversations_that_went_on(database: str) -> None:
    """Two conversations begin with the same exchange. The third continues the one that ends there, else is new."""
    with following(database) as history:
        record(history, *paths("Hi", "Hello.", "one"), reply="1")
        record(history, HumanMessage("Hi"), reply="Hello.")
        history.flush().wait(20)
        record(history, *paths("Hi", "Hello.", "two"), reply="2")
        history.flush().wait(20)
        record(history, *paths("Hi", "Hello.", "three"), reply="3")
    assert conversations(database) == [
        ["Hi", "Hello.", "one", "1"], ["Hi", "Hello.", "two", "2"], ["Hi", "Hello.", "three", "3"],
    ]  # fmt: skip


def test_a_second_answer_and_an_edit_are_branches(database: str) -> None:
    """The newest question again, and another question after two exchanges that agree."""
    with following(database, flush_interval=0) as history, Replay(database) as replay:
        for sent, reply in [
            (["q0"], "a0"), (["q0", "a0", "q1"], "a1"), (["q0", "a0", "q1"], "second"),
            (["q0", "a0", "q1", "second", "q2"], "a2"), (["q0", "a0", "q1", "second", "edit"], "a3"),
        ]:  # fmt: skip
            record(history, *paths(*sent), reply=reply)
            history.flush().wait(20)
        [(id,)] = sql(database, "SELECT DISTINCT conversation_id FROM runs")
        assert [each.text for each in replay.messages(id)] == ["q0", "a0", "q1", "second", "edit", "a3"]
    assert conversations(database) == [["q0", "a0", "q1", "a1", "second", "q2", "a2", "edit", "a3"]]


def test_what_is_too_old_is_not_continued(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `thread_within` the same history opens a conversation."""
    with following(database, thread_within=1e-6) as history:
        chat = Chat(history)
        chat.say("q", "a")
        history.flush().wait(20)
        chat.say("r", "b")
    assert conversations(database) == [["q", "a"], ["q", "a", "r", "b"]]


def test_a_named_conversation_can_be_continued_without_its_name(database: str) -> None:
    """And with its name it goes on as ever, whatever its messages are."""
    with following(database) as history:
        chat = Chat(history)
        with history.conversation("named"):
            chat.say("q", "a")
        chat.say("r", "b")
        with history.conversation("other"):
            chat.say("s", "c")
    found = sql(database, "SELECT conversation_id, count(*) FROM messages GROUP BY 1 ORDER BY 1")
    assert found == [("named", 4), ("other", 6)]


def test_the_children_of_a_run_follow_it(database: str) -> None:
    """The first child continues a conversation; the second one, which repeats nothing, goes there as well."""
    with following(database) as history:
        chat = Chat(history)
        chat.say("q", "a")
        parent = record(history, HumanMessage("something else"))
        history.flush().wait(20)
        chat.say("r", "b", parent_run_id=parent)
        record(history, HumanMessage("Summarise."), reply="s", parent_run_id=parent)
        history.flush().wait(20)
        record(history, HumanMessage("Once more."), reply="t", parent_run_id=parent)
    assert sorted(conversations(database)) == [
        ["q", "a", "r", "b", "Summarise.", "s", "Once more.", "t"], ["something else", "Hello"],
    ]  # fmt: skip


def test_a_run_that_streams_for_long_gets_its_reply_where_its_request_is(database: str) -> None:
    """Its request was stored batches before; the next request continues it."""
    with following(database, flush_interval=0) as history:
        chat = Chat(history)
        chat.say("q", "a")
        history.flush().wait(20)
        run = begin(history, *chat.messages, HumanMessage("r"))
        history.flush().wait(20)
        say(history, run, ["b"])
        history.flush().wait(20)
        finish(history, run, "b")
        history.flush().wait(20)
        record(history, *chat.messages, HumanMessage("r"), AIMessage("b"), HumanMessage("s"), reply="c")
    assert conversations(database) == [["q", "a", "r", "b", "s", "c"]]


def test_requests_with_nothing_to_continue_open_conversations(database: str) -> None:
    """No message, instructions only, one message, and an answer at the beginning."""
    with following(database) as history:
        for sent in ([], [SystemMessage("s")], [HumanMessage("x")], [AIMessage("x")], [HumanMessage("x")]):
            record(history, *sent, reply="y")
    assert sql(database, "SELECT count(DISTINCT conversation_id) FROM runs") == [(5,)]


def test_random_conversations_without_ids(database: str) -> None:
    """Clients with windows, common words and restarts: each conversation is one, and each message is stored once."""
    seed = random.randrange(10**6)
    print("seed", seed)
    chance = random.Random(seed)
    history = following(database, flush_interval=0.001)
    chats = [Chat(history, []) for _ in range(6)]
    for turn in range(60):
        chat = chance.choice(chats)
        if chance.random() < 0.1:
            history.close().wait(20)
            history = following(database, flush_interval=0.001)
        chat.history = history
        # The first question is unique: before it nothing tells the conversations apart.
        word = chance.choice(["yes", "go on", "why?"]) if chat.messages else f"I am {chats.index(chat)}"
        chat.say(word, chance.choice([f"answer {turn}", f"because {turn}"]), chance.choice([100, 6, 4]))
        if chance.random() < 0.5:
            history.flush().wait(20)
    history.close().wait(20)
    spoken = [chat.texts for chat in chats if chat.messages]
    assert sorted(conversations(database)) == sorted(spoken)
