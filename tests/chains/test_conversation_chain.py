"""`ConversationChain`: its memory is the conversation that the recorder on its model records."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from recorder import ChatHistoryCallback
from recorder.chains import (
    ChatPromptTemplate,
    ConversationBufferMemory,
    ConversationBufferWindowMemory,
    ConversationChain,
    ConversationTokenBufferMemory,
    LLMChain,
    MessagesPlaceholder,
    PromptTemplate,
)
from recorder.chains.conversation_chain import DEFAULT_INSTRUCTIONS
from recorder.errors import Closed, ConfigError, StoreError
from recorder.models import OpenAI, SimpleChatModel
from recorder.testing import (
    Answer,
    LoopbackProvider,
    MemoryStore,
    openai_chat_body,
    openai_chat_frames,
    scripted,
)
from tests import anthropics
from tests.chatting import CALL_STYLES, CallStyle, chat, name_of, runs
from tests.oracle import new_url, run_python, sql, start_python

PLACE = MessagesPlaceholder("history")
both = pytest.mark.parametrize("style", CALL_STYLES, ids=name_of)


class Echo(SimpleChatModel):
    """A model that answers with the number of messages and the last one; it notes what it was sent."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.sent: list[list[tuple[str, str]]] = []

    def _stream(self, messages: Any, **options: Any) -> Iterator[str]:
        self.sent.append([(each.role, each.text) for each in messages])
        if messages[-1].text == "fail":
            raise RuntimeError("no answer")
        yield f"{len(messages)}: "
        yield messages[-1].text


def contents(model: Echo) -> list[str]:
    """Return the texts of the last request without the instructions."""
    return [text for role, text in model.sent[-1] if role != "system"]


def stored(url: str, conversation_id: str = "c") -> list[tuple[str, str]]:
    """Return the messages of a conversation, without instructions, in the order of their times."""
    query = "SELECT role, content FROM messages WHERE conversation_id = ? ORDER BY created_at, position"
    return sql(url, query, conversation_id)


# -- the memory -----------------------------------------------------------------------------------------------------


@both
def test_a_turn_is_sent_with_the_turns_before(style: CallStyle, database: str) -> None:
    """The history is messages, the instructions come first, and each message is stored once."""
    with ChatHistoryCallback(database) as history:
        model = Echo(callbacks=[history])
        chain = ConversationChain(llm=model, conversation_id="c")
        assert style.invoke(chain, "One")["response"] == "2: One"
        assert [piece["response"] for piece in style.stream(chain, {"input": "Two"})] == ["4: ", "Two", ""]  # type: ignore[index]
        assert chain.predict(input="Three") == "6: Three"
    assert model.sent[-1] == [
        ("system", DEFAULT_INSTRUCTIONS),
        ("user", "One"), ("assistant", "2: One"), ("user", "Two"), ("assistant", "4: Two"), ("user", "Three"),
    ]  # fmt: skip
    assert stored(database) == [*model.sent[-1][1:], ("assistant", "6: Three")]
    steps = [run for run in runs(database) if run["operation"] == "chain"]
    assert [len(steps), {run["conversation_id"] for run in runs(database)}] == [3, {"c"}]
    assert "Two" not in str(steps[2]["request"])  # the history is not stored with each turn again


def test_the_result_has_the_input_the_history_and_the_response(tmp_path: Path) -> None:
    """LangChain's keys; the history is a list of messages."""
    with ChatHistoryCallback(new_url(tmp_path)) as history:
        chain = ConversationChain(llm=Echo(callbacks=[history]))
        first, second = chain("One"), chain.invoke({"input": "Two"})
    assert first == {"input": "One", "history": [], "response": "2: One"}
    assert (list(second), [each.text for each in second["history"]]) == (
        ["input", "history", "response"],
        ["One", "2: One"],
    )


RESTART = """
import sys
from recorder import ChatHistoryCallback
from recorder.chains import ConversationChain
from recorder.models import SimpleChatModel

class Echo(SimpleChatModel):
    def _call(self, messages, **options):
        print([each.text for each in messages[1:]])
        return f"{len(messages)}: {messages[-1].text}"

url, *questions = sys.argv[1:]
with ChatHistoryCallback(url, conversation_id="c") as history:
    chain = ConversationChain(llm=Echo(callbacks=[history]))
    for question in questions:
        chain.predict(input=question)
"""


def test_a_conversation_goes_on_in_another_process(database: str) -> None:
    """Another process with the same database and the same name reads all that was committed."""
    printed = [run_python(RESTART, database, word).stdout for word in ("One", "Two")]
    with ChatHistoryCallback(database, conversation_id="c") as history:
        model = Echo(callbacks=[history])
        ConversationChain(llm=model).predict(input="Three")
    assert printed == ["['One']\n", "['One', '2: One', 'Two']\n"]
    assert contents(model) == ["One", "2: One", "Two", "4: Two", "Three"]
    assert len(stored(database)) == 6


def test_two_processes_at_once_lose_nothing(database: str) -> None:
    """Both answer below what they have read: each question and each answer is stored once, and has its parent."""
    started = [start_python(RESTART, database, *(f"{name} {n}" for n in range(4))) for name in "ab"]
    assert [process.communicate(timeout=60) and process.returncode for process in started] == [0, 0]
    questions = [text for role, text in stored(database) if role == "user"]
    assert sorted(questions) == [f"{name} {n}" for name in "ab" for n in range(4)]
    assert len(stored(database)) == 16
    lost = "SELECT count(*) FROM messages WHERE position > 0 AND parent_id IS NULL"
    assert sql(database, lost) == [(0,)]


def test_the_newest_branch_is_followed(tmp_path: Path) -> None:
    """A question that the application edits begins a branch, and the chain goes on there."""
    with ChatHistoryCallback(new_url(tmp_path), conversation_id="c") as history:
        model = Echo(callbacks=[history])
        chain = ConversationChain(llm=model)
        chain.predict(input="One")
        chain.predict(input="Two")
        model.invoke([("user", "One"), ("assistant", "2: One"), ("user", "Other")])
        chain.predict(input="Three")
    assert contents(model) == ["One", "2: One", "Other", "3: Other", "Three"]


@both
def test_a_turn_that_failed_is_not_in_the_memory(style: CallStyle, tmp_path: Path) -> None:
    """As in LangChain. It stays stored, and the same question again is the same message."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url, conversation_id="c") as history:
        model = Echo(callbacks=[history])
        chain = ConversationChain(llm=model)
        chain.predict(input="One")
        for _ in range(2):
            with pytest.raises(RuntimeError, match="no answer"):
                style.invoke(chain, "fail")
        chain.predict(input="Two")
    assert contents(model) == ["One", "2: One", "Two"]
    assert [text for _, text in stored(url)].count("fail") == 1


def test_messages_that_the_application_adds_are_sent(tmp_path: Path) -> None:
    """`add_messages` stores messages without a run; the chain reads them."""
    with ChatHistoryCallback(new_url(tmp_path), conversation_id="c") as history:
        history.add_messages([("user", "I am Bob."), ("assistant", "Hello Bob.")])
        model = Echo(callbacks=[history])
        ConversationChain(llm=model).predict(input="Who am I?")
    assert contents(model) == ["I am Bob.", "Hello Bob.", "Who am I?"]


# -- which conversation ---------------------------------------------------------------------------------------------


@both
def test_the_most_specific_name_wins(style: CallStyle, tmp_path: Path) -> None:
    """The call's metadata, the chain's argument, the `with` block, the recorder's default, and the chain itself."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url, conversation_id="default") as history:
        model = Echo(callbacks=[history])
        for chain in (ConversationChain(llm=model, conversation_id="argument"), ConversationChain(llm=model)):
            style.invoke(chain, "a", {"metadata": {"session_id": "call"}})
            with history.conversation("block"):
                style.invoke(chain, "b")
            style.invoke(chain, "c")
    with ChatHistoryCallback(url) as unnamed:
        for chain in [ConversationChain(llm=Echo(callbacks=[unnamed])) for _ in range(2)]:
            style.invoke(chain, "d")
            style.invoke(chain, "e")
    found = sql(url, "SELECT conversation_id, count(*) FROM messages WHERE position >= 0 GROUP BY 1")
    counts = dict(found)
    assert {name: counts.pop(name) for name in ("call", "argument", "block", "default")} == {
        "call": 4, "argument": 4, "block": 2, "default": 2,
    }  # fmt: skip
    assert list(counts.values()) == [4, 4]


def test_a_stream_keeps_the_names_of_its_call(tmp_path: Path) -> None:
    """It is read after the `with` block: conversation and user are those of the call."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url) as history:
        chain = ConversationChain(llm=Echo(callbacks=[history]))
        with history.conversation("c", user="bob"):
            stream = chain.stream("One")
        list(stream)
        with history.conversation("c", user="bob"):
            chain.predict(input="Two")
    assert len(stored(url)) == 4
    assert sql(url, "SELECT id, user_id FROM conversations") == [("c", "bob")]


def test_users_are_kept_apart(tmp_path: Path) -> None:
    """A user who names another user's conversation has one of his own, as everywhere."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url) as history:
        model = Echo(callbacks=[history])
        chain = ConversationChain(llm=model, conversation_id="c")
        for user in ("ann", "bob", "bob"):
            with history.user(user):
                chain.predict(input=user)
            chain.invoke("x", {"metadata": {"user_id": user}})
    assert contents(model) == ["bob", "2: bob", "x", "4: x", "bob", "6: bob", "x"]
    assert (len(stored(url)), len(stored(url, "c@bob"))) == (4, 8)


@pytest.mark.parametrize("id", ["", "x" * 300, 3], ids=["empty", "long", "number"])
def test_an_invalid_id_is_a_clear_error(id: Any, tmp_path: Path) -> None:
    """In the constructor, and in the metadata of a call."""
    with pytest.raises(ConfigError, match="conversation_id"):
        ConversationChain(llm=Echo(), conversation_id=id)
    if id:
        with ChatHistoryCallback(new_url(tmp_path)) as history:
            chain = ConversationChain(llm=Echo(callbacks=[history]))
            with pytest.raises(ConfigError, match="conversation_id"):
                chain.invoke("Hi", {"metadata": {"conversation_id": id}})


# -- recorders ------------------------------------------------------------------------------------------------------


@both
def test_the_recorder_may_be_anywhere(style: CallStyle, tmp_path: Path) -> None:
    """On the model, on the model within retries, on the chain, in the call, or in two places at once."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url, conversation_id="c") as history:
        model, bare = Echo(callbacks=[history]), Echo()
        style.invoke(ConversationChain(llm=model), "1")
        style.invoke(ConversationChain(llm=model.with_retry()), "2")
        style.invoke(ConversationChain(llm=bare, callbacks=[history]), "3")
        style.invoke(ConversationChain(llm=bare), "4", {"callbacks": [history]})
        style.invoke(ConversationChain(llm=model, callbacks=[history]), "5", {"callbacks": [history]})
        style.invoke(ConversationChain(llm=bare.with_config(callbacks=[history])), "6")
    questions = [text for role, text in stored(url) if role == "user"]
    assert (questions, len(stored(url))) == (["1", "2", "3", "4", "5", "6"], 12)


@both
def test_without_a_recorder_the_error_says_what_to_add(style: CallStyle) -> None:
    """Before anything is sent."""
    model = Echo()
    with pytest.raises(
        ConfigError, match=r"its model has none; add one: ChatOpenAI\(callbacks=\[ChatHistory"
    ):
        style.invoke(ConversationChain(llm=model), "Hi")
    assert model.sent == []


def test_a_recorder_that_cannot_be_read_or_is_closed_is_an_error(tmp_path: Path) -> None:
    """A turn would be forgotten, or come from another database."""
    with ChatHistoryCallback(new_url(tmp_path)) as history:
        chain = ConversationChain(llm=Echo(callbacks=[history]))
    with pytest.raises(Closed):
        chain.predict(input="Hi")
    with (
        ChatHistoryCallback(store=MemoryStore()) as unread,
        pytest.raises(ConfigError, match="a store of its own"),
    ):
        ConversationChain(llm=Echo(callbacks=[unread])).predict(input="Hi")


def test_a_database_that_does_not_answer_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chain does not answer without its memory. It goes on when the database does."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url, conversation_id="c") as history:
        chain = ConversationChain(llm=Echo(callbacks=[history]))
        chain.predict(input="One")
        history.flush().wait()
        lock = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        try:
            with monkeypatch.context() as patch:
                patch.setattr("recorder.memory.branch_reader.FLUSH_TIMEOUT", 0.05)
                with pytest.raises(StoreError, match=r"Conversation 'c' cannot be read: .* is not committed"):
                    chain.predict(input="Two")
        finally:
            lock.close()
        assert chain.predict(input="Three") == "4: Three"


# -- bounds -----------------------------------------------------------------------------------------------------------


class Counter:
    """Counts each message as ten tokens."""

    def get_num_tokens_from_messages(self, messages: list[Any]) -> int:
        """Return ten for each message."""
        return 10 * len(messages)


@both
@pytest.mark.parametrize(
    "memory",
    [
        ConversationBufferWindowMemory(k=2),
        ConversationTokenBufferMemory(llm=Counter(), max_token_limit=45),
        ConversationTokenBufferMemory(llm=Counter(), max_token_limit=1),
    ],
    ids=["window", "tokens", "too few tokens"],
)
def test_a_bounded_memory_sends_the_last_exchanges_and_stores_nothing_twice(
    style: CallStyle, memory: Any, database: str
) -> None:
    """The conversation is stored as one branch, whatever is sent; at least the newest exchange is."""
    with ChatHistoryCallback(database, conversation_id="c") as history:
        model = Echo(callbacks=[history])
        chain = ConversationChain(llm=model, memory=memory)
        for number in range(6):
            style.invoke(chain, f"q{number}")
    exchanges = 1 if getattr(memory, "max_token_limit", 45) < 45 else 2
    assert [text[:1] for text in contents(model)] == [*["q", str(2 + 2 * exchanges)] * exchanges, "q"]
    assert [text for role, text in stored(database) if role == "user"] == [f"q{n}" for n in range(6)]
    assert sql(database, "SELECT max(position), count(*) FROM messages WHERE position >= 0") == [(11, 12)]


@both
@pytest.mark.parametrize("calls", [0, 30], ids=["short exchanges", "an exchange with many calls"])
def test_a_window_of_a_long_conversation_is_whole(style: CallStyle, calls: int, tmp_path: Path) -> None:
    """Only the last messages are read, unless they are fewer exchanges than the window has."""
    with ChatHistoryCallback(new_url(tmp_path), conversation_id="c") as history:
        for number in range(40):
            history.add_messages([("user", f"q{number}"), ("assistant", f"a{number}")])
        tool: Any = {"role": "tool", "tool_call_id": "t", "content": "result"}
        history.add_messages([("user", "q"), *[("assistant", "call"), tool] * calls, ("assistant", "a")])
        model = Echo(callbacks=[history])
        chain = ConversationChain(llm=model, memory=ConversationBufferWindowMemory(k=2))
        style.invoke(chain, "next")
    assert contents(model) == ["q39", "a39", "q", *["call", "result"] * calls, "a", "next"]


def test_bounds_that_cannot_work_are_refused() -> None:
    """A window without an exchange, a model that counts no tokens, and LangChain's own memories."""
    with pytest.raises(ConfigError, match="k is 0"):
        ConversationBufferWindowMemory(k=0)
    with pytest.raises(ConfigError, match="Echo counts no tokens"):
        ConversationTokenBufferMemory().bounded([], Echo())
    with pytest.raises(ConfigError, match="memory is of type dict"):
        ConversationChain(llm=Echo(), memory={})  # type: ignore[arg-type]
    assert ConversationBufferMemory().memory_variables == ["history"]
    assert ConversationBufferWindowMemory().bounded([], None) == []


# -- prompts ----------------------------------------------------------------------------------------------------------


def test_a_prompt_of_ones_own_has_a_place_for_the_history(tmp_path: Path) -> None:
    """Its instructions are sent with each turn; `memory_key` and `input_key` name its variables."""
    prompt = ChatPromptTemplate([("system", "Be {how}."), MessagesPlaceholder("past"), ("human", "{q}")])
    with ChatHistoryCallback(new_url(tmp_path), conversation_id="c") as history:
        model = Echo(callbacks=[history])
        memory = ConversationBufferMemory(memory_key="past")
        chain = ConversationChain(llm=model, prompt=prompt.partial(how="brief"), memory=memory, input_key="q")
        chain.predict(q="One")
        LLMChain(llm=model, prompt=prompt, memory=memory).predict(how="loud", q="Two")
    assert model.sent[-1] == [
        ("system", "Be loud."), ("user", "One"), ("assistant", "2: One"), ("user", "Two"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"prompt": PromptTemplate.from_template("{history} {input}")}, "is sent as messages and not as a text"),
        ({"prompt": ChatPromptTemplate(["{input}"])}, "has no place for the conversation"),
        ({"prompt": ChatPromptTemplate([PLACE, "{question}"])}, r"\['question'\], not \['input'\]"),
        ({"prompt": ChatPromptTemplate([PLACE, "{a} {input}"])}, r"prompt\.partial"),
        ({"llm": OpenAI(api_key="any")}, "is a completion model"),
    ],
    ids=["text", "no place", "other key", "more variables", "completion model"],
)  # fmt: skip
def test_a_chain_that_cannot_send_messages_is_refused(options: Any, error: str) -> None:
    """When it is made, with what to pass."""
    with pytest.raises(ConfigError, match=error):
        ConversationChain(**{"llm": Echo(), **options})


# -- over HTTP --------------------------------------------------------------------------------------------------------


@both
def test_a_provider_gets_the_history_as_messages(style: CallStyle, database: str) -> None:
    """ChatOpenAI sends roles and texts; a stream that is left is cancelled, and not in the memory."""
    with LoopbackProvider(scripted("One.", "Two.", "Three.")) as provider:
        with ChatHistoryCallback(database, conversation_id="c") as history:
            chain = ConversationChain(llm=chat(provider, callbacks=[history]))
            style.invoke(chain, "1")
            stream: Any = chain.stream("2")
            next(stream)
            stream.close()
            style.stream(chain, "3")
        sent = provider.requests[-1]["body"]["messages"]
    assert [(each["role"], each["content"]) for each in sent[1:]] == [
        ("user", "1"), ("assistant", "One."), ("user", "3"),
    ]  # fmt: skip
    ends = [(run["operation"], run["status"]) for run in runs(database)]
    assert sorted(ends) == [
        ("chain", "cancelled"), *[("chain", "complete")] * 2, ("chat", "cancelled"), *[("chat", "complete")] * 2,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "make",
    [chat, partial(chat, use_responses_api=True), anthropics.chat],
    ids=["chat completions", "Responses", "Anthropic"],
)
def test_each_message_is_stored_once_with_every_provider(make: Any, tmp_path: Path) -> None:
    """What comes back from the database is recognised when it is sent again, also by a new recorder."""
    url = new_url(tmp_path)
    with LoopbackProvider(scripted("One.", "Two.", "Three.", "Four.")) as provider:
        for question in ("1", "2", "3", "4"):
            with ChatHistoryCallback(url, conversation_id="c") as history:
                memory = ConversationBufferWindowMemory(k=2)
                chain = ConversationChain(llm=make(provider, callbacks=[history]), memory=memory)
                list(chain.stream(question))
    assert stored(url) == [
        ("user", "1"), ("assistant", "One."), ("user", "2"), ("assistant", "Two."),
        ("user", "3"), ("assistant", "Three."), ("user", "4"), ("assistant", "Four."),
    ]  # fmt: skip
    assert sql(url, "SELECT max(position) FROM messages") == [(7,)]


def test_calls_of_tools_are_in_the_history(tmp_path: Path) -> None:
    """What a model called, and what the tool answered, is sent as it was recorded."""
    call = {"id": "call_1", "name": "weather", "arguments": '{"city": "Bern"}'}
    answers = [
        Answer(body=openai_chat_body("", tool_calls=[call])),
        Answer(body=openai_chat_body("Rain.")),
        Answer(frames=openai_chat_frames(["Yes."])),
    ]
    replies = iter(answers)
    with LoopbackProvider(lambda *request: next(replies)) as provider:
        with ChatHistoryCallback(new_url(tmp_path), conversation_id="c") as history:
            model = chat(provider, callbacks=[history])
            asked = model.invoke([("user", "Weather?")])
            tool = {"role": "tool", "tool_call_id": "call_1", "content": "rain"}
            model.invoke([("user", "Weather?"), asked, tool])
            list(ConversationChain(llm=model).stream("Sure?"))
        sent = provider.requests[-1]["body"]["messages"]
    assert [each["role"] for each in sent] == ["system", "user", "assistant", "tool", "assistant", "user"]
    assert json.loads(sent[2]["tool_calls"][0]["function"]["arguments"]) == {"city": "Bern"}
