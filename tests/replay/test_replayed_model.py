"""A drop-in model over a recording: it behaves as the model that it stands for, and records what is not there yet."""

from __future__ import annotations

import asyncio
import time
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
from tests.chatting import ROADS, Log, Road, chat, history_at, name_of, recorded, runs
from tests.oracle import new_url, run_python

both = pytest.mark.parametrize("road", ROADS, ids=name_of)


@pytest.fixture
def provider() -> Iterator[LoopbackProvider]:
    """Answers "answer 1", "answer 2", ..."""
    count = iter(range(1, 1000))
    with LoopbackProvider(lambda body, path: f"answer {next(count)}") as provider:
        yield provider


def model_of(kind: str, provider: LoopbackProvider, **options: Any) -> Any:
    """A real model, by the name of its class."""
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
    return chat(provider, **options)


class Parrot(SimpleChatModel):
    """A model of one's own, which says the last message again."""

    spoken = 0

    def _stream(self, messages: list[Any], **options: Any) -> Iterator[str]:
        Parrot.spoken += 1
        yield from messages[-1].text.split(" ")


KINDS = ["ChatOpenAI", "ChatAnthropic", "OpenAI", "AzureChatOpenAI", "Parrot"]
each = pytest.mark.parametrize("kind", KINDS)


def facts_of(answer: Any) -> Any:
    """An answer without what differs from run to run."""
    if isinstance(answer, str):
        return answer
    return answer.content, answer.tool_calls, answer.response_metadata, answer.usage_metadata


# -- mode none --------------------------------------------------------------------------------------------------


@each
@both
def test_it_behaves_as_the_model(kind: str, road: Road, provider: LoopbackProvider, tmp_path: Path) -> None:
    """All ways to ask it give what the real one gave, and its callbacks hear the same; without any request."""
    live, replayed = Log(), Log()

    def replies_of(model: Any) -> list[Any]:
        streamed: list[Any] = road.stream(model, "one")
        return [
            facts_of(road.invoke(model, "one two")),
            [facts_of(each) for each in road.batch(model, ["three", "four"], {"max_concurrency": 1})],
            [[each.text for each in some] for some in road.generate(model, [["five"], ["six"]]).generations]
            if kind != "OpenAI" else None,
            [each if isinstance(each, str) else (each.content, each.usage_metadata) for each in streamed],
            facts_of(model.bind(stop=["END"]).invoke("seven")),
            facts_of(model("eight")),
        ]  # fmt: skip

    with history_at(tmp_path) as history:
        real = model_of(kind, provider, callbacks=[history, live])
        expected = replies_of(real)
        url = history.recorder.url
    real.callbacks = [replayed]
    requests, spoken = len(provider.requests), Parrot.spoken
    with Replay(url) as replay:
        model = replay.model(like=real)
        assert replies_of(model) == expected
        assert isinstance(model, type(real))
    assert (len(provider.requests), Parrot.spoken) == (requests, spoken)
    assert sorted(replayed.names) == sorted(live.names)
    if kind != "Parrot":  # whose chunks are told of once streamed, as they are stored
        assert replayed.tokens == live.tokens


@both
def test_streaming_and_events(road: Road, provider: LoopbackProvider, tmp_path: Path) -> None:
    """`streaming=True` tells the tokens of `invoke`, `astream_events` gives its events."""
    log = Log()
    with history_at(tmp_path) as history:
        road.invoke(chat(provider, streaming=True, callbacks=[history]), "Hi")
        road.invoke(chat(provider, streaming=True, callbacks=[history]), "Ho")
    with Replay(history.recorder.url) as replay:
        model = replay.model(like=ChatOpenAI, model="gpt-4o", streaming=True, callbacks=[log])
        assert road.invoke(model, "Hi").content == "answer 1"
        assert "".join(log.tokens) == "answer 1"

        async def main() -> list[str]:
            return [event["event"] async for event in model.astream_events("Ho", version="v2")]

        names = asyncio.run(main())
    assert (names[0], names[-1]) == ("on_chat_model_start", "on_chat_model_end")
    assert names.count("on_chat_model_stream") > 1


def test_tools(provider: LoopbackProvider, tmp_path: Path) -> None:
    """Tools are part of the request: bound as they were, they match, and others do not."""
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    with history_at(tmp_path) as history:
        chat(provider, callbacks=[history]).bind_tools([tool]).invoke("Hi")
    with Replay(history.recorder.url) as replay:
        model = replay.model(like=chat(provider))
        with pytest.raises(NotRecorded, match=r'-      "function": '):
            model.invoke("Hi")
        assert model.bind_tools([tool]).invoke("Hi").content == "answer 1"


@pytest.mark.parametrize("kind", KINDS[:4])
def test_without_a_model_to_be_like(
    kind: str, provider: LoopbackProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest run's, without any key; what is said decides, and no option that nobody chose."""
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "AZURE_OPENAI_API_KEY", "OPENAI_API_VERSION"):
        monkeypatch.delenv(name, raising=False)
    with history_at(tmp_path) as history:
        real = model_of(kind, provider, callbacks=[history], temperature=0.2)
        expected = facts_of(real.invoke("Hi"))
    with Replay(history.recorder.url) as replay:
        model = replay.model()
        assert type(model).__name__ == kind
        assert model.model_name == real.model_name
        assert facts_of(model.invoke("Hi")) == expected
        with pytest.raises(NotRecorded):
            model.invoke("Ho")


def test_a_conversation_goes_on(provider: LoopbackProvider, database: str) -> None:
    """What was said before is part of the request; on both databases."""
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
def test_an_error_is_raised_as_it_was(road: Road, tmp_path: Path) -> None:
    """At once, whatever the model's retries, and its callbacks hear it."""
    log = Log()
    with LoopbackProvider(Answer.error(429)) as provider, history_at(tmp_path) as history:
        with pytest.raises(openai.RateLimitError) as expected:
            road.invoke(chat(provider, callbacks=[history]), "Hi")
        real = chat(provider, max_retries=5, callbacks=[log])
    with Replay(history.recorder.url) as replay, pytest.raises(openai.RateLimitError) as found:
        road.invoke(replay.model(like=real), "Hi")
    assert str(found.value) == str(expected.value)
    assert found.value.body == expected.value.body
    assert log.names[-1] == "llm_error"


def test_at_its_pace(provider: LoopbackProvider, tmp_path: Path) -> None:
    """As fast as it was, where that is wanted; at once unless it is."""
    answer = Answer(
        frames=[b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'] * 4, interval=0.05
    )
    with LoopbackProvider(answer) as slow, history_at(tmp_path) as history:
        list(chat(slow, callbacks=[history]).stream("Hi"))
    with Replay(history.recorder.url) as replay:

        def seconds(speed: float | None) -> float:
            began = time.perf_counter()
            model = replay.model(like=chat(provider), speed=speed)
            assert "".join(chunk.text for chunk in model.stream("Hi")) == "xxxx"
            return time.perf_counter() - began

        assert seconds(1.0) > 0.14
        assert min(seconds(None) for _ in range(20)) < 0.14


def test_leaving_early(provider: LoopbackProvider, tmp_path: Path) -> None:
    """A loop that is left ends the run, on both roads."""
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
def test_once(kind: str, road: Road, provider: LoopbackProvider, tmp_path: Path) -> None:
    """The first session records into a new file, whatever is asked how often; the next ones replay it, in order."""
    url = f"sqlite:///{tmp_path / 'new.db'}"
    real = model_of(kind, provider)

    def session() -> list[str]:
        with Replay(url) as replay:
            model = replay.model(like=real, mode="once")
            found = [road.invoke(model, text) for text in ("Hi", "Ho", "Hi")]
            streamed: list[Any] = road.stream(model, "He")
            return [each if isinstance(each, str) else each.text for each in (*found, *streamed)]

    first = session()
    requests, spoken = len(provider.requests), Parrot.spoken
    assert requests or spoken
    assert len(runs(url)) == 4
    assert session() == first
    assert session() == first
    assert (len(provider.requests), Parrot.spoken, len(runs(url))) == (requests, spoken, 4)
    with Replay(url) as replay, pytest.raises(NotRecorded, match='mode "once" records no new ones'):
        road.invoke(replay.model(like=real, mode="once"), "something else")


@both
def test_new_episodes(road: Road, provider: LoopbackProvider, database: str) -> None:
    """What is there is replayed, what is not is recorded; on both databases, into one that is empty, too."""

    def session(*texts: str, mode: str = "new_episodes") -> list[str]:
        with Replay(database) as replay:
            model = replay.model(like=chat(provider), mode=mode)
            return [road.invoke(model, text).text for text in texts]

    assert session("Hi") == ["answer 1"]
    assert session("Hi", "Ho", "Hi") == ["answer 1", "answer 2", "answer 3"]
    assert session("Hi", "Hi", "Ho") == ["answer 1", "answer 3", "answer 2"]
    assert session("Ho", "Hi", mode="none") == ["answer 2", "answer 1"]
    assert len(provider.requests) == len(runs(database)) == 3


def test_all(provider: LoopbackProvider, tmp_path: Path) -> None:
    """Records always; the last of a request is there beside the first."""
    url = new_url(tmp_path)
    for expected in ("answer 1", "answer 2"):
        with Replay(url) as replay:
            assert replay.model(like=chat(provider), mode="all").invoke("Hi").text == expected
    assert [run["status"] for run in runs(url)] == ["complete", "complete"]


def test_an_error_is_recorded_too(tmp_path: Path) -> None:
    """And replayed, in its place among the answers."""
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


def test_what_the_applications_own_recorder_hears(provider: LoopbackProvider, tmp_path: Path) -> None:
    """It records replayed calls as any others; the recording itself is left alone."""
    url = f"sqlite:///{tmp_path / 'new.db'}"
    own = new_url(tmp_path, "own.db")
    for _ in range(2):
        with history_at(own) as history, Replay(url) as replay:
            replay.model(like=chat(provider, callbacks=[history]), mode="once").invoke("Hi")
    first, second = runs(own)
    assert recorded(own, first["id"]).body == recorded(own, second["id"]).body == recorded(url).body
    assert len(provider.requests) == 1


def test_copies_share_what_was_given(provider: LoopbackProvider, tmp_path: Path) -> None:
    """`bind` makes no new session."""
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


# -- what cannot be ------------------------------------------------------------------------------------------------


def test_what_cannot_be(provider: LoopbackProvider, tmp_path: Path) -> None:
    """Says what, and what to do."""
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


def test_a_file_that_is_not_there(provider: LoopbackProvider, tmp_path: Path) -> None:
    """Is no recording, unless it is to become one; and a folder that is not there never."""
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


def test_a_program_that_closes_nothing(provider: LoopbackProvider, tmp_path: Path) -> None:
    """Ends, with everything stored: the second time it is replayed."""
    url = f"sqlite:///{tmp_path / 'new.db'}"
    for _ in range(2):
        done = run_python(_LEFT_OPEN, url, provider.base_url)
        assert (done.stdout, done.stderr, done.returncode) == ("answer 1\n", "", 0)
    assert len(provider.requests) == 1
