"""Which recorded run answers a request: exactly, or by what the user says it must share; in order, each once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.core.clock import now
from recorder.errors import ConfigError, NotFound
from recorder.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from recorder.models import ChatAnthropic, ChatOpenAI
from recorder.replay import NotRecorded
from recorder.replay.http.match import Matcher, Rules
from recorder.replay.queries import run_queries
from recorder.replay.reader_thread import ReaderThread, shared
from recorder.storage.reader import DatabaseReader, RecordedRun
from recorder.testing import LoopbackProvider
from recorder.wire.recorded_run import ANTHROPIC, CHAT, COMPLETIONS
from recorder.wire.request_hash import input_hash
from tests.oracle import begin, new_url, say


class Recording:
    """A database, models that record into it, and a reader of it."""

    def __init__(self, url: str, history: ChatHistoryCallback, provider: LoopbackProvider) -> None:
        self.history = history
        self.chat = ChatOpenAI(
            "gpt-4o", base_url=provider.base_url, api_key="any", max_retries=0, callbacks=[history]
        )
        self.claude = ChatAnthropic(base_url=provider.url, api_key="any", max_retries=0, callbacks=[history])
        self.reader: ReaderThread = shared(url)

    def find(self, matcher: Matcher, body: dict[str, Any], wire: str = CHAT, **more: Any) -> RecordedRun:
        """The run for a request, when all that was recorded is stored."""
        self.history.flush().wait()
        return run_queries(self.reader, matcher.find(body, wire, **more))

    def reply(self, matcher: Matcher, body: dict[str, Any], wire: str = CHAT, **more: Any) -> str:
        """What that run replied."""
        run = self.find(matcher, body, wire, **more)
        (reply,) = self.reader.ask(DatabaseReader.replies, run.conversation_id, run.id).result()
        return reply.text


@pytest.fixture
def recording(database: str) -> Iterator[Recording]:
    """A recording whose provider answers the number of the request."""
    count = iter(range(1, 1000))
    with (
        LoopbackProvider(lambda body, path: f"answer {next(count)}") as provider,
        ChatHistoryCallback(database) as history,
    ):
        found = Recording(database, history, provider)
        yield found
        found.reader.close()


def ask(text: str = "Hi", **options: Any) -> dict[str, Any]:
    """A request as it goes over the wire."""
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": text}], **options}


def loosely(**rules: Any) -> Matcher:
    """One with these rules."""
    return Matcher(Rules(**rules))


# -- exactly -------------------------------------------------------------------------------------------------------


def test_the_same_request_has_the_same_hash_wherever_it_is_looked_at() -> None:
    """As the arguments of an SDK, and as the JSON it sends; streamed or not."""
    arguments = ask(
        temperature=0, stop=None, extra_body={"top_k": 3}, betas=["b"], timeout=3, extra_headers={}
    )
    sent = ask(temperature=0, top_k=3, stream=True, stream_options={"include_usage": True})
    assert input_hash(arguments) == input_hash(sent)
    assert input_hash(ask(temperature=1)) != input_hash(ask(temperature=0))


def test_an_exact_match(recording: Recording) -> None:
    """By all that was asked, however it travels; each run once, in order, and then no more."""
    recording.chat.invoke("Hi")
    recording.chat.invoke("Ho")
    list(recording.chat.stream("Hi"))
    matcher = Matcher(Rules())
    assert recording.reply(matcher, ask("Ho")) == "answer 2"
    assert recording.reply(matcher, ask("Hi", stream=True)) == "answer 1"
    assert recording.reply(matcher, ask("Hi")) == "answer 3"
    with pytest.raises(
        NotRecorded, match=r"was recorded 2 times and is made once more; pass allow_playback_re"
    ):
        recording.find(matcher, ask("Hi"))


def test_the_last_again(recording: Recording) -> None:
    """Where the user allows it; and each matcher begins at the beginning."""
    recording.chat.invoke("Hi")
    recording.chat.invoke("Hi")
    for _ in range(2):
        matcher = loosely(allow_playback_repeats=True)
        replies = [recording.reply(matcher, ask()) for _ in range(4)]
        assert replies == ["answer 1", "answer 2", "answer 2", "answer 2"]


def test_a_retry_gets_what_the_first_try_got(recording: Recording) -> None:
    """It is no request more."""
    recording.chat.invoke("Hi")
    recording.chat.invoke("Hi")
    matcher = Matcher(Rules())
    assert recording.reply(matcher, ask()) == "answer 1"
    assert recording.reply(matcher, ask(), is_retry=True) == "answer 1"
    assert recording.reply(matcher, ask()) == "answer 2"


def test_runs_without_an_end_do_not_count(recording: Recording) -> None:
    """One that still streams, and one whose process went; the error says that they are there."""
    run_id = begin(recording.history, input_hash=input_hash(ask()), wire=CHAT)
    say(recording.history, run_id, ["Hel"])
    with pytest.raises(
        NotRecorded, match=rf"Run {run_id} of this request still streams, so it cannot answer"
    ):
        recording.find(Matcher(Rules()), ask())
    recording.history.close().wait()
    with pytest.raises(
        NotRecorded, match=rf"Run {run_id} of this request was cut off when its process ended"
    ):
        run_queries(recording.reader, Matcher(Rules()).find(ask(), CHAT))


def test_what_is_recorded_meanwhile_is_for_the_next_time(recording: Recording) -> None:
    """Runs from a moment on are not looked at."""
    recording.chat.invoke("Hi")
    matcher = Matcher(Rules(), before=now() + timedelta(microseconds=1))
    recording.chat.invoke("Hi")
    assert recording.reply(matcher, ask()) == "answer 1"
    with pytest.raises(NotRecorded, match="was recorded once and is made once more"):
        recording.find(matcher, ask())


def test_each_run_is_given_once_to_many_threads(recording: Recording) -> None:
    """Whoever comes first."""
    for _ in range(8):
        recording.chat.invoke("Hi")
    recording.history.flush().wait()
    matcher, found = Matcher(Rules()), []

    def one() -> None:
        found.append(run_queries(recording.reader, matcher.find(ask(), CHAT)).id)

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 8


# -- loosened --------------------------------------------------------------------------------------------------------


def test_options_that_may_differ(recording: Recording) -> None:
    """`ignore` names them; all others must be the same."""
    recording.chat.invoke("Hi", temperature=0.2, seed=7)
    assert recording.reply(loosely(ignore=("temperature", "seed")), ask(temperature=0.9)) == "answer 1"
    with pytest.raises(NotRecorded):
        recording.find(loosely(ignore=("temperature",)), ask(temperature=0.2))


def test_only_what_is_said(recording: Recording) -> None:
    """`match_on` names what must be the same; in order, each once, as ever."""
    recording.chat.invoke("Hi", temperature=0.2)
    recording.chat.invoke("Hi", temperature=0.3)
    recording.chat.invoke("Ho")
    matcher = loosely(match_on=("messages",))
    assert recording.reply(matcher, {"model": "other", "messages": ask()["messages"]}) == "answer 1"
    assert recording.reply(matcher, ask("Ho", top_p=1)) == "answer 3"
    assert recording.reply(matcher, ask("Hi")) == "answer 2"
    with pytest.raises(NotRecorded, match="was recorded 2 times"):
        recording.find(matcher, ask("Hi"))


def test_what_comes_later_is_found(recording: Recording) -> None:
    """A loosened matcher has looked at the recording before; at a miss it looks again."""
    matcher = loosely(match_on=("messages",))
    recording.chat.invoke("Hi")
    assert recording.reply(matcher, ask()) == "answer 1"
    recording.chat.invoke("Ho")
    assert recording.reply(matcher, ask("Ho")) == "answer 2"


def test_a_system_prompt_that_may_differ(recording: Recording) -> None:
    """It often has today's date; OpenAI's and Anthropic's stand in different places."""
    recording.chat.invoke([SystemMessage("Today is Monday."), HumanMessage("Hi")])
    recording.claude.invoke([SystemMessage("Today is Monday."), HumanMessage("Ho")])
    matcher = loosely(ignore=("system", "max_tokens"))
    tuesday = {"role": "system", "content": "Today is Tuesday."}
    body = {"model": "gpt-4o", "messages": [tuesday, *ask()["messages"]]}
    assert recording.reply(matcher, body) == "answer 1"
    body = {"model": "claude-haiku-4-5", "system": "Today is Tuesday.", **{"messages": ask("Ho")["messages"]}}
    assert recording.reply(matcher, body, ANTHROPIC) == "answer 2"


def test_a_rule_of_ones_own(recording: Recording) -> None:
    """A function of both requests in one form."""
    recording.chat.invoke("My number is 17.", temperature=0)

    def digits_apart(requested: dict[str, Any], recorded: dict[str, Any]) -> bool:
        strip = str.maketrans("", "", "0123456789")
        texts = [form["messages"][-1]["text"].translate(strip) for form in (requested, recorded)]
        return bool(texts[0] == texts[1] and requested["model"] == recorded["model"])

    assert recording.reply(loosely(match_on=digits_apart), ask("My number is 23.")) == "answer 1"
    with pytest.raises(NotRecorded):
        recording.find(loosely(match_on=digits_apart), ask("Your number is 23."))


def test_tools_and_pictures_said_in_other_words(recording: Recording) -> None:
    """The same to a reader: arguments re-spaced, a trailing space, results where Anthropic has them, an image."""
    call = {"name": "weather", "args": {"city": "Rome"}, "id": "call_1", "type": "tool_call"}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}
    recording.claude.invoke(
        [
            HumanMessage([{"type": "text", "text": "Look"}, image]),
            AIMessage("I see. ", tool_calls=[call]),
            ToolMessage("Sunny", "call_1"),
            HumanMessage("Well?"),
        ]
    )
    source = {"type": "base64", "media_type": "image/png", "data": "QUJD"}
    messages: list[Any] = [
        {"role": "user", "content": [{"type": "text", "text": "Look "}, {"type": "image", "source": source}]},
        {"role": "assistant", "content": [
            {"type": "text", "text": "I see."},
            {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Rome"}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "call_1", "content": "Sunny"},
            {"type": "text", "text": "Well?"}]},
    ]  # fmt: skip
    body = {"model": "any", "max_tokens": 5, "messages": messages}
    assert recording.reply(loosely(match_on=("messages",)), body, ANTHROPIC) == "answer 1"
    messages[-1]["content"][0]["content"] = "Rainy"
    with pytest.raises(NotRecorded, match=r'-      "text": "Sunny",\n\+      "text": "Rainy",'):
        recording.find(loosely(match_on=("messages",)), body, ANTHROPIC)


def test_a_prompt_is_a_message(recording: Recording) -> None:
    """Of the legacy completions."""
    recording.chat.invoke("Tell me")
    matcher = loosely(match_on=("prompt",))
    assert recording.reply(matcher, {"model": "m", "prompt": "Tell me"}, COMPLETIONS) == "answer 1"


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"match_on": "messages"}, r"match_on is 'messages'; pass a tuple of names, \('messages',\) for one"),
        ({"ignore": 3}, "ignore is 3"),
        ({"match_on": ("model",), "ignore": ("seed",)}, "pass one of them"),
    ],
)
def test_rules_that_cannot_be(rules: dict[str, Any], message: str) -> None:
    """The usual slip is a text in place of a tuple."""
    with pytest.raises(ConfigError, match=message):
        Rules(**rules)


# -- misses ----------------------------------------------------------------------------------------------------------


def test_a_miss_shows_the_nearest_and_the_difference(recording: Recording) -> None:
    """And what to do; among many the one that looks most like it."""
    for text in ("Write a song about the sea", "Write a song about wine", "What is the capital of France?"):
        recording.chat.invoke(text, temperature=0)
    matcher = Matcher(Rules(), how_to_record="Do this to record it.")
    with pytest.raises(NotFound) as found:
        recording.find(matcher, ask("What is the capital of Spain?", temperature=0.5))
    message = str(found.value)
    assert '-      "text": "What is the capital of France?"' in message
    assert '+      "text": "What is the capital of Spain?"' in message
    assert '-  "temperature": 0\n+  "temperature": 0.5' in message
    assert "song" not in message
    assert message.endswith("\nDo this to record it.")


def test_a_long_difference_is_short(recording: Recording) -> None:
    """Text of many lines is compared line by line, and not all of it is shown."""
    lines = [f"line {number}" for number in range(300)]
    recording.chat.invoke("\n".join(lines))
    changed = "\n".join([*lines[:150], "another line", *lines[151:]])
    with pytest.raises(NotRecorded) as found:
        recording.find(Matcher(Rules()), ask(changed))
    assert '-        "line 150",\n+        "another line",' in str(found.value)
    assert len(str(found.value).splitlines()) < 20
    with pytest.raises(NotRecorded, match="lines more"):
        recording.find(Matcher(Rules()), ask("\n".join(line * 200 for line in lines)))


def test_a_miss_that_differs_in_nothing_a_reader_sees(recording: Recording) -> None:
    """Says so, and how to compare by meaning."""
    recording.chat.invoke("Hi")
    with pytest.raises(NotRecorded, match="The two differ only in form"):
        recording.find(Matcher(Rules()), ask("Hi "))
    assert recording.reply(loosely(ignore=()), ask("Hi ")) == "answer 1"


def test_a_miss_with_nothing_recorded(recording: Recording) -> None:
    """There is nothing to compare with; a request that nobody understands is shown as it is."""
    with pytest.raises(NotRecorded, match="none is recorded yet"):
        recording.find(Matcher(Rules()), ask())
    recording.chat.invoke("Hi")
    with pytest.raises(NotRecorded, match=r'\+ +"what"'):
        recording.find(Matcher(Rules()), {"messages": [{"what": "is this"}]})


def test_a_read_only_look(tmp_path: Path) -> None:
    """A matcher of an empty database has nothing, and says so."""
    reader = shared(new_url(tmp_path))
    with pytest.raises(NotRecorded):
        run_queries(reader, loosely(ignore=()).find(ask(), CHAT))
    reader.close()
