"""Values of wrong types from a provider are stored as far as possible, and the end of the run always is."""

from __future__ import annotations

import logging
import uuid
from types import SimpleNamespace
from typing import Any

import pytest

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.messages import AIMessage, ChatGeneration, LLMResult, UsageMetadata
from recorder.replay import Replay
from recorder.replay.playback import TokensStep, _tokens_of
from recorder.storage.rows import COMPLETE, ERROR, INTERRUPTED, SegmentRow
from recorder.storage.storable_values import MAX_INT, count_of, id_of, mapping_of, storable, text_of
from recorder.storage.store import SqlStore
from recorder.wire.deltas import Delta
from tests.oracle import assert_whole, begin, finish, run_end, say, sql, stored


class Textless:
    """An object whose `str()` raises."""

    def __str__(self) -> str:
        raise ValueError("no text")


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (3, 3), (0, 0), (MAX_INT, MAX_INT), ("3", 3), (3.0, 3),
        (10**30, None), (-1, None), ("3.5", None), (3.5, None), ("many", None), (True, None), (None, None),
        (float("nan"), None), (float("inf"), None), ([3], None), (Textless(), None),
    ],
)  # fmt: skip
def test_a_count_is_an_integer_that_every_database_can_hold(value: Any, count: int | None) -> None:
    """A number may be written in several ways; anything else becomes None."""
    assert count_of(value) == count


def test_a_text_is_one_that_every_database_can_hold() -> None:
    """Any value becomes a text, also one whose `str()` raises."""
    assert (text_of(None), text_of(3), text_of("a")) == (None, "3", "a")
    assert text_of("a\0\ud800") == "a\ufdd00000\ufdd0d800"
    assert text_of(Textless()) == "Textless without a text (ValueError)"


def test_a_value_that_is_no_mapping_becomes_an_empty_one() -> None:
    """A pydantic model becomes a mapping of its fields."""
    assert [mapping_of(value) for value in ({"a": 1}, None, [1], "a", 3)] == [{"a": 1}, {}, {}, {}, {}]
    assert mapping_of(SimpleNamespace(model_dump=lambda: {"a": 1})) == {"a": 1}


def test_an_end_of_plain_values_is_not_changed(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is logged."""
    end = run_end(input_tokens=3, finish_reason="stop", usage="{}")
    assert storable(end, "r") is end
    assert caplog.records == []


def test_a_changed_value_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The log has the field's name and the beginning of its old value."""
    end: Any = run_end(input_tokens=10**30, output_tokens="7", finish_reason=3)
    with caplog.at_level(logging.WARNING, "recorder"):
        found = storable(end, "r-1")
    assert (found.input_tokens, found.output_tokens, found.finish_reason) == (None, 7, "3")
    [line] = caplog.messages
    assert "Run r-1" in line
    assert "input_tokens=1000" in line
    assert "output_tokens='7'" in line


def reply(**fields: Any) -> AIMessage:
    """A reply with these fields, which are not checked."""
    message = AIMessage("hello")
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def result(message: Any, info: Any = None, output: Any = None) -> Any:
    """A result with one choice."""
    return LLMResult([[ChatGeneration(message, info)]], output)


ODD: dict[str, Any] = {
    "counts beyond every integer": result(
        reply(usage_metadata=UsageMetadata(input_tokens=10**30, output_tokens=2, total_tokens=10**30 + 2))
    ),
    "counts of wrong types": result(
        reply(usage_metadata={"input_tokens": "3", "output_tokens": -1, "total_tokens": float("nan")})
    ),
    "a usage that is a text": result(reply(usage_metadata="3")),
    "a usage that is a number": result(reply(), output={"token_usage": 3}),
    "a usage that is a list": result(reply(), output={"token_usage": [10**30]}),
    "metadata that are a list": result(reply(response_metadata=["stop"])),
    "a generation info that is a list": result(reply(), ["stop"]),
    "an output that is a list": result(reply(), output=["x"]),
    "a reason that has no text": result(reply(), {"finish_reason": Textless()}),
    "a reason with NUL and half of a surrogate pair": result(reply(), {"finish_reason": "a\0\ud800"}),
    "no result": None,
    "a result that is something else": SimpleNamespace(text="hello"),
    "a result without choices": SimpleNamespace(generations=None, llm_output=None),
    "content that is a number": result(reply(content=3)),
    "content of odd blocks": result(reply(content=[3, None, {"type": 5}, Textless()])),
    "tool calls that are numbers": result(reply(tool_calls=[3])),
    "tool calls that are a text": result(reply(tool_calls="f()")),
    "a message of another library": result(SimpleNamespace(content="hello", role="assistant")),
    "a message that is a dict": result({"role": "assistant", "content": "hello"}),
}


@pytest.mark.parametrize("how", [COMPLETE, ERROR])
def test_the_end_of_a_run_is_stored_when_its_result_has_wrong_types(database: str, how: str) -> None:
    """The tokens are stored without a gap, whatever a framework passes to the hooks."""
    runs: dict[uuid.UUID, str] = {}
    with ChatHistoryCallback(database) as history:
        for name, odd in ODD.items():
            run_id = begin(history)
            runs[run_id] = name
            say(history, run_id, "ab")
            if how == COMPLETE:
                history.on_llm_end(odd, run_id=run_id)
            else:
                history.on_llm_error(ValueError("x"), run_id=run_id, response=odd)
    for run_id, name in runs.items():
        found = stored(database, run_id)
        # A run with an unknown finish reason is not complete.
        status = INTERRUPTED if how == COMPLETE and name.startswith("a reason") else how
        assert (name, found.status, found.texts, found.gaps) == (name, status, {0: "a", 1: "b"}, [])
    assert history.stats().quarantined == 0


def test_an_error_whose_str_raises_is_stored_with_its_class(database: str) -> None:
    """The message names the class and the exception that `str()` raised."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    with ChatHistoryCallback(database) as history:
        history.on_llm_error(Mute(), run_id=begin(history))
    [(kind, text)] = sql(database, "SELECT error_type, error_message FROM runs")
    assert kind.endswith("Mute")
    assert text == "Mute without a text (RuntimeError)"


def test_kind_and_index_of_a_delta_may_have_any_characters(database: str) -> None:
    """NUL and half of a surrogate pair are read back equal, and the other tokens of the row are unchanged."""
    deltas = [Delta("a"), Delta("b\0", "ki\0nd", "0.\ud800"), Delta("c", "text", "0.\ufdd0")]
    with ChatHistoryCallback(database) as history:
        run_id = begin(history)
        history.on_stream_frame(b"", 1, deltas, run_id=run_id)
        finish(history, run_id, "ab")
    [row] = sql(database, "SELECT run_id, seq, count, deltas FROM segments")
    found = _tokens_of(SegmentRow(str(row[0]), *row[1:]), 0, 0)
    assert isinstance(found, TokensStep)
    assert [list(item) for item in found.items] == [
        [1, "a"],
        [1, "b\0", "ki\0nd", "0.\ud800"],
        [1, "c", "text", "0.\ufdd0"],
    ]
    assert history.stats().quarantined == 0


@pytest.mark.parametrize("refused", ["messages", "end"])
def test_tokens_are_stored_when_the_database_refuses_a_message_or_an_end(
    database: str, refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refused message or field is left out; tokens and status are stored."""
    append = SqlStore.append

    async def refuse(store: SqlStore, batch: Any) -> None:
        messages = any(rows.messages for rows in batch.runs)
        end = any(rows.seal and rows.seal.end.finish_reason for rows in batch.runs)
        if messages if refused == "messages" else end:
            raise ValueError("it cannot be")
        await append(store, batch)

    monkeypatch.setattr(SqlStore, "append", refuse)
    with ChatHistoryCallback(database) as history:
        run_id = begin(history)
        say(history, run_id, "ab")
        finish(history, run_id, "ab", finish_reason="stop")
    assert_whole(database, run_id, "ab")
    reasons = sql(database, "SELECT finish_reason FROM runs")
    assert reasons == [("stop",)] if refused == "messages" else reasons == [(None,)]


class Untrue:
    """An object whose `bool()` raises, like an array of numpy."""

    def __bool__(self) -> bool:
        raise ValueError("ambiguous")


ODD_VALUES = [
    None, "", 0, 7, 10**30, -1, 1.5, float("nan"), True, b"\xff", "chain-1", "a\0\ud800\U0001f600", "x" * 300, ["a", 1],
    ("b",), {"c": object}, {1, 2}, Textless(), Untrue(), object, uuid.UUID(int=5), f"{{{uuid.UUID(int=5)}}}",
]  # fmt: skip
#: The arguments of a start hook, or the places inside of them, that get an odd value.
ODD_PLACES: dict[str, Any] = {
    "run_id": lambda odd: {"run_id": odd},
    "parent_run_id": lambda odd: {"parent_run_id": odd},
    "tags": lambda odd: {"tags": odd},
    "a tag": lambda odd: {"tags": [odd]},
    "metadata": lambda odd: {"metadata": odd},
    **{
        f"metadata {key}": lambda odd, key=key: {"metadata": {key: odd}}
        for key in ("any", "conversation_id", "user_id", "ls_provider", "ls_model_name")
    },
    "a key of metadata": lambda odd: {"metadata": {odd if odd.__hash__ else "key": 1}},
    "invocation_params": lambda odd: {"invocation_params": odd},
    "a parameter": lambda odd: {"invocation_params": {"model": odd, "other": odd}},
    **{
        name: lambda odd, name=name: {name: odd}
        for name in ("wire", "input_hash", "mask", "started_us", "serialized", "messages", "name")
    },
    "a message": lambda odd: {"messages": [[odd]]},
}


@pytest.mark.matrix
@pytest.mark.parametrize("place", ODD_PLACES)
def test_a_run_is_stored_when_an_argument_of_its_start_has_a_wrong_type(database: str, place: str) -> None:
    """Each run has its row, its token and its end, and a replay can read it."""
    with ChatHistoryCallback(database) as history:
        for number, odd in enumerate(ODD_VALUES * 2):
            given: dict[str, Any] = {
                "run_id": uuid.UUID(int=number + 100),
                "messages": [["Hi"]],
                "serialized": {},
            }
            given |= ODD_PLACES[place](odd)
            start = history.on_llm_start if number < len(ODD_VALUES) else history.on_chat_model_start
            start(given.pop("serialized"), given.pop("messages"), **given)
            history.on_llm_new_token("a", run_id=given["run_id"])
            finish(history, given["run_id"], "a")
        history.flush().wait(20)
        stats = history.stats()
    runs = sql(database, "SELECT id FROM runs WHERE sha256 IS NOT NULL AND token_count = 1")
    assert len(runs) == stats.committed == 2 * len(ODD_VALUES)
    assert (stats.dropped, stats.quarantined, stats.lost_messages) == (0, 0, 0)
    with Replay(database) as replay:
        for (run_id,) in runs:
            [run] = replay.runs(str(run_id))
            assert (run.status, type(run.metadata)) in {(COMPLETE, dict), (COMPLETE, type(None))}


def test_a_run_and_its_parent_agree_when_their_ids_are_no_uuids(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Their stored ids are calculated from the given ones, and the log has one line for each argument."""
    with ChatHistoryCallback(database) as history:
        ids: list[Any] = ["chain-1", "chain-2", "chain-3"]
        for run_id, parent in zip(ids, (None, *ids[:1] * 2), strict=True):
            begin(history, run_id=run_id, parent_run_id=parent)
            history.on_llm_new_token("a", run_id=run_id)
            finish(history, run_id, "a")
    parent_of = {
        str(id): parent and str(parent) for id, parent in sql(database, "SELECT id, parent_run_id FROM runs")
    }
    first, second, third = (str(id_of(f"chain-{number}")) for number in (1, 2, 3))
    assert parent_of == {first: None, second: first, third: first}
    assert len(caplog.messages) == 2
    assert caplog.messages[0].startswith(f"run_id=chain-1 is no UUID; it is stored as {first}")


def test_id_of_returns_a_uuid_for_any_value() -> None:
    """It reads every spelling of a UUID, and returns the same UUID for the same text."""
    plain = uuid.uuid4()
    assert [id_of(value) for value in (plain, str(plain), plain.hex, plain.urn)] == [plain] * 4
    assert id_of("a") == id_of("a") != id_of("b")
    assert id_of(None).version == id_of(7).version == id_of(Textless()).version == 5
