"""Secrets are put into every text that a way of recording sees, and none is stored."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import anthropic
import httpx2
import openai
import pytest

from recorder import ChatHistoryCallback, attach
from recorder.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from recorder.models import ChatAnthropic, ChatOpenAI, OpenAI, SimpleChatModel
from recorder.replay import Replay
from recorder.replay.http.not_recorded import NotRecorded
from recorder.testing import (
    Answer,
    LoopbackProvider,
    anthropic_messages_body,
    anthropic_messages_frames,
    openai_chat_body,
    openai_chat_frames,
    openai_completion_frames,
    openai_responses_body,
    openai_responses_frames,
)
from recorder.testing.song import song_pieces
from tests.instrumentation.gemini_and_ollama import gemini_frames, ollama_lines
from tests.oracle import new_url, sql
from tests.redaction.leaks import escaped, leaks, pieces, secret

REDACT = ["email", "keys", "card", "phone", "iban", "ip"]
ARGUMENTS = '{"to": "' + escaped(secret("arguments")) + '", "card": 4111111111111111, "n": [1, true]}'
ANSWER = f"Write to {secret('answer')}, please."
THOUGHT = f"He is {secret('thought')}, I think."


def answer(body: dict[str, Any], path: str) -> Answer:
    """Return an answer with secrets in the format of the path."""
    if path.endswith("/messages"):
        call = {"id": "toolu_1", "name": "send", "input": json.loads(ARGUMENTS)}
        given: dict[str, Any] = {"model": "m", "thinking": pieces(THOUGHT), "tool_calls": [call]}
        if not body.get("stream"):
            return Answer(body=anthropic_messages_body(pieces(ANSWER), **given))
        return Answer(frames=anthropic_messages_frames(pieces(ANSWER), **given))
    if path.endswith("/responses"):
        make = openai_responses_frames if body.get("stream") else openai_responses_body
        made: Any = make(pieces(ANSWER), model="m")
        return Answer(frames=made) if body.get("stream") else Answer(body=made)
    if ":streamGenerateContent" in path:
        return Answer(
            frames=gemini_frames(*pieces(ANSWER), call={"name": "send", "args": json.loads(ARGUMENTS)})
        )
    if path.startswith("/api/"):
        return Answer(
            frames=ollama_lines(*pieces(ANSWER), call={"name": "send", "arguments": json.loads(ARGUMENTS)})
        )
    if path.endswith("/chat/completions"):
        calls: Any = [{"id": "call_1", "name": "send", "arguments": pieces(ARGUMENTS)}]
        make_chat: Any = openai_chat_frames if body.get("stream") else openai_chat_body
        if not body.get("stream"):
            calls = [{"id": "call_1", "name": "send", "arguments": ARGUMENTS}]
        made = make_chat(pieces(ANSWER), reasoning=pieces(THOUGHT), tool_calls=calls)
        return Answer(frames=made) if body.get("stream") else Answer(body=made)
    return Answer(frames=openai_completion_frames(pieces(ANSWER)))


@pytest.fixture(scope="module")
def provider() -> Iterator[LoopbackProvider]:
    """Yield a provider whose answers have secrets."""
    with LoopbackProvider(lambda body, path: answer(body, path.partition("?")[0])) as provider:
        yield provider


@pytest.fixture
def history(database: str) -> Iterator[ChatHistoryCallback]:
    """Yield a recorder that redacts."""
    with ChatHistoryCallback(database, redact=REDACT) as history:
        yield history


QUESTION: list[Any] = [
    SystemMessage(f"You are the agent of {secret('system')}."),
    HumanMessage(
        [
            {"type": "text", "text": f"I am {secret('question')}"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
        ]
    ),
    AIMessage("", tool_calls=[{"name": "find", "args": {"mail": secret("history")}, "id": "call_0"}]),
    ToolMessage(json.dumps({"found": secret("result")}), tool_call_id="call_0"),
]
CONFIG: dict[str, Any] = {"metadata": {"about": secret("metadata")}, "tags": [secret("tag")]}


def each_way(model: Any, question: Any) -> None:
    """Call a model in its four ways."""
    list(model.stream(question, CONFIG))
    model.invoke(question, CONFIG)

    async def story() -> None:
        async for _ in model.astream(question, CONFIG):
            pass
        await model.ainvoke(question, CONFIG)

    asyncio.run(story())


def own_chat(url: str, history: Any) -> None:
    """recorder's chat model."""
    model = ChatOpenAI(
        "m", base_url=f"{url}/v1", api_key="k", callbacks=[history], user=secret("user-parameter")
    )
    each_way(model, QUESTION)


def own_claude(url: str, history: Any) -> None:
    """recorder's model of Anthropic."""
    each_way(ChatAnthropic("m", base_url=url, api_key="k", callbacks=[history]), QUESTION)


def own_completion(url: str, history: Any) -> None:
    """recorder's completion model."""
    model = OpenAI("m", base_url=f"{url}/v1", api_key="k", callbacks=[history])
    list(model.stream(f"I am {secret('prompt')}", CONFIG))


def own_responses(url: str, history: Any) -> None:
    """recorder's chat model over the API of responses."""
    model = ChatOpenAI("m", base_url=f"{url}/v1", api_key="k", callbacks=[history], use_responses_api=True)
    each_way(model, QUESTION[:2])


def attached_openai(url: str, history: Any) -> None:
    """A client of OpenAI's SDK."""
    with openai.OpenAI(api_key="k", base_url=f"{url}/v1") as client:
        attach(client, callbacks=[history])
        messages: Any = [{"role": "user", "content": f"I am {secret('sdk')}"}]
        list(client.chat.completions.create(model="m", messages=messages, stream=True))
        first = client.responses.create(model="m", input=f"I am {secret('responses')}")
        client.responses.create(model="m", input=f"Again {secret('again')}", previous_response_id=first.id)


def attached_claude(url: str, history: Any) -> None:
    """An asynchronous client of Anthropic's SDK."""

    async def story() -> None:
        async with anthropic.AsyncAnthropic(api_key="k", base_url=url) as client:
            attach(client, callbacks=[history])
            messages: Any = [{"role": "user", "content": f"I am {secret('sdk')}"}]
            async with client.messages.stream(model="m", max_tokens=9, messages=messages) as stream:
                async for _ in stream:
                    pass

    asyncio.run(story())


def attached_aiohttp(url: str, history: Any) -> None:
    """A session of aiohttp."""

    async def story() -> None:
        async with aiohttp.ClientSession() as client:
            attach(client, callbacks=[history])
            body = {
                "model": "m",
                "stream": True,
                "messages": [{"role": "user", "content": secret("aiohttp")}],
            }
            async with client.post(f"{url}/v1/chat/completions", json=body) as response:
                await response.read()

    asyncio.run(story())


def attached_gemini_and_ollama(url: str, history: Any) -> None:
    """A client of httpx that speaks the formats of Gemini and Ollama."""
    with httpx2.Client() as client:
        attach(client, callbacks=[history])
        text = f"I am {secret('httpx')}"
        contents = [{"role": "user", "parts": [{"text": text}]}]
        instruction = {"parts": [{"text": text}]}
        body: Any = {"contents": contents, "systemInstruction": instruction}
        client.post(f"{url}/v1beta/models/m:streamGenerateContent?alt=sse", json=body)
        client.post(f"{url}/api/chat", json={"model": "m", "messages": [{"role": "user", "content": text}]})


def from_outside(url: str, history: Any) -> None:
    """What the application adds without a run."""
    with history.conversation(
        "c1", title=f"Of {secret('title')}", tags=[secret("tag")], metadata={"a": secret("m")}
    ):
        history.add_messages(
            [HumanMessage(secret("added")), {"role": "assistant", "content": secret("added-dict")}]
        )
        model = Talking(callbacks=[history])
        reply = model.invoke("Hi")
        history.add_feedback(reply.id, comment=f"Thanks to {secret('comment')}")
        history.add_annotation(
            reply.id, "judge", label=secret("label"), data={secret("key"): [secret("data")]}
        )


class Talking(SimpleChatModel):
    """A model without HTTP; it fails after its first words if it is asked to."""

    fails: bool = False

    def _stream(self, messages: list[Any], **options: Any) -> Iterator[str]:
        yield from pieces(ANSWER)
        if options.get("fails"):
            raise RuntimeError(f"Cannot reach {secret('error')}")


def failing(url: str, history: Any) -> None:
    """A model that raises."""
    with pytest.raises(RuntimeError):
        list(Talking(callbacks=[history]).stream("Hi", fails=True))


WAYS: list[Callable[[str, Any], None]] = [
    own_chat, own_claude, own_completion, own_responses, attached_openai, attached_claude, attached_aiohttp,
    attached_gemini_and_ollama, from_outside, failing,
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_no_secret_is_stored(
    way: Callable[[str, Any], None], provider: LoopbackProvider, history: ChatHistoryCallback, database: str
) -> None:
    """Whatever the way, no column of any table and no byte of the file has a secret, and the rest is there."""
    way(provider.url, history)
    stats = history.close().wait()
    assert leaks(database) == []
    assert (stats.withheld, stats.dropped) == (0, 0)
    answers = sql(database, "SELECT content FROM messages WHERE role = 'assistant' AND content <> ''")
    assert {content for (content,) in answers} <= {"Write to [email], please.", "[email]"}
    assert answers
    assert sql(database, "SELECT count(*) FROM runs WHERE redaction IS NULL") == [(0,)]
    assert sql(database, "SELECT count(*) FROM frames") == [(0,)]


@pytest.mark.parametrize("end", ["left", "closed", "collected"])
def test_the_tokens_that_wait_are_stored_at_the_end(end: str, tmp_path: Path) -> None:
    """However a run ends before its answer does: what was held back is stored, and nothing is dropped."""
    url = new_url(tmp_path)
    history = ChatHistoryCallback(url, redact=REDACT)
    stream: Any = Talking(callbacks=[history]).stream("Hi")
    seen = "".join(next(stream).content for _ in range(3))
    assert seen == "Write to "
    seen += next(stream).content + next(stream).content
    if end == "left":
        stream.close()
    elif end == "collected":
        del stream
        gc.collect()
    stats = history.close().wait()
    [(deltas,)] = sql(url, "SELECT deltas FROM segments")
    assert "".join(text for _, text in json.loads(deltas)) == seen == "Write to answer"
    assert (stats.dropped, stats.queued, stats.committed) == (0, 0, 5)


def test_times_and_tokens_stay_without_a_match(tmp_path: Path) -> None:
    """With and without `redact` the same tokens are stored, each at a time that does not go back."""
    stored = []
    for redact in ([], REDACT):
        url = new_url(tmp_path, f"{len(redact)}.db")
        with ChatHistoryCallback(url, redact=redact) as history:
            Singing(callbacks=[history]).invoke("Hi")
        rows = sql(url, "SELECT deltas FROM segments ORDER BY seq")
        tokens = [token for (deltas,) in rows for token in json.loads(deltas)]
        assert [at for at, _ in tokens] == sorted(at for at, _ in tokens)
        stored.append([text for _, text in tokens])
    assert stored[0] == stored[1] == song_pieces()


class Singing(SimpleChatModel):
    """A model that sings."""

    def _stream(self, messages: list[Any], **options: Any) -> Iterator[str]:
        yield from song_pieces()


def test_a_recording_is_replayed_by_its_redacted_requests(provider: LoopbackProvider, tmp_path: Path) -> None:
    """A replay with the same list finds the run; without it the error says what to pass."""
    url = new_url(tmp_path)
    model = ChatOpenAI("m", base_url=f"{provider.url}/v1", api_key="k")
    with ChatHistoryCallback(url, redact=REDACT) as history:
        model.invoke(f"I am {secret('asked')}", {"callbacks": [history]})
    with Replay(url, redact=REDACT) as replay:
        assert (
            replay.model(like=model).invoke(f"I am {secret('asked')}").content == "Write to [email], please."
        )
    with Replay(url) as replay, pytest.raises(NotRecorded, match=r"pass the recorder's redact= to Replay"):
        replay.model(like=model).invoke(f"I am {secret('asked')}")


def test_a_replay_that_records_redacts(provider: LoopbackProvider, tmp_path: Path) -> None:
    """What it records has no secret, and answers the same request the next time."""
    url = new_url(tmp_path)
    model = ChatOpenAI("m", base_url=f"{provider.url}/v1", api_key="k")
    for _ in range(2):
        with Replay(url, redact=REDACT) as replay:
            replay.model(like=model, mode="new_episodes").invoke(f"I am {secret('new')}")
    assert (leaks(url), sql(url, "SELECT count(*) FROM runs")) == ([], [(1,)])


def test_a_response_is_continued_below_it(
    provider: LoopbackProvider, history: ChatHistoryCallback, database: str
) -> None:
    """Ids of responses are not redacted, so a request that names one goes below its reply."""
    attached_openai(provider.url, history)
    history.close().wait()
    query = (
        "SELECT m.position FROM runs AS r JOIN messages AS m ON m.id = r.prompt_message_id "
        "WHERE r.wire = ? ORDER BY r.started_at"
    )
    assert sql(database, query, "openai.responses") == [(0,), (2,)]
