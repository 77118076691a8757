"""A request is answered by the recorded run that matches it, exactly or by rules, in order and once each."""

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
        """Return the run for a request, after everything recorded is stored."""
        self.history.flush().wait()
        return run_queries(self.reader, matcher.find(body, wire, **more))

    def reply(self, matcher: Matcher, body: dict[str, Any], wire: str = CHAT, **more: Any) -> str:
        """Return the reply of that run."""
        run = self.find(matcher, body, wire, **more)
        (reply,) = self.reader.ask(DatabaseReader.replies, run.conversation_id, run.id).result()
        return reply.text


@pytest.fixture
def recording(database: str) -> Iterator[Recording]:
    """Yield a recording whose provider answers with the number of the request."""
    count = iter(range(1, 1000))
    with (
        LoopbackProvider(lambda body, path: f"answer {next(count)}") as provider,
        ChatHistoryCallback(database) as history,
    ):
        found = Recording(database, history, provider)
        yield found
        found.reader.close()


def ask(text: str = "Hi", **options: Any) -> dict[str, Any]:
    """Return the body of a request."""
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": text}], **options}


def loosely(**rules: Any) -> Matcher:
    """Return a matcher with these rules."""
    return Matcher(Rules(**rules))


# -- exact matches -------------------------------------------------------------------------------------------------


def test_sdk_arguments_and_the_sent_json_have_the_same_hash() -> None:
    """A stream and a complete answer have the same hash, too."""
    arguments = ask(
        temperature=0, stop=None, extra_body={"top_k": 3}, betas=["b"], timeout=3, extra_headers={}
    )
    sent = ask(temperature=0, top_k=3, stream=True, stream_options={"include_usage": True})
    assert input_hash(arguments) == input_hash(sent)
    assert input_hash(ask(temperature=1)) != input_hash(ask(temperature=0))


def test_each_run_answers_one_equal_request(recording: Recording) -> None:
    """Runs answer in the order in which they were recorded; after the last one an error is raised."""
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


def test_the_last_run_repeats_with_allow_playback_repeats(recording: Recording) -> None:
    """A new matcher begins with the first run again."""
    recording.chat.invoke("Hi")
    recording.chat.invoke("Hi")
    for _ in range(2):
        matcher = loosely(allow_playback_repeats=True)
        replies = [recording.reply(matcher, ask()) for _ in range(4)]
        assert replies == ["answer 1", "answer 2", "answer 2", "answer 2"]


def test_a_retry_gets_the_same_run(recording: Recording) -> None:
    """A retry of an SDK does not count as another request."""
    recording.chat.invoke("Hi")
    recording.chat.invoke("Hi")
    matcher = Matcher(Rules())
    assert recording.reply(matcher, ask()) == "answer 1"
    assert recording.reply(matcher, ask(), is_retry=True) == "answer 1"
    assert recording.reply(matcher, ask()) == "answer 2"


def test_an_open_or_interrupted_run_does_not_answer(recording: Recording) -> None:
    """The error names the run and says why it cannot answer."""
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


def test_runs_that_began_after_the_matcher_do_not_answer(recording: Recording) -> None:
    """`before` is the time from which on runs are ignored."""
    recording.chat.invoke("Hi")
    matcher = Matcher(Rules(), before=now() + timedelta(microseconds=1))
    recording.chat.invoke("Hi")
    assert recording.reply(matcher, ask()) == "answer 1"
    with pytest.raises(NotRecorded, match="was recorded once and is made once more"):
        recording.find(matcher, ask())


def test_each_run_is_given_once_to_many_threads(recording: Recording) -> None:
    """Eight threads that send one request at once get eight different runs."""
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


# -- matches by rules ------------------------------------------------------------------------------------------------


def test_ignored_options_may_differ(recording: Recording) -> None:
    """All options that `ignore` does not name must be equal."""
    recording.chat.invoke("Hi", temperature=0.2, seed=7)
    assert recording.reply(loosely(ignore=("temperature", "seed")), ask(temperature=0.9)) == "answer 1"
    with pytest.raises(NotRecorded):
        recording.find(loosely(ignore=("temperature",)), ask(temperature=0.2))


def test_only_the_fields_of_match_on_must_be_equal(recording: Recording) -> None:
    """Runs answer in order and once each."""
    recording.chat.invoke("Hi", temperature=0.2)
    recording.chat.invoke("Hi", temperature=0.3)
    recording.chat.invoke("Ho")
    matcher = loosely(match_on=("messages",))
    assert recording.reply(matcher, {"model": "other", "messages": ask()["messages"]}) == "answer 1"
    assert recording.reply(matcher, ask("Ho", top_p=1)) == "answer 3"
    assert recording.reply(matcher, ask("Hi")) == "answer 2"
    with pytest.raises(NotRecorded, match="was recorded 2 times"):
        recording.find(matcher, ask("Hi"))


def test_a_matcher_with_rules_finds_runs_that_were_recorded_later(recording: Recording) -> None:
    """When no run matches, it reads the recording again."""
    matcher = loosely(match_on=("messages",))
    recording.chat.invoke("Hi")
    assert recording.reply(matcher, ask()) == "answer 1"
    recording.chat.invoke("Ho")
    assert recording.reply(matcher, ask("Ho")) == "answer 2"


def test_an_ignored_system_prompt_may_differ(recording: Recording) -> None:
    """OpenAI and Anthropic put it in different places of a request."""
    recording.chat.invoke([SystemMessage("Today is Monday."), HumanMessage("Hi")])
    recording.claude.invoke([SystemMessage("Today is Monday."), HumanMessage("Ho")])
    matcher = loosely(ignore=("system", "max_tokens"))
    tuesday = {"role": "system", "content": "Today is Tuesday."}
    body = {"model": "gpt-4o", "messages": [tuesday, *ask()["messages"]]}
    assert recording.reply(matcher, body) == "answer 1"
    body = {"model": "claude-haiku-5-5", "system": "Today is Tuesday.", **{"messages": ask("Ho")["messages"]}}
    assert recording.reply(matcher, body, ANTHROPIC) == "answer 2"


def test_match_on_may_be_a_function(recording: Recording) -> None:
    """It gets both requests in one common form."""
    recording.chat.invoke("My number is 17.", temperature=0)

    def digits_apart(requested: dict[str, Any], recorded: dict[str, Any]) -> bool:
        strip = str.maketrans("", "", "0123456789")
        texts = [form["messages"][-1]["text"].translate(strip) for form in (requested, recorded)]
        return bool(texts[0] == texts[1] and requested["model"] == recorded["model"])

    assert recording.reply(loosely(match_on=digits_apart), ask("My number is 23.")) == "answer 1"
    with pytest.raises(NotRecorded):
        recording.find(loosely(match_on=digits_apart), ask("Your number is 23."))


def test_equivalent_forms_of_tools_and_images_match(recording: Recording) -> None:
    """Other spaces, Anthropic's tool results and image blocks have the same meaning as the recorded request."""
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


def test_a_prompt_of_completions_matches_a_message(recording: Recording) -> None:
    """The prompt of a legacy completion is compared as a user's message."""
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
def test_invalid_rules_are_refused(rules: dict[str, Any], message: str) -> None:
    """The most frequent mistake is text in place of a tuple."""
    with pytest.raises(ConfigError, match=message):
        Rules(**rules)


# -- misses ----------------------------------------------------------------------------------------------------------


def test_a_miss_shows_the_difference_to_the_nearest_run(recording: Recording) -> None:
    """The message ends with the next step."""
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


def test_a_long_difference_is_shortened(recording: Recording) -> None:
    """Text of many lines is compared line by line."""
    lines = [f"line {number}" for number in range(300)]
    recording.chat.invoke("\n".join(lines))
    changed = "\n".join([*lines[:150], "another line", *lines[151:]])
    with pytest.raises(NotRecorded) as found:
        recording.find(Matcher(Rules()), ask(changed))
    assert '-        "line 150",\n+        "another line",' in str(found.value)
    assert len(str(found.value).splitlines()) < 20
    with pytest.raises(NotRecorded, match="lines more"):
        recording.find(Matcher(Rules()), ask("\n".join(line * 200 for line in lines)))


def test_a_miss_with_an_invisible_difference_says_so(recording: Recording) -> None:
    """The message says how to compare by meaning."""
    recording.chat.invoke("Hi")
    with pytest.raises(NotRecorded, match="The two differ only in form"):
        recording.find(Matcher(Rules()), ask("Hi "))
    assert recording.reply(loosely(ignore=()), ask("Hi ")) == "answer 1"


def test_a_miss_without_recorded_runs_says_so(recording: Recording) -> None:
    """A request that cannot be parsed is shown as it is."""
    with pytest.raises(NotRecorded, match="none is recorded yet"):
        recording.find(Matcher(Rules()), ask())
    recording.chat.invoke("Hi")
    with pytest.raises(NotRecorded, match=r'\+ +"what"'):
        recording.find(Matcher(Rules()), {"messages": [{"what": "is this"}]})


def test_a_matcher_of_an_empty_database_finds_nothing(tmp_path: Path) -> None:
    """It raises NotRecorded."""
    reader = shared(new_url(tmp_path))
    with pytest.raises(NotRecorded):
        run_queries(reader, loosely(ignore=()).find(ask(), CHAT))
    reader.close()
