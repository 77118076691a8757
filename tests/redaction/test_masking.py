"""The credentials of a run are masked wherever they are repeated, and its metadata name the places."""

from __future__ import annotations

import json
import logging
import uuid
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.messages import AIMessage, ChatGeneration, HumanMessage, LLMResult
from recorder.redaction.masking import NOTE, Mask
from recorder.replay import Replay
from tests.oracle import begin, result, sql, stored

KEY = "sk-proj/Canary+17"


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        f"Incorrect API key provided: {KEY}.",
        json.dumps({"key": KEY}),
        json.dumps({"key": KEY}).replace("/", "\\/"),
        "https://host/?x=sk-proj%2FCanary%2B17",
        "sk-proj/Canary%2B17",
        f"{KEY}{KEY}",
    ],
)
def test_a_key_is_masked_in_every_spelling(text: str) -> None:
    """It may be plain, in JSON or in a URL."""
    mask = Mask([KEY])
    assert "Canary" not in mask.text(text, "error_message")
    assert mask.is_in(text.encode())
    assert b"Canary" not in b"".join(mask.frames([text.encode()]))
    assert mask.places == ("error_message", "frames")


@pytest.mark.parametrize("key", ["any", "ollama", "loopback", "not-needed", "", None, 17])
def test_a_short_or_common_word_is_not_masked(key: Any) -> None:
    """Local servers accept any word as a key, and other texts may have the same word."""
    mask = Mask([key])
    assert (
        mask.text(f"the {key} model of ollama, not-needed", "x") == f"the {key} model of ollama, not-needed"
    )
    assert mask.places == ()


def test_of_two_keys_the_longer_one_is_masked_whole() -> None:
    """One of the keys is the beginning of the other."""
    assert Mask(["secret-key-1", "secret-key-1-and-more"]).text("secret-key-1-and-more", "x") == "***"


def test_the_repr_of_a_mask_has_no_key() -> None:
    """A traceback may show it."""
    assert KEY not in repr(Mask([KEY]))


def test_an_object_that_is_no_request_teaches_the_mask_nothing() -> None:
    """Errors of other libraries may have requests of other types."""
    mask = Mask()
    mask.learn_request(SimpleNamespace(headers=None, url=None))
    mask.learn_request(None)
    assert mask.text("as it was", "x") == "as it was"


@pytest.mark.parametrize("variable", ["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "AZURE_OPENAI_AD_TOKEN"])
def test_keys_of_the_environment_are_masked(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A callback on another library's model has no other way to know its key."""
    monkeypatch.setattr("recorder.redaction.masking._environment", (0.0, ()))
    monkeypatch.setenv(variable, KEY)
    assert Mask().text(KEY, "x") == "***"
    monkeypatch.setattr("recorder.redaction.masking._environment", (0.0, ()))


def row(url: str, columns: str) -> tuple[Any, ...]:
    """These columns of the only run."""
    [found] = sql(url, f"SELECT {columns} FROM runs")
    return tuple(found)


def as_json(value: Any) -> Any:
    """The value of a JSON column, decoded."""
    return json.loads(value) if isinstance(value, str) else value


def test_the_callback_drops_credentials_by_name_for_any_model(database: str) -> None:
    """LangChain passes invocation parameters and metadata; the run's metadata name what was dropped."""
    with ChatHistoryCallback(database) as history:
        run_id = begin(
            history,
            metadata={"authorization_token": "t-1", "thread_id": "c-1", "ls_max_tokens": 5},
            invocation_params={"model": "m", "extra_body": {"api_key": "t-2"}, "max_tokens": 5},
            tags=["a", "https://me:t-3@host"],
        )
        history.on_llm_end(result("Hello"), run_id=run_id)
    metadata, request, tags, conversation = row(database, "metadata, request, tags, conversation_id")
    assert as_json(request) == {"model": "m", "extra_body": {}, "max_tokens": 5}
    assert as_json(tags) == ["a", "https://me:***@host"]
    assert conversation == "c-1"
    assert as_json(metadata) == {
        "thread_id": "c-1",
        "ls_max_tokens": 5,
        NOTE: ["request.extra_body.api_key", "tags.1", "metadata.authorization_token"],
    }


def test_a_run_without_credentials_has_no_note(database: str) -> None:
    """Its metadata are those of the application."""
    with ChatHistoryCallback(database) as history:
        begin(history, metadata={"a": 1})
    assert as_json(row(database, "metadata")[0]) == {"a": 1}


def test_the_key_of_a_request_is_masked_in_its_error(database: str) -> None:
    """The error has the request, from which the key is learned."""
    request = httpx2.Request("POST", f"https://host/?key={KEY}", headers={"Authorization": f"Bearer {KEY}"})
    error = httpx2.ConnectError(f"no such key: {KEY}", request=request)
    with ChatHistoryCallback(database) as history:
        history.on_llm_error(error, run_id=begin(history, metadata={"a": 1}))
        history.flush().wait(10)
    message, metadata = row(database, "error_message, metadata")
    assert message == "no such key: ***"
    assert as_json(metadata) == {"a": 1, NOTE: ["error_message"]}


@pytest.mark.parametrize("flushed", [False, True], ids=["at once", "later"])
def test_frames_are_masked_before_they_are_stored(database: str, flushed: bool) -> None:
    """The run's row may be stored long before; its metadata are changed, and the hash is that of the stored frames."""
    mask = Mask([KEY])
    frames = [b"data: 1\n\n", f"data: {KEY}\n\n".encode(), b"data: 2\n\n"]
    with ChatHistoryCallback(database, frames_interval=0) as history:
        run_id = begin(history, metadata={"a": 1}, mask=mask)
        for frame in frames:
            if flushed:
                history.flush().wait(10)
            history.on_stream_frame(frame, 1, (), run_id=run_id)
        history.on_llm_end(result("Hello"), run_id=run_id)
    with Replay(database) as replay:
        assert list(replay.frames(speed=None)) == [frames[0], b"data: ***\n\n", frames[2]]
    metadata, status = row(database, "metadata, status")
    assert as_json(metadata) == {"a": 1, NOTE: ["frames"]}
    assert status == "complete"


def test_messages_and_tokens_are_not_masked(database: str) -> None:
    """A user or a model may write about keys."""
    with ChatHistoryCallback(database) as history:
        run_id = begin(history, HumanMessage(f"My key is {KEY}"), mask=Mask([KEY]))
        history.on_llm_new_token(f"Keep {KEY} for yourself", run_id=run_id)
        history.on_llm_end(result(f"Keep {KEY} for yourself"), run_id=run_id)
    assert stored(database, run_id).texts == {0: f"Keep {KEY} for yourself"}
    found = sql(database, "SELECT content FROM messages ORDER BY position")
    assert [each[0] for each in found] == [f"My key is {KEY}", f"Keep {KEY} for yourself"]


def test_values_of_the_end_of_a_run_are_masked(database: str) -> None:
    """Finish reason, usage and response id may repeat the key."""
    message = AIMessage("Hello", response_metadata={"finish_reason": f"bad {KEY}", "id": KEY})
    with ChatHistoryCallback(database) as history:
        run_id = begin(history, mask=Mask([KEY]))
        history.on_llm_end(
            LLMResult([[ChatGeneration(message)]], {"token_usage": {"key": KEY}}), run_id=run_id
        )
    found = row(database, "finish_reason, response_id, usage, metadata")
    assert KEY not in str(found)
    assert {"finish_reason", "response_id", "usage"} <= set(as_json(found[3])[NOTE])


def test_other_callback_handlers_do_not_get_the_mask(caplog: pytest.LogCaptureFixture) -> None:
    """Another handler may print all its arguments."""
    from recorder.callbacks import BaseCallbackHandler
    from recorder.models import ChatOpenAI
    from recorder.testing import LoopbackProvider

    calls: list[Any] = []

    class Curious(BaseCallbackHandler):
        def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            calls.append((args, kwargs))

    with LoopbackProvider("Hello") as provider, caplog.at_level(logging.DEBUG, "recorder"):
        ChatOpenAI("m", base_url=provider.base_url, api_key=KEY, callbacks=[Curious()]).invoke("Hi")
    [(_, kwargs)] = calls
    assert "mask" not in kwargs
    assert KEY not in str(calls)


def test_masks_do_not_share_places() -> None:
    """What one mask dropped is not among the places of another."""
    first, second = Mask(), Mask()
    first.json({"api_key": f"{uuid.uuid4()}"}, "request")
    assert (first.places, second.places) == (("request.api_key",), ())


def test_metadata_that_were_added_stay_when_more_is_masked() -> None:
    """The metadata are stored again, with what was added to them after the start."""
    mask = Mask(["sk-a-long-secret-key"])
    mask.metadata({"step": 1})
    mask.extend_metadata({"traceparent": "00-1"})
    assert mask.new_metadata() is None
    mask.text("no sk-a-long-secret-key here", "error_message")
    again = mask.new_metadata()
    assert again is not None
    assert json.loads(again) == {"step": 1, "traceparent": "00-1", "recorder_masked": ["error_message"]}
