"""A replayed model behaves like the model that it replaces, and can record requests that are not recorded yet."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from recorder.errors import ConfigError, NotFound
from recorder.messages import HumanMessage, SystemMessage
from recorder.models import AzureChatOpenAI, ChatOpenAI, OpenAI, SimpleChatModel
from recorder.replay import NotRecorded, Replay
from recorder.testing import Answer, LoopbackProvider
from tests import anthropics
from tests.chatting import CALL_STYLES, CallStyle, Log, chat, history_at, name_of, recorded, runs
from tests.oracle import new_url, run_python
from tests.replay.test_replay import Clock

both = pytest.mark.parametrize("style", CALL_STYLES, ids=name_of)


@pytest.fixture
def provider() -> Iterator[LoopbackProvider]:
    """Yield a provider that answers "answer 1", "answer 2", ..."""
    count = iter(range(1, 1000))
    with LoopbackProvider(lambda body, path: f"answer {next(count)}") as provider:
        yield provider


def model_of(kind: str, provider: LoopbackProvider, **options: Any) -> Any:
    """Return a real model by the name of its class or its API."""
    if kind == "ChatAnthropic":
        return anthropics.chat(provider, **options)
    if kind == "OpenAI":
        return OpenAI(base_url=provider.base_url, api_key="any", max_retries=0, **options)
    if kind == "AzureChatOpenAI":
        return AzureChatOpenAI(
            azure_endpoint=provider.url, azure_deployment="gpt-4o", api_version="v", api_key="any", **options
        )
    if kind == "Parrot":
        return Parrot(**options)
    if kind == "Responses":
        return chat(provider, use_responses_api=True, **options)
    return chat(provider, **options)


class Parrot(SimpleChatModel):
    """A model of the user's own, which repeats the last message."""

    call_count = 0

    def _stream(self, messages: list[Any], **options: Any) -> Iterator[str]:
        Parrot.call_count += 1
        yield from messages[-1].text.split(" ")


KINDS = ["ChatOpenAI", "Responses", "ChatAnthropic", "OpenAI", "AzureChatOpenAI", "Parrot"]
each = pytest.mark.parametrize("kind", KINDS)


def comparable(answer: Any) -> Any:
    """Return an answer without the fields that differ from run to run."""
    if isinstance(answer, str):
        return answer
    return answer.content, answer.tool_calls, answer.response_metadata, answer.usage_metadata


# -- mode none --------------------------------------------------------------------------------------------------


@each
@both
def test_a_replayed_model_gives_the_answers_and_events_of_the_real_one(
    kind: str, style: CallStyle, provider: LoopbackProvider, tmp_path: Path
) -> None:
    """This holds for all its methods, and no request is sent."""
    live, replayed = Log(), Log()
    # Responses has no stop sequences.
    bound: dict[str, Any] = {"max_tokens": 9} if kind == "Responses" else {"stop": ["END"]}

    def replies_of(model: Any) -> list[Any]:
        streamed: list[Any] = style.stream(model, "one")
        return [
            comparable(style.invoke(model, "one two")),
            [comparable(each) for each in style.batch(model, ["three", "four"], {"max_concurrency": 1})],
            [[each.text for each in some] for some in style.generate(model, [["five"], ["six"]]).generations]
            if kind != "OpenAI" else None,
            [each if isinstance(each, str) else (each.content, each.usage_metadata) for each in streamed],
            comparable(model.bind(**bound).invoke("seven")),
            comparable(model("eight")),
        ]  # fmt: skip

    with history_at(tmp_path) as history:
        real = model_of(kind, provider, callbacks=[history, live])
        expected = replies_of(real)
        url = history.recorder.url
    real.callbacks = [replayed]
    requests, call_count = len(provider.requests), Parrot.call_count
    with Replay(url) as replay:
        model = replay.model(like=real)
        assert replies_of(model) == expected
        assert isinstance(model, type(real))
    assert (len(provider.requests), Parrot.call_count) == (requests, call_count)
    assert sorted(replayed.names) == sorted(live.names)
    if kind != "Parrot":  # its replayed chunks are those of the stored tokens
        assert replayed.tokens == live.tokens


@both
def test_a_replayed_model_streams_and_has_events(
    style: CallStyle, provider: LoopbackProvider, tmp_path: Path
) -> None:
    """`invoke` with `streaming=True` reports tokens, and `astream_events` yields its events."""
    log = Log()
    with history_at(tmp_path) as history:
        style.invoke(chat(provider, streaming=True, callbacks=[history]), "Hi")
        style.invoke(chat(provider, streaming=True, callbacks=[history]), "Ho")
    with Replay(history.recorder.url) as replay:
        model = replay.model(like=ChatOpenAI, model="gpt-4o", streaming=True, callbacks=[log])
        assert style.invoke(model, "Hi").content == "answer 1"
        assert "".join(log.tokens) == "answer 1"

        async def main() -> list[str]:
            return [event["event"] async for event in model.astream_events("Ho", version="v2")]

        names = asyncio.run(main())
    assert (names[0], names[-1]) == ("on_chat_model_start", "on_chat_model_end")
    assert names.count("on_chat_model_stream") > 1


def test_tools_are_part_of_the_compared_request(provider: LoopbackProvider, tmp_path: Path) -> None:
    """A request matches with the recorded tools only."""
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    with history_at(tmp_path) as history:
        chat(provider, callbacks=[history]).bind_tools([tool]).invoke("Hi")
    with Replay(history.recorder.url) as replay:
        model = replay.model(like=chat(provider))
        with pytest.raises(NotRecorded, match=r'-      "function": '):
            model.invoke("Hi")
        assert model.bind_tools([tool]).invoke("Hi").content == "answer 1"


@pytest.mark.parametrize("kind", KINDS[:5])
def test_without_like_the_model_of_the_newest_run_is_replayed(
    kind: str, provider: LoopbackProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It needs no API key, and options that nobody set are not compared."""
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "AZURE_OPENAI_API_KEY", "OPENAI_API_VERSION"):
        monkeypatch.delenv(name, raising=False)
    with history_at(tmp_path) as history:
        real = model_of(kind, provider, callbacks=[history], temperature=0.2)
        expected = comparable(real.invoke("Hi"))
    with Replay(history.recorder.url) as replay:
        model = replay.model()
        assert type(model).__name__ == type(real).__name__
        assert model.model_name == real.model_name
        assert comparable(model.invoke("Hi")) == expected
        with pytest.raises(NotRecorded):
            model.invoke("Ho")


def test_a_conversation_is_replayed_turn_by_turn(provider: LoopbackProvider, database: str) -> None:
    """Earlier messages are part of each request."""
    first = [SystemMessage("Be brief."), HumanMessage("Hi")]
    with history_at(database, conversation_id="c") as history:
        model = chat(provider, callbacks=[history])
        reply = model.invoke(first)
        model.invoke([*first, reply, HumanMessage("Go on")])
    with Replay(database) as replay:
        for options in ({"like": chat(provider)}, {}):
            model = replay.model(**options)  # type: ignore[arg-type]
            again = model.invoke(first)
            assert model.invoke([*first, again, HumanMessage("Go on")]).content == "answer 2"


@both
def test_a_replayed_model_raises_the_recorded_error(style: CallStyle, tmp_path: Path) -> None:
    """It is raised at once, without retries, and handlers receive it."""
    log = Log()
    with LoopbackProvider(Answer.error(429)) as provider, history_at(tmp_path) as history:
        with pytest.raises(openai.RateLimitError) as expected:
            style.invoke(chat(provider, callbacks=[history]), "Hi")
        real = chat(provider, max_retries=5, callbacks=[log])
    with Replay(history.recorder.url) as replay, pytest.raises(openai.RateLimitError) as found:
        style.invoke(replay.model(like=real), "Hi")
    assert str(found.value) == str(expected.value)
    assert found.value.body == expected.value.body
    assert log.names[-1] == "llm_error"


def test_speed_decides_the_pace_of_a_replayed_model(
    provider: LoopbackProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a speed it waits as recorded; without one it does not wait."""
    answer = Answer(
        frames=[b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'] * 4, interval=0.05
    )
    with LoopbackProvider(answer) as slow, history_at(tmp_path) as history:
        list(chat(slow, callbacks=[history]).stream("Hi"))
    monkeypatch.setattr("recorder.replay.driver.time", clock := Clock())
    with Replay(history.recorder.url) as replay:

        def waited(speed: float | None) -> float:
            began = clock.now
            model = replay.model(like=chat(provider), speed=speed)
            assert "".join(chunk.text for chunk in model.stream("Hi")) == "xxxx"
            return clock.now - began

        assert waited(1.0) > 0.14
        assert waited(None) == 0


def test_leaving_a_replayed_stream_ends_the_run(provider: LoopbackProvider, tmp_path: Path) -> None:
    """Handlers receive an error, with and without an event loop."""
    with history_at(tmp_path) as history:
        for _ in range(2):
            chat(provider, callbacks=[history]).invoke("Hi")
    log = Log()
    with Replay(history.recorder.url) as replay:
        model = replay.model(like=chat(provider, callbacks=[log]))
        stream = model.stream("Hi")
        next(stream)
        stream.close()

        async def main() -> None:
            stream = model.astream("Hi")
            await anext(stream)
            await stream.aclose()

        asyncio.run(main())
    assert log.names.count("llm_error") == 2


# -- the modes that record --------------------------------------------------------------------------------------


@each
@both
def test_mode_once_records_a_new_file_and_replays_it_later(
    kind: str, style: CallStyle, provider: LoopbackProvider, tmp_path: Path
) -> None:
    """Later sessions get the same answers in order without a request, and refuse new requests."""
    url = f"sqlite:///{tmp_path / 'new.db'}"
    real = model_of(kind, provider)

    def session() -> list[str]:
        with Replay(url) as replay:
            model = replay.model(like=real, mode="once")
            found = [style.invoke(model, text) for text in ("Hi", "Ho", "Hi")]
            streamed: list[Any] = style.stream(model, "He")
            return [each if isinstance(each, str) else each.text for each in (*found, *streamed)]

    first = session()
    requests, call_count = len(provider.requests), Parrot.call_count
    assert requests or call_count
    assert len(runs(url)) == 4
    assert session() == first
    assert session() == first
    assert (len(provider.requests), Parrot.call_count, len(runs(url))) == (requests, call_count, 4)
    with Replay(url) as replay, pytest.raises(NotRecorded, match='mode "once" records no new ones'):
        style.invoke(replay.model(like=real, mode="once"), "something else")


@both
def test_mode_new_episodes_records_only_what_is_missing(
    style: CallStyle, provider: LoopbackProvider, database: str
) -> None:
    """It works on an empty database, too."""

    def session(*texts: str, mode: str = "new_episodes") -> list[str]:
        with Replay(database) as replay:
            model = replay.model(like=chat(provider), mode=mode)
            return [style.invoke(model, text).text for text in texts]

    assert session("Hi") == ["answer 1"]
    assert session("Hi", "Ho", "Hi") == ["answer 1", "answer 2", "answer 3"]
    assert session("Hi", "Hi", "Ho") == ["answer 1", "answer 3", "answer 2"]
    assert session("Ho", "Hi", mode="none") == ["answer 2", "answer 1"]
    assert len(provider.requests) == len(runs(database)) == 3


def test_mode_all_always_records(provider: LoopbackProvider, tmp_path: Path) -> None:
    """Earlier runs of the same request are kept."""
    url = new_url(tmp_path)
    for expected in ("answer 1", "answer 2"):
        with Replay(url) as replay:
            assert replay.model(like=chat(provider), mode="all").invoke("Hi").text == expected
    assert [run["status"] for run in runs(url)] == ["complete", "complete"]


def test_an_error_is_recorded_and_replayed_in_its_place(tmp_path: Path) -> None:
    """It keeps its place among the answers."""
    url = f"sqlite:///{tmp_path / 'new.db'}"
    answers: Iterator[Any] = iter([Answer.error(500), "fine"])

    def session(provider: LoopbackProvider) -> list[Any]:
        with Replay(url) as replay:
            model = replay.model(like=chat(provider), mode="once")
            return [str(each) if isinstance(each, Exception) else each.text
                    for each in model.batch(["Hi"], return_exceptions=True) + model.batch(["Hi"])]  # fmt: skip

    with LoopbackProvider(lambda body, path: next(answers)) as provider:
        first = session(provider)
        assert session(provider) == first
        assert first[1] == "fine"
        assert len(provider.requests) == 2


def test_the_applications_own_recorder_stores_replayed_calls(
    provider: LoopbackProvider, tmp_path: Path
) -> None:
    """The recording that is replayed does not change."""
    url = f"sqlite:///{tmp_path / 'new.db'}"
    own = new_url(tmp_path, "own.db")
    for _ in range(2):
        with history_at(own) as history, Replay(url) as replay:
            replay.model(like=chat(provider, callbacks=[history]), mode="once").invoke("Hi")
    first, second = runs(own)
    assert recorded(own, first["id"]).body == recorded(own, second["id"]).body == recorded(url).body
    assert len(provider.requests) == 1


def test_copies_of_a_replayed_model_share_its_position(provider: LoopbackProvider, tmp_path: Path) -> None:
    """`bind` does not begin with the first run again."""
    with history_at(tmp_path) as history:
        for _ in range(2):
            chat(provider, callbacks=[history]).invoke("Hi")
    with Replay(history.recorder.url) as replay:
        model = replay.model(like=chat(provider))
        assert model.bind().invoke("Hi").text == "answer 1"
        assert model.bind().invoke("Hi").text == "answer 2"
        with pytest.raises(NotRecorded, match="was recorded 2 times"):
            model.invoke("Hi")
        assert replay.model(like=chat(provider), allow_playback_repeats=True).invoke("Hi").text == "answer 1"


# -- errors --------------------------------------------------------------------------------------------------------


def test_invalid_arguments_of_a_replayed_model_are_refused(
    provider: LoopbackProvider, tmp_path: Path
) -> None:
    """Each error says what to do."""
    with Replay(new_url(tmp_path)) as replay:
        with pytest.raises(ConfigError, match="mode is 'sometimes'; choose one of 'none', 'once'"):
            replay.model(like=chat(provider), mode="sometimes")
        with pytest.raises(ConfigError, match="mode 'once' records, so it needs a model that answers"):
            replay.model(mode="once")
        with pytest.raises(ConfigError, match="like is 'gpt-4o'"):
            replay.model(like="gpt-4o")
        with pytest.raises(NotFound, match="Nothing is recorded yet, so the model is unknown"):
            replay.model()
        with pytest.raises(NotRecorded, match="none is recorded yet"):
            replay.model(like=chat(provider)).invoke("Hi")
        with pytest.raises(ConfigError, match=r"speed is 0"):
            replay.model(like=chat(provider), speed=0)


def test_a_missing_file_is_an_error_unless_it_is_to_be_recorded(
    provider: LoopbackProvider, tmp_path: Path
) -> None:
    """An empty file is handled like a missing one."""
    with (
        Replay(f"sqlite:///{tmp_path / 'none.db'}") as replay,
        pytest.raises(NotRecorded, match=r"none\.db yet"),
    ):
        replay.model(like=chat(provider)).invoke("Hi")
    (tmp_path / "empty.db").touch()
    with Replay(f"sqlite:///{tmp_path / 'empty.db'}") as replay:
        with pytest.raises(NotRecorded, match=r"empty\.db yet"):
            replay.model(like=chat(provider)).invoke("Hi")
        assert replay.model(like=chat(provider), mode="once").invoke("Hi").text == "answer 1"


_LEFT_OPEN = """
import sys
from recorder.models import ChatOpenAI
from recorder.replay import Replay

real = ChatOpenAI("gpt-4o", base_url=sys.argv[2], api_key="any")
chat = Replay(sys.argv[1]).model(like=real, mode="new_episodes")
print(chat.invoke("Hi").text)
"""


def test_everything_is_stored_when_a_program_closes_nothing(
    provider: LoopbackProvider, tmp_path: Path
) -> None:
    """Its second run is answered from the recording."""
    url = f"sqlite:///{tmp_path / 'new.db'}"
    for _ in range(2):
        done = run_python(_LEFT_OPEN, url, provider.base_url)
        assert (done.stdout, done.stderr, done.returncode) == ("answer 1\n", "", 0)
    assert len(provider.requests) == 1
