"""Secrets are put into every text that a way of recording sees, and none is stored."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import anthropic
import httpx2
import openai
import pytest

from recorder import ChatHistoryCallback, attach
from recorder.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from recorder.models import ChatAnthropic, ChatOpenAI, OpenAI, SimpleChatModel
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
from tests.instrumentation.gemini_and_ollama import gemini_frames, ollama_lines
from tests.oracle import sql
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
