"""`ChatHistoryCallback` for LangChain records every way of calling a model, however the call ends."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import openai
import pytest

from recorder import ChatHistoryCallback, attach
from recorder.testing import Answer, LoopbackProvider
from tests.calls import Got, called, name_of, text_of
from tests.integrations.langchain.ways import (
    LEFT,
    MODELS,
    PIECES,
    STREAMED,
    TEXT,
    WAYS,
    Way,
    ainvoke,
    async_model_of,
    error_of,
    frames_of,
    model_of,
    second_time_lucky,
)
from tests.oracle import new_url, sql

#: LangChain warns that the third version of its events may change, and of what may have caused a refusal.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*:langchain_core._api.beta_decorator.LangChainBetaWarning"),
    pytest.mark.filterwarnings("ignore:Received only system message:UserWarning"),
]
langchain: Any = pytest.importorskip("recorder.integrations.langchain")


def cells(ways: list[Way]) -> pytest.MarkDecorator:
    """Run a test for each model and each of these ways."""
    found = [pytest.param(model, way, id=f"{model} {way.__name__}") for model in MODELS for way in ways]
    return pytest.mark.parametrize(("model", "way"), found)


class Recorded(NamedTuple):
    """What the database holds of one run."""

    status: str
    text: str
    error_type: str | None
    has_frames: bool


class Scene:
    """A recorder with a database of its own."""

    def __init__(self, folder: Path) -> None:
        self.url = new_url(folder)
        self.history = langchain.ChatHistoryCallback(self.url)

    def runs(self, where: str = "parent_run_id IS NULL") -> list[Recorded]:
        """Return the stored runs, in the order in which they began."""
        self.history.flush().wait()
        query = f"SELECT id, status, error_type, wire FROM runs WHERE {where} ORDER BY started_at"
        return [
            Recorded(status, text_of(self.url, id), error, wire is not None)
            for id, status, error, wire in sql(self.url, query)
        ]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Yield a recorder that is closed afterwards."""
    scene = Scene(tmp_path)
    with scene.history:
        yield scene


def call(model: str, way: Way, url: str, history: Any, *, pieces: int | None = None) -> Got:
    """Call a model that has this handler, and leave it after so many pieces."""
    open_model = async_model_of if inspect.isasyncgenfunction(way) else model_of
    return called(way, partial(open_model, model, url, callbacks=[history]), pieces)


# -- every way, every end ------------------------------------------------------------------------------------------


@pytest.mark.matrix
@cells(WAYS)
def test_an_answer_is_recorded_once(model: str, way: Way, scene: Scene) -> None:
    """The run is complete and has the text that the application got, from the provider's bytes."""
    with LoopbackProvider(TEXT) as provider:
        got = call(model, way, provider.url, scene.history)
    assert got == Got(TEXT, None)
    assert scene.runs("wire IS NOT NULL") == [Recorded("complete", TEXT, None, True)]
    assert sql(scene.url, "SELECT count(*) FROM runs WHERE operation = 'chat'") == [(1,)]


@pytest.mark.matrix
@cells(WAYS)
def test_an_error_status_is_recorded_as_the_application_gets_it(model: str, way: Way, scene: Scene) -> None:
    """The run has the class of the exception."""
    with LoopbackProvider(error_of(model, 400)) as provider:
        got = call(model, way, provider.url, scene.history)
    assert got.error is not None
    [run] = scene.runs("operation = 'chat'")
    assert (run.status, run.text, run.error_type) == ("error", "", name_of(got.error))


@pytest.mark.matrix
@cells(WAYS)
def test_a_failed_attempt_is_a_child_of_the_run(model: str, way: Way, scene: Scene) -> None:
    """The run has the answer of the last attempt."""
    with LoopbackProvider(second_time_lucky(model)) as provider:
        got = call(model, way, provider.url, scene.history)
    assert got == Got(TEXT, None)
    assert scene.runs("operation = 'chat' AND status = 'complete'") == [
        Recorded("complete", TEXT, None, True)
    ]
    query = (
        "SELECT child.status FROM runs AS child JOIN runs AS run ON run.id = child.parent_run_id "
        "WHERE run.operation = 'chat' AND run.conversation_id = child.conversation_id"
    )
    assert sql(scene.url, query) == [("error",)]


@pytest.mark.matrix
@cells(WAYS)
def test_a_provider_that_cannot_be_reached_is_an_error(model: str, way: Way, scene: Scene) -> None:
    """The run has the class of the exception, and its first attempt is its child."""
    got = call(model, way, "http://127.0.0.1:9", scene.history)
    run, child = scene.runs("operation = 'chat'")
    assert (run.status, run.error_type) == ("error", name_of(got.error))
    assert child.status == "error"
    assert str(child.error_type).endswith(".APIConnectionError")


@pytest.mark.matrix
@cells(STREAMED)
def test_a_connection_that_is_cut_is_an_error_with_the_text_so_far(
    model: str, way: Way, scene: Scene
) -> None:
    """The class is the one of the exception that the application got."""
    with LoopbackProvider(Answer(frames=frames_of(model), cut_after=5)) as provider:
        got = call(model, way, provider.url, scene.history)
    [run] = scene.runs("operation = 'chat'")
    assert (run.status, run.error_type) == ("error", name_of(got.error))
    assert run.text.startswith(got.text)


@pytest.mark.matrix
@cells(LEFT)
def test_a_stream_that_is_left_is_cancelled(model: str, way: Way, scene: Scene) -> None:
    """The text so far is stored."""
    answer = Answer(frames=frames_of(model), interval=0.01)
    with LoopbackProvider(answer) as provider:
        got = call(model, way, provider.url, scene.history, pieces=1)
    [run] = scene.runs("operation = 'chat'")
    assert (run.status, run.error_type) == ("cancelled", None)
    assert run.text.startswith(got.text)


@pytest.mark.matrix
@cells([way for way in STREAMED if "v3" not in way.__name__])
def test_a_stream_without_its_end_is_interrupted(model: str, way: Way, scene: Scene) -> None:
    """LangChain may tell nothing; the run says it."""
    frames = frames_of(model)[:4]
    with LoopbackProvider(Answer(frames=frames)) as provider:
        got = call(model, way, provider.url, scene.history)
    [run] = scene.runs("operation = 'chat'")
    assert run.text.startswith(got.text)
    assert run.status == ("interrupted" if got.error is None else "error")


@pytest.mark.parametrize("model", MODELS)
def test_a_cancelled_ainvoke_is_cancelled(model: str, scene: Scene) -> None:
    """LangChain reports no end of it."""

    async def main(url: str) -> None:
        async with async_model_of(model, url, callbacks=[scene.history]) as made:
            task = asyncio.ensure_future(anext(ainvoke(made)))
            await asyncio.to_thread(asked.wait, 30)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    asked = threading.Event()

    def answer(request: Any, path: str) -> Answer:
        asked.set()
        return Answer(frames=frames_of(model), delay=60)

    with LoopbackProvider(answer) as provider:
        asyncio.run(main(provider.url))
    assert scene.runs() == [Recorded("cancelled", "", None, True)]


def test_pieces_arrive_as_they_were_sent(scene: Scene) -> None:
    """Each token of the provider is a token of the run."""
    with LoopbackProvider(Answer(frames=frames_of("ChatOpenAI"))) as provider:
        call("ChatOpenAI", STREAMED[0], provider.url, scene.history)
    scene.history.flush().wait()
    assert sql(scene.url, "SELECT text FROM tokens ORDER BY seq") == [(piece,) for piece in PIECES]


def test_a_model_that_is_attached_as_well_is_recorded_once(scene: Scene) -> None:
    """The same handler is given to the model and to `attach`."""
    with (
        LoopbackProvider(TEXT) as provider,
        model_of("ChatOpenAI", provider.url, callbacks=[scene.history]) as model,
        attach(model.root_client, callbacks=[scene.history]),
        attach(callbacks=[scene.history]),
    ):
        model.invoke("Hi")
    assert scene.runs() == [Recorded("complete", TEXT, None, True)]


def test_another_recorder_of_the_same_database_leaves_the_call_out(scene: Scene) -> None:
    """So a program with this handler is recorded once under `recorder run`."""
    with (
        ChatHistoryCallback(scene.url) as other,
        LoopbackProvider(TEXT) as provider,
        attach(callbacks=[other]),
        model_of("ChatOpenAI", provider.url, callbacks=[scene.history]) as model,
    ):
        model.invoke("Hi")
    assert scene.runs() == [Recorded("complete", TEXT, None, True)]


def test_two_handlers_record_once_each(scene: Scene, tmp_path: Path) -> None:
    """Each has a database of its own."""
    (tmp_path / "other").mkdir()
    other = Scene(tmp_path / "other")
    with other.history, LoopbackProvider(TEXT) as provider:
        with model_of("ChatOpenAI", provider.url, callbacks=[scene.history, other.history]) as model:
            "".join(chunk.text for chunk in model.stream("Hi"))
        for each in (scene, other):
            [run] = each.runs()
            assert (run.status, run.text) == ("complete", TEXT)


def test_another_client_in_the_same_context_is_not_recorded(scene: Scene) -> None:
    """The handler records its models only, also after one of them has answered."""
    with (
        LoopbackProvider(TEXT) as provider,
        openai.OpenAI(base_url=provider.base_url, api_key="any") as client,
    ):
        with model_of("ChatOpenAI", provider.url, callbacks=[scene.history]) as model:
            model.invoke("Hi")
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}])
    assert len(scene.runs()) == 1


def test_a_conversation_continues_with_the_history_that_is_sent_again(scene: Scene) -> None:
    """What was recorded from the bytes of the response is the message that LangChain sends back."""
    with LoopbackProvider(TEXT) as provider, scene.history.conversation("c"):
        for name in MODELS:
            with model_of(name, provider.url, callbacks=[scene.history]) as model:
                answer = model.invoke([("user", f"Hi {name}")])
                model.invoke([("user", f"Hi {name}"), answer, ("user", f"And {name}?")])
    scene.history.flush().wait()
    texts = [text for name in MODELS for text in (f"Hi {name}", TEXT, f"And {name}?", TEXT)]
    query = "SELECT content FROM messages ORDER BY created_at"
    assert [text for (text,) in sql(scene.url, query)] == texts


def test_a_model_without_http_is_recorded_from_callbacks(scene: Scene) -> None:
    """There are no bytes of a response."""
    fakes = pytest.importorskip("langchain_core.language_models.fake_chat_models")
    model = fakes.FakeListChatModel(responses=[TEXT], callbacks=[scene.history])
    assert "".join(chunk.text for chunk in model.stream("Hi")) == TEXT
    assert model.invoke("Hi").text == TEXT
    assert scene.runs() == [Recorded("complete", TEXT, None, False)] * 2


def test_usage_and_finish_reason_are_those_of_the_provider(scene: Scene) -> None:
    """Also where LangChain's chunks have none."""
    with LoopbackProvider(TEXT) as provider:
        call("ChatAnthropic", ainvoke, provider.url, scene.history)
    scene.history.flush().wait()
    query = "SELECT finish_reason, usage_source, input_tokens > 0, output_tokens > 0 FROM runs"
    assert [tuple(map(str, row)) for row in sql(scene.url, query)] == [("end_turn", "provider", "1", "1")]


def test_a_run_that_nobody_ends_ends_with_its_chain(scene: Scene) -> None:
    """The model is left inside of a chain: LangChain tells of the chain's end only."""
    start: dict[str, Any] = {"run_id": uuid.uuid4(), "parent_run_id": uuid.uuid4()}
    scene.history.on_chain_start({}, "Hi", run_id=start["parent_run_id"])
    scene.history.on_chat_model_start({}, [[]], **start)
    scene.history.on_llm_new_token("Hel", run_id=start["run_id"])
    scene.history.on_chain_error(asyncio.CancelledError(), run_id=start["parent_run_id"])
    assert scene.runs("operation = 'chat'") == [Recorded("cancelled", "Hel", None, False)]


def test_another_request_at_the_same_time_is_not_part_of_the_run(scene: Scene) -> None:
    """A model of the application's own sends two requests at once; the second one is not recorded."""
    answer = Answer(frames=frames_of("ChatOpenAI"), interval=0.01)
    ask: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    with (
        LoopbackProvider(answer) as provider,
        openai.OpenAI(base_url=provider.base_url, api_key="k") as client,
    ):
        run_id = uuid.uuid4()
        scene.history.on_chat_model_start({}, [[]], run_id=run_id)
        with client.chat.completions.create(**ask) as one, client.chat.completions.create(**ask) as two:
            assert [len(list(each)) for each in (one, two)] == [len(list(frames_of("ChatOpenAI"))) - 1] * 2
        scene.history.on_llm_end(None, run_id=run_id)
    [run] = scene.runs()
    assert (run.status, run.text) == ("complete", TEXT)


@pytest.mark.parametrize("name", [*MODELS, "a model without HTTP"])
def test_a_stream_that_is_collected_in_the_queues_lock_is_cancelled(name: str, scene: Scene) -> None:
    """The reader drops it in a reference cycle. Its end takes no lock, so it may come at any moment."""
    fakes = pytest.importorskip("langchain_core.language_models.fake_chat_models")
    answer = Answer(frames=frames_of(name), interval=0.01)
    with LoopbackProvider(answer) as provider, ExitStack() as stack:
        if name in MODELS:
            model = stack.enter_context(model_of(name, provider.url, callbacks=[scene.history]))
        else:
            model = fakes.FakeListChatModel(responses=[TEXT], callbacks=[scene.history])
        stream = model.stream("Hi")
        next(stream)
        ring: list[Any] = [stream]
        ring.append(ring)
        del stream, ring
        scene.history.recorder.queue.call(gc.collect)
        [run] = scene.runs()
    assert (run.status, run.error_type) == ("cancelled", None)
