"""Random streams: the sum of the chunks equals the final message, the stored one and the replayed one.

A test tries a few dozen streams of its format, other ones with each `--seed`; with `--all` a thousand, or as many as
`RECORDER_TEST_EXAMPLES` says. A stream that fails is printed. Every second stream is read on an event loop.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from recorder.callbacks import BaseCallbackHandler
from recorder.chat_history_callback import ChatHistoryCallback
from recorder.core.escaping import unescape
from recorder.messages import AIMessage, AIMessageChunk
from recorder.models import ChatAnthropic, ChatOpenAI, OpenAI, SimpleChatModel
from recorder.replay import Replay
from recorder.storage.message_columns import message_of
from recorder.wire.anthropic.stream import AnthropicMessages
from recorder.wire.openai.chat import OpenAIChat
from recorder.wire.openai.responses import OpenAIResponses
from recorder.wire.reply import Translator
from tests import responses, streams
from tests.alike import message_fields, total
from tests.wires import frames_of, translated

#: Number of streams that each test tries, and the number with `--all`.
FEW, MANY = 60, 1_000

#: With `--all` a test takes several minutes.
pytestmark = pytest.mark.timeout(900)
LAST = AIMessageChunk("", chunk_position="last")
TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {}}}}


class Pipe(httpx2.BaseTransport, httpx2.AsyncBaseTransport):
    """An HTTP transport that answers every request with the same pieces of a body."""

    pieces: list[bytes]

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Return one response."""
        headers = {"content-type": "text/event-stream"}
        return httpx2.Response(200, headers=headers, stream=_Pieces(self.pieces))

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """The same on a loop."""
        return self.handle_request(request)


class _Pieces(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


class LastResult(BaseCallbackHandler):
    """A handler that stores the result of the last run."""

    run_inline = True

    def __init__(self) -> None:
        self.result: Any = None

    @property
    def messages(self) -> list[AIMessage]:
        """Return the messages of all choices."""
        return [choice.message for choice in self.result.generations[0]]

    def on_llm_end(self, response: Any, **more: Any) -> None:
        """Store the result."""
        self.result = response

    def on_llm_error(self, error: BaseException, **more: Any) -> None:
        """Store the partial result."""
        self.result = more.get("response")


@dataclass
class Lab:
    """A recorder, a replay of its database, and models that receive any bytes."""

    pipe: Pipe
    ends: LastResult
    history: ChatHistoryCallback
    replay: Replay
    database: sqlite3.Connection
    loop: asyncio.Runner
    #: How many runs there were.
    count: int = 0

    def model(self, make: Callable[..., Any], **options: Any) -> Any:
        """Return a model of this class."""
        return make(
            model="m",
            api_key="k",
            max_retries=0,
            http_client=httpx2.Client(transport=self.pipe),
            http_async_client=httpx2.AsyncClient(transport=self.pipe),
            callbacks=[self.history, self.ends],
            **options,
        )

    def ask(self, model: Any, pieces: list[bytes]) -> tuple[str, list[Any], Exception | None]:
        """Return the run's id, its chunks, and the error that ended them."""
        self.pipe.pieces, self.ends.result = pieces, None
        run_id, found = uuid.uuid4(), list[Any]()
        error = None
        self.count += 1
        try:
            if self.count % 2:
                self.loop.run(_read(model, run_id, found))
            else:
                for chunk in model.stream("Hi", {"run_id": run_id}):
                    found.append(chunk)  # keeps the chunks before an error
        except Exception as raised:
            error = raised
        self.history.flush().wait()
        return str(run_id), found, error

    def rows(self, query: str, run_id: str) -> list[dict[str, Any]]:
        """Return rows of the database."""
        return [dict(row) for row in self.database.execute(query, (run_id,))]


async def _read(model: Any, run_id: uuid.UUID, found: list[Any]) -> None:
    async for chunk in model.astream("Hi", {"run_id": run_id}):
        found.append(chunk)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Yield one database for all streams."""
    path = tmp_path_factory.mktemp("adds_up") / "history.db"
    url = f"sqlite:///{path}"
    with ChatHistoryCallback(url, estimate_usage=False) as history:
        history.flush().wait()
        database = sqlite3.connect(path)
        database.row_factory = sqlite3.Row
        with Replay(url) as replay, asyncio.Runner() as loop:
            yield Lab(Pipe(), LastResult(), history, replay, database, loop)
        database.close()


@pytest.fixture
def examples(pytestconfig: pytest.Config) -> Callable[..., None]:
    """Return a function that runs a check with many examples of strategies."""
    count = int(os.environ.get("RECORDER_TEST_EXAMPLES", MANY if pytestconfig.option.all else FEW))
    how: Any = settings(
        max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink), print_blob=False,
    )  # fmt: skip

    def run(check: Callable[..., None], *strategies: Any) -> None:
        tried: Any = given(*strategies)(check)  # type: ignore[no-untyped-call]
        print("seed", pytestconfig.option.seed)
        seed(pytestconfig.option.seed)(how(tried))()

    return run


def message_of_body(make: Callable[[], Translator], pieces: list[bytes]) -> AIMessage:
    """Return the message of a body that comes in one piece."""
    translator = make()
    for frame in frames_of([b"".join(pieces)]):
        translator.decode(frame)
        if translator.reply.error is not None:
            break
    else:
        translator.reply.settle()
    return translator.reply.message()


def is_ended(make: Callable[[], Translator], body: bytes) -> bool:
    """Return whether the body contains a terminator."""
    translator = make()
    for frame in frames_of([body]):
        translator.decode(frame)
    return translator.reply.terminated


def plain(message: Any, *without: str) -> dict[str, Any]:
    """Return the fields of a message, without some of them."""
    return {key: value for key, value in message_fields(message).items() if key not in without}


def adds_up(lab: Lab, model: Any, pieces: list[bytes], make: Callable[[], Translator], *without: str) -> None:
    """Assert everything that must hold for a run of a chat model, except for the fields in `without`."""
    run_id, chunks, error = lab.ask(model, pieces)
    (run,) = lab.rows("SELECT * FROM runs WHERE id = ?", run_id)
    assert run["status"] != "streaming"
    replayed, replayed_error = _replayed(lab, run_id)
    assert repr(replayed_error) == repr(error)
    sent, frames = b"".join(pieces), b"".join(lab.replay.frames(run_id, speed=None))
    assert sent.startswith(frames)
    # This transport has no socket, so that nothing is read after the terminator.
    assert error is not None or frames == sent or is_ended(make, frames)
    live = total([*chunks, LAST])
    compared_without = (
        (*without, "usage") if error is not None else without
    )  # a run that fails may lack the usage
    assert plain(total([*replayed, LAST]), *compared_without) == plain(live, *compared_without)
    tokens = lab.rows("SELECT kind, idx, text FROM tokens WHERE run_id = ? ORDER BY seq", run_id)
    if make is AnthropicMessages and not _in_order([token["idx"] for token in tokens]):
        return  # the message has its blocks sorted, so that its text is in another order than the tokens
    end = next((each for each in lab.ends.messages if each.id == f"run-{run_id}"), None)
    if end is not None:
        # Usage that came before an error has reached no chunk.
        counts = ("usage",) if error is not None and live.usage_metadata is None else ()
        assert plain(live, *without, *counts) == plain(end, *without, *counts)
        assert plain(message_of_body(make, pieces), *counts) == plain(end, *counts)
        _assert_stored(lab, run_id, end)
    first = [token for token in tokens if token["idx"].partition(".")[0] == "0"]
    assert unescape("".join(token["text"] for token in first if token["kind"] == "text")) == live.text
    if error is None:
        _assert_equal_usage(run, live)


def _in_order(places: list[str]) -> bool:
    """Return whether each block is complete before the next one begins."""
    blocks = [int(place.partition(".")[2] or 0) for place in places if place.partition(".")[0] == "0"]
    return blocks == sorted(blocks)


def _replayed(lab: Lab, run_id: str) -> tuple[list[Any], Exception | None]:
    found: list[Any] = []
    try:
        for chunk in lab.replay.stream(run_id, speed=None):
            found.append(chunk)  # keeps the chunks before an error
    except Exception as error:
        return found, error
    return found, None


def _assert_equal_usage(run: dict[str, Any], live: AIMessage) -> None:
    """Assert that the usage is the same live and in SQL."""
    usage: Any = live.usage_metadata or {}
    names = ("input_tokens", "output_tokens", "total_tokens")
    assert [run[name] for name in names] == [usage.get(name) for name in names]


def _assert_stored(lab: Lab, run_id: str, end: AIMessage) -> None:
    """Assert that the final message is stored if it has any content."""
    rows = lab.rows("SELECT role, content, parts FROM messages WHERE run_id = ? ORDER BY id", run_id)
    replies = [
        message_of(row["role"], row["content"], row["parts"]) for row in rows if row["role"] == "assistant"
    ]
    expected = plain(end, "usage")
    if any(expected.values()):
        assert expected in [plain(reply, "usage") for reply in replies]


def test_random_chat_streams_add_up(lab: Lab, examples: Callable[..., None]) -> None:
    """The requests ask for one answer, for three answers, or have tools."""
    models = [
        lab.model(ChatOpenAI, base_url="http://x/v1", **options)
        for options in ({}, {"n": 3}, {"tools": [TOOL]})
    ]
    examples(
        lambda pieces, model: adds_up(lab, model, pieces, lambda: _translator_of(model)),
        streams.chat_bodies,
        st.sampled_from(models),
    )


def _translator_of(model: ChatOpenAI) -> OpenAIChat:
    translator = OpenAIChat()
    translator.choices.requested_count = model.options.get("n", 1)
    return translator


#: One event has two entries for the same choice; in the second one a text stands before the list.
TWICE = b"""data: {"choices": [{"delta": {"content": "Hi", "extra_content": ["x"]}, "index": 0}]}

data: {"choices": [{"delta": {"extra_content": ""}, "index": 0}, {"delta": {"extra_content": ["x"]}, "index": 0}]}

data: [DONE]

"""


def test_an_unknown_field_that_an_event_has_twice_adds_up(lab: Lab) -> None:
    """The sum of the chunks cannot see what was replaced inside of a chunk."""
    model = lab.model(ChatOpenAI, base_url="http://x/v1")
    adds_up(lab, model, [TWICE], lambda: _translator_of(model))


def test_random_anthropic_streams_add_up(lab: Lab, examples: Callable[..., None]) -> None:
    """The chunks have text or blocks as content."""
    tool = {"name": "find", "input_schema": {"type": "object"}}
    models = [lab.model(ChatAnthropic, base_url="http://x", **options) for options in ({}, {"tools": [tool]})]
    examples(
        # Chunks with text as content have no blocks.
        lambda pieces, model: adds_up(
            lab, model, pieces, AnthropicMessages, *(() if "tools" in model.options else ("blocks",))
        ),
        streams.anthropic_bodies,
        st.sampled_from(models),
    )


def test_random_completion_streams_add_up(lab: Lab, examples: Callable[..., None]) -> None:
    """The joined chunks equal the final text, the stored tokens and the replay."""
    model = lab.model(OpenAI, base_url="http://x/v1")

    def check(pieces: list[bytes]) -> None:
        run_id, chunks, error = lab.ask(model, pieces)
        (run,) = lab.rows("SELECT * FROM runs WHERE id = ?", run_id)
        assert run["status"] != "streaming"
        replayed, replayed_error = _replayed(lab, run_id)
        assert repr(replayed_error) == repr(error)
        result = lab.ends.result
        text = "".join(chunks)
        assert text == result.generations[0][0].text
        assert text == "".join(chunk.text for chunk in replayed)
        tokens = lab.rows("SELECT kind, idx, text FROM tokens WHERE run_id = ? ORDER BY seq", run_id)
        stored = [each["text"] for each in tokens if (each["kind"], each["idx"]) == ("text", "0")]
        assert text == unescape("".join(stored))
        replies = lab.rows("SELECT content FROM messages WHERE run_id = ? AND role = 'assistant'", run_id)
        texts = {choice.text for choice in result.generations[0]}
        # Equal answers are one message.
        assert {unescape(reply["content"]) for reply in replies} - {""} == texts - {""}

    examples(check, streams.completion_bodies)


def test_random_responses_add_up(lab: Lab, examples: Callable[..., None]) -> None:
    """No model of ours has this format, so the hooks are called as for a model."""

    def check(pieces: list[bytes]) -> None:
        reply = translated(frames_of([b"".join(pieces)]), OpenAIResponses)[1]
        run_id = responses.record(lab.history, {"input": "Hi"}, b"".join(pieces))
        end = reply.message()
        replayed, error = _replayed(lab, run_id)
        assert (error is None) == (reply.failure() is None)
        assert plain(total([*replayed, LAST]), "usage") == plain(end, "usage")
        _assert_stored(lab, run_id, end)
        tokens = lab.rows("SELECT text FROM tokens WHERE run_id = ? AND kind = 'text' ORDER BY seq", run_id)
        assert unescape("".join(token["text"] for token in tokens)) == reply.text()

    examples(check, responses.any_streams)


class Own(SimpleChatModel):
    """Streams chunks, texts or whole results, as it is told to."""

    async def _astream(self, messages: Any, **options: Any) -> AsyncIterator[Any]:
        for piece in options["pieces"]:
            yield piece

    def _stream(self, messages: Any, **options: Any) -> Iterator[Any]:
        yield from options["pieces"]


_own_texts = st.one_of(streams.texts, st.builds(AIMessageChunk, streams.texts))
_own_blocks = st.builds(
    lambda text: AIMessageChunk([{"type": "text", "text": text, "index": 0}]), streams.texts
)
_own_others = st.one_of(
    st.builds(
        lambda text: AIMessageChunk("", additional_kwargs={"reasoning_content": text}),
        streams.texts.filter(bool),  # an empty one is no token
    ),
    st.builds(
        lambda index, id, name, text: AIMessageChunk(
            "", tool_call_chunks=[{"index": index, "id": id, "name": name, "args": text}]
        ),
        st.sampled_from((0, 1)), streams.ids, streams.names, streams.texts,
    ),
    st.builds(
        lambda spent, made: AIMessageChunk(
            "", usage_metadata={"input_tokens": spent, "output_tokens": made, "total_tokens": spent + made}
        ),
        st.integers(0, 9), st.integers(0, 9),
    ),
)  # fmt: skip
#: Text in one form, for the sum of a text and of a block with an index has them in another order than they came.
_own_pieces = st.one_of(
    *(
        st.lists(st.one_of(text, text, _own_others), min_size=1, max_size=8)
        for text in (_own_texts, _own_blocks)
    )
)


def test_random_chunks_of_an_own_model_add_up(lab: Lab, examples: Callable[..., None]) -> None:
    """Its chunks are the message of the end, the stored one, and those of a replay."""

    def check(pieces: list[Any]) -> None:
        model = Own(callbacks=[lab.history, lab.ends], pieces=pieces)
        run_id, chunks, error = lab.ask(model, [])
        assert error is None
        (run,) = lab.rows("SELECT * FROM runs WHERE id = ?", run_id)
        heard = total([*chunks, LAST])
        replayed, error = _replayed(lab, run_id)
        assert error is None
        assert plain(total([*replayed, LAST])) == plain(heard)
        (end,) = lab.ends.messages
        assert plain(end) == plain(heard)
        _assert_stored(lab, run_id, end)
        _assert_equal_usage(run, heard)

    examples(check, _own_pieces)
