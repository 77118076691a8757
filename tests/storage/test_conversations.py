"""Conversations as clients really send them: on both databases each message that was said is stored once."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from recorder import ChatHistoryCallback
from recorder.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from recorder.replay import Replay
from tests.oracle import record, sql, start_python


def texts(messages: Sequence[BaseMessage]) -> list[str]:
    return [message.text for message in messages]


def said(database: str) -> list[str]:
    """All stored messages, in the order in which they were stored."""
    return [text for (text,) in sql(database, "SELECT content FROM messages ORDER BY created_at")]


@dataclass
class Client:
    """An application that records into conversation "c" and sends what its way of sending makes of the history."""

    history: ChatHistoryCallback
    #: The conversation as the client sees it.
    messages: list[BaseMessage] = field(default_factory=list)
    #: What each run was sent, by its id.
    sent: dict[str, list[BaseMessage]] = field(default_factory=dict)

    def say(self, text: str, reply: str, request: Sequence[BaseMessage] | None = None) -> None:
        """A turn: the question, and the reply to it. `request` is sent before the question; by default all."""
        question = HumanMessage(text)
        sent = [*(self.messages if request is None else request), question]
        self.messages += [question, AIMessage(reply)]
        self.send(sent, reply)

    def send(self, sent: list[BaseMessage], reply: str) -> None:
        """A run that is sent these messages."""
        run_id = record(self.history, *sent, reply=reply)
        self.sent[str(run_id)] = sent
        self.history.flush().wait(20)

    def check(self, replay: Replay) -> None:
        """The newest branch is the conversation, and each run's request is read as it was sent."""
        assert texts(replay.messages("c")) == texts(self.messages)
        for run_id, sent in self.sent.items():
            assert texts(replay.request(run_id)) == texts(sent)


@pytest.fixture
def history(database: str) -> ChatHistoryCallback:
    return ChatHistoryCallback(database, conversation_id="c", flush_interval=0)


TURNS = 20


def test_instructions_that_change_with_each_turn_move_nothing(
    database: str, history: ChatHistoryCallback
) -> None:
    """Twenty turns store forty messages, and each text of the instructions once; two texts alternate."""
    client = Client(history)
    with history, Replay(database) as replay:
        for turn in range(TURNS):
            instructions = SystemMessage(f"It is {turn % 2}.")
            client.say(f"q{turn}", f"a{turn}", [instructions, *client.messages])
        assert texts(replay.messages("c")) == ["It is 1.", *texts(client.messages)]
        for run_id, sent in client.sent.items():
            assert texts(replay.request(run_id)) == texts(sent)
    assert said(database) == texts(client.messages)
    assert sql(database, "SELECT content FROM context_messages ORDER BY created_at") == [
        ("It is 0.",),
        ("It is 1.",),
    ]
    shown = "SELECT role, content FROM transcripts WHERE conversation_id = 'c' ORDER BY position LIMIT 2"
    assert sql(database, shown) == [("system", "It is 1."), ("user", "q0")]
    [*lines] = sql(database, "SELECT role, content FROM chathistory ORDER BY id")
    assert lines[:3] == [("system", "It is 0."), ("user", "q0"), ("assistant", "a0")]
    assert len(lines) == 2 * TURNS + 2


WINDOWS: dict[str, Callable[[list[BaseMessage]], list[BaseMessage]]] = {
    "the last six": lambda messages: messages[-6:],
    "the last two": lambda messages: messages[-2:],
    "the first and the last four": lambda messages: [*messages[:1], *messages[1:][-4:]],
    "a summary and the last four": lambda messages: [
        *([HumanMessage("A summary.")] if len(messages) > 4 else []),
        *messages[-4:],
    ],
    "a summary of each turn": lambda messages: [SystemMessage(f"{len(messages)} before"), *messages[-3:]],
    "the last five": lambda messages: messages[-5:],
}


@pytest.mark.parametrize("window", WINDOWS)
def test_a_window_of_the_history_is_recognised(
    database: str, history: ChatHistoryCallback, window: str
) -> None:
    """Twenty turns store forty messages, and each request is read as it was sent."""
    client = Client(history)
    with history, Replay(database) as replay:
        for turn in range(TURNS):
            client.say(f"q{turn}", f"a{turn}", WINDOWS[window](client.messages))
        for run_id, sent in client.sent.items():
            assert texts(replay.request(run_id)) == texts(sent)
    assert said(database) == texts(client.messages)


def test_tool_results_that_are_left_out_later_are_recognised(
    database: str, history: ChatHistoryCallback
) -> None:
    """The client sends a call with its result once, and then without the result."""
    client = Client(history)
    with history, Replay(database) as replay:
        for turn in range(6):
            before = [each for each in client.messages if not isinstance(each, ToolMessage)][-8:]
            call = AIMessage("", tool_calls=[{"name": "look", "args": {}, "id": f"call_{turn}"}])
            first = [*before, HumanMessage(f"q{turn}")]
            run = record(history, *first, reply="looking")
            history.flush().wait(20)
            client.sent[str(run)] = first
            second = [*first, AIMessage("looking"), call, ToolMessage(f"result {turn}", f"call_{turn}")]
            client.send(second, f"a{turn}")
            client.messages += [*second[len(before) :], AIMessage(f"a{turn}")]
        client.check(replay)
    assert said(database) == texts(client.messages)


def test_the_same_words_are_said_again(database: str, history: ChatHistoryCallback) -> None:
    """A client that sends only what is new says yes again and again."""
    with history, Replay(database) as replay:
        for turn, words in enumerate(["Hello", "yes", "yes", "Hello", "yes"]):
            record(history, HumanMessage(words), reply=f"a{turn}")
            history.flush().wait(20)
        assert texts(replay.messages("c")) == [
            "Hello",
            "a0",
            "yes",
            "a1",
            "yes",
            "a2",
            "Hello",
            "a3",
            "yes",
            "a4",
        ]


def test_a_history_of_only_instructions_and_an_empty_one_are_recorded(
    database: str, history: ChatHistoryCallback
) -> None:
    """Both runs have their answers below the newest message."""
    with history, Replay(database) as replay:
        first = record(history, SystemMessage("Begin."), reply="One.")
        history.flush().wait(20)
        second = record(history, SystemMessage("Go on."), reply="Two.")
        history.flush().wait(20)
        assert texts(replay.messages("c")) == ["Go on.", "One.", "Two."]
        assert [texts(replay.request(str(run))) for run in (first, second)] == [["Begin."], ["Go on."]]


def test_a_request_costs_the_same_at_turn_20_and_at_turn_400(
    database: str, history: ChatHistoryCallback
) -> None:
    """The row of a run that was sent a window has the same length."""
    client = Client(history)
    with history:
        for turn in range(400):
            run_id = record(history, *client.messages[-5:], HumanMessage(f"q{turn:03}"), reply=f"a{turn:03}")
            client.messages += [HumanMessage(f"q{turn:03}"), AIMessage(f"a{turn:03}")]
            if turn in (20, 399):
                history.flush().wait(20)
                client.sent[str(run_id)] = []
    sizes = [
        len(str(sql(database, "SELECT input FROM runs WHERE id = ?", run_id)[0][0])) for run_id in client.sent
    ]
    assert sizes == [len('["35-40"]'), len('["793-798"]')]
    assert sql(database, "SELECT count(*) FROM messages") == [(800,)]


CLIENT = """
import sys
from recorder import ChatHistoryCallback
from recorder.messages import AIMessage, HumanMessage, SystemMessage
from tests.oracle import record

url, name = sys.argv[1:]
messages = []
with ChatHistoryCallback(url, conversation_id="c", flush_interval=0) as history:
    print("ready", flush=True)
    sys.stdin.readline()
    for turn in range(20):
        sent = [SystemMessage(f"Turn {turn}."), *messages[-5:], HumanMessage(f"{name} q{turn}")]
        print(record(history, *sent, reply=f"{name} a{turn}"), len(sent))
        messages += [sent[-1], AIMessage(f"{name} a{turn}")]
        history.flush().wait(20)
"""


def test_two_processes_send_windows_of_one_conversation_at_once(database: str) -> None:
    """Each sees only its own messages. All are stored once, and each request is read as it was sent."""
    clients = [start_python(CLIENT, database, name) for name in ("one", "two")]
    for client in clients:
        assert client.stdout is not None
        assert client.stdout.readline() == "ready\n"
    for client in clients:
        assert client.stdin is not None
        client.stdin.write("go\n")
        client.stdin.flush()
    printed = [client.communicate(timeout=50) for client in clients]
    assert [errors for _, errors in printed] == ["", ""]
    assert sorted(said(database)) == sorted(
        f"{name} {kind}{turn}" for name in ("one", "two") for kind in "qa" for turn in range(20)
    )
    assert sql(database, "SELECT count(*) FROM context_messages") == [(20,)]
    with Replay(database) as replay:
        for line in "".join(out for out, _ in printed).splitlines():
            run_id, length = line.split()
            assert len(replay.request(run_id)) == int(length)


# -- random conversations -------------------------------------------------------------------------------------------


class Story:
    """Random turns of two clients of one conversation, and what must be stored."""

    def __init__(self, chance: random.Random, recorders: Sequence[ChatHistoryCallback]) -> None:
        self.chance = chance
        self.recorders = recorders
        #: The newest branch, all messages that were said, and what each run was sent.
        self.branch: list[BaseMessage] = []
        self.said: list[str] = []
        self.sent: dict[str, list[BaseMessage]] = {}
        self.count = 0

    def step(self) -> None:
        """One random turn: a new question, an edit of the last one, or a second answer to it."""
        self.count += 1
        kinds = ["new", "new", "new", "edit", "again"] if len(self.branch) > 3 else ["new"]
        kind = self.chance.choice(kinds)
        kept = self.branch if kind == "new" else self.branch[:-2]
        question = self.branch[-2] if kind == "again" else HumanMessage(f"q{self.count}")
        reply = AIMessage(f"a{self.count}")
        sent = [*self.instructions(), *self.window(kept, least=0 if kind == "new" else 2), question]
        run_id = record(self.chance.choice(self.recorders), *sent, reply=reply.text)
        for recorder in self.recorders:
            recorder.flush().wait(20)
        self.sent[str(run_id)] = sent
        self.said += texts([reply] if kind == "again" else [question, reply])
        self.branch = [*kept, question, reply]

    def instructions(self) -> list[BaseMessage]:
        """None, the same ones as before, or new ones."""
        return [
            SystemMessage(text) for text in self.chance.choice([[], ["Be kind."], [f"Turn {self.count}."]])
        ]

    def window(self, kept: list[BaseMessage], least: int) -> list[BaseMessage]:
        """The whole history, the end of it, the end below a summary, or nothing."""
        size = self.chance.randrange(max(least, 2), 9)
        summary: list[BaseMessage] = [HumanMessage(f"Summary {self.chance.randrange(3)}.")]
        ways = [kept, kept[-size:], [*summary, *kept[-size:]] if len(kept) > size else kept]
        return self.chance.choice(ways if least or not kept else [*ways, []])


def test_random_conversations_store_what_was_said(database: str) -> None:
    """Edits, second answers, windows, summaries and changing instructions of two writers, against a plain model."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    with (
        ChatHistoryCallback(database, conversation_id="c", flush_interval=0) as one,
        ChatHistoryCallback(database, conversation_id="c", flush_interval=0) as other,
        Replay(database) as replay,
    ):
        story = Story(random.Random(seed), (one, other))
        for _ in range(25):
            story.step()
            stored = [each for each in replay.messages("c") if each.role != "system"]
            assert texts(stored) == texts(story.branch)
        for run_id, sent in story.sent.items():
            assert texts(replay.request(run_id)) == texts(sent)
    assert sorted(said(database)) == sorted(story.said)
