"""The table of docs/redaction.md: a secret is planted in each place, and is replaced or left as the table says."""

from __future__ import annotations

import json
import re
import uuid
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recorder import ChatHistoryCallback
from recorder.errors import ConfigError
from recorder.messages import AIMessage, ChatGeneration, HumanMessage, LLMResult, ToolMessage
from recorder.wire.deltas import CITATION, OTHER, REASONING, REFUSAL, SIGNATURE, TOOL_ARGS, TOOL_CALL, Delta
from tests.oracle import new_url, sql

PAGE = Path(__file__).resolve().parents[2] / "docs" / "redaction.md"
#: What stands in each place.
SECRET = "jane@leak.example"
REDACT = ["email", re.compile("jane|leak-[0-9]{4}")]
#: The same as data of an image.
DATA = b64encode(b"leak-1234 " * 9).decode()
#: Of what a place that is left has, because it is an id, a name or data.
NAME = "leak-1234"


def record(
    history: ChatHistoryCallback, *messages: Any, deltas: tuple[Delta, ...] = (), reply: Any = None,
    error: BaseException | None = None, conversation_id: str = "c1", **start: Any,
) -> str:  # fmt: skip
    """Record a run, and return its id."""
    run_id = uuid.uuid4()
    with history.conversation(conversation_id):
        history.on_chat_model_start({}, [list(messages) or [HumanMessage("Hi")]], run_id=run_id, **start)
    for delta in deltas:
        for place in (
            range(0, len(delta.text), 4) if delta.kind in (REASONING, REFUSAL, TOOL_ARGS) else [None]
        ):
            piece = delta if place is None else delta._replace(text=delta.text[place : place + 4])
            history.on_stream_frame(b"", 0, [piece], run_id=run_id)
    if error is not None:
        history.on_llm_error(error, run_id=run_id)
    else:
        history.on_llm_end(LLMResult([[ChatGeneration(reply or AIMessage("Hello"))]]), run_id=run_id)
    return str(run_id)


def of_run(**fields: Any) -> Callable[[ChatHistoryCallback], Any]:
    """Return what records a run with these fields."""
    return lambda history: record(history, **fields)


def with_messages(*messages: Any) -> Callable[[ChatHistoryCallback], Any]:
    """Return what records a run with these messages."""
    return lambda history: record(history, *messages)


def step(history: ChatHistoryCallback) -> None:
    """Record a chain that got and returned it, as LangChain's handler does."""
    from recorder.storage.rows import COMPLETE, RunEnd

    run_id = uuid.uuid4()
    given = {"invocation_params": {"name": "chain", "inputs": {"mail": SECRET}}}
    history._start("chain", [], run_id, None, None, None, given)
    history._end(run_id, RunEnd(COMPLETE, None, output=json.dumps({"output": SECRET})))


def annotate(history: ChatHistoryCallback) -> None:
    """Annotate a run."""
    run_id = record(history)
    history.add_annotation(run_id, f"judge {SECRET}", label=SECRET, data={SECRET: SECRET})


def ids(history: ChatHistoryCallback) -> None:
    """Record a run whose ids have it."""
    call = {"name": "find", "args": {}, "id": f"call-{NAME}"}
    with history.user(f"user-{NAME}"):
        record(history, reply=AIMessage("", tool_calls=[call]), conversation_id=f"c-{NAME}")


IMAGE = [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DATA}}]
CITED = json.dumps({"url": "https://x.example", "quote": SECRET})
#: The name of a row -> what plants the secret in its place.
PLACES: dict[str, Callable[[ChatHistoryCallback], Any]] = {
    "texts of messages": with_messages(("system", SECRET), HumanMessage([{"type": "text", "text": SECRET}])),
    "reasoning": of_run(deltas=(Delta(f"He is {SECRET}.", REASONING),)),
    "refusals": of_run(
        deltas=(Delta(f"Not {SECRET}.", REFUSAL),), reply=AIMessage("", additional_kwargs={"refusal": SECRET})
    ),
    "arguments of tool calls": of_run(
        deltas=(Delta('{"id":"c","name":"f"}', TOOL_CALL), Delta(json.dumps({"to": SECRET}), TOOL_ARGS)),
        reply=AIMessage("", tool_calls=[{"name": "f", "args": {"to": [SECRET]}, "id": "c"}]),
    ),
    "citations and other JSON of a provider": of_run(deltas=(Delta(CITED, CITATION), Delta(CITED, OTHER))),
    "results of tools": with_messages(ToolMessage(json.dumps([SECRET]), tool_call_id="c")),
    "names of authors": with_messages(HumanMessage("Hi", name=SECRET)),
    "further fields of messages (`additional_kwargs`)": with_messages(
        HumanMessage("Hi", additional_kwargs={"note": {"by": SECRET}})
    ),
    "parameters of requests, with schemas of tools": of_run(
        invocation_params={"user": SECRET, "tools": [{"description": SECRET}]}
    ),
    "tags and metadata of runs": of_run(tags=[SECRET], metadata={"who": SECRET}),
    "error messages": of_run(error=RuntimeError(f"No such user: {SECRET}")),
    "inputs and outputs of chains, tools and retrievers": step,
    "title, tags and metadata of conversations": lambda history: history.update_conversation(
        "c1", title=SECRET, tags=[SECRET], metadata={"who": SECRET}
    ),
    "name, label and data of annotations": annotate,
    "URLs in texts and blocks": with_messages(
        HumanMessage([
            {"type": "text", "text": f"https://x.example/?who={SECRET}"},
            {"type": "image_url", "image_url": {"url": f"https://x.example/{SECRET}.png"}},
        ])
    ),
    "inline images, audio and files (base64)": with_messages(HumanMessage(IMAGE)),
    "signatures and encrypted reasoning": of_run(deltas=(Delta(NAME, SIGNATURE),)),
    "ids of conversations, users, runs, responses and calls": ids,
    "names of models and tools": of_run(
        metadata={"ls_model_name": NAME}, reply=AIMessage("", tool_calls=[{"name": NAME, "args": {}, "id": "c"}])
    ),
}  # fmt: skip
COLUMNS = {
    "messages": "content, parts", "context_messages": "content, parts", "segments": "deltas",
    "runs": "request, tags, metadata, error_message, output", "annotations": "name, label, data",
    "conversations": "title, tags, metadata",
}  # fmt: skip


def rows() -> dict[str, str]:
    """Return the rows of the table in the page."""
    table = PAGE.read_text(encoding="utf-8").partition("<!-- the table")[2].partition("`input_hash` is")[0]
    return dict(re.findall(r"^\| ([^|]+?) \| (replaced|left) \|$", table, re.MULTILINE))


def test_every_row_of_the_table_is_tested() -> None:
    """The page names these places, and no others."""
    assert rows().keys() == PLACES.keys()


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.split(" (")[0].replace(" ", "-"))
def test_a_secret_is_treated_as_the_table_says(place: str, tmp_path: Path) -> None:
    """What is replaced is gone and has left its mark; what is left is unchanged."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url, redact=REDACT) as history:
        PLACES[place](history)
    stored = str([sql(url, f"SELECT {columns} FROM {table}") for table, columns in COLUMNS.items()])
    if rows()[place] == "replaced":
        assert ("leak" in stored, "[email]" in stored) == (False, True)
        return
    every = stored + str(sql(url, "SELECT id, user_id FROM conversations"))
    every += str(sql(url, "SELECT request_model FROM runs"))
    assert DATA in every or NAME in every


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"redact": "email"}, r"redact is 'email'; pass a list, redact=\['email'\]"),
        ({"redact": ["mail"]}, "choose of 'keys', 'email'"),
        ({"redact": [7]}, "redact has int; pass one of"),
        ({"redact": [re.compile(b"x")]}, "a pattern of bytes"),
        ({"redact": [re.compile("x*")]}, "matches the empty text"),
        ({"redact": ["email"], "capture": "wire"}, "leave capture out"),
    ],
)
def test_a_wrong_option_says_what_to_pass(options: dict[str, Any], reason: str, tmp_path: Path) -> None:
    """Nothing is recorded with patterns that cannot be used."""
    with pytest.raises(ConfigError, match=reason):
        ChatHistoryCallback(f"sqlite:///{tmp_path / 'chat.db'}", **options)


def test_without_redact_nothing_changes(tmp_path: Path) -> None:
    """The queue is the usual one, bytes are captured, and runs have no mark."""
    from recorder.recording.queue import RecordingQueue

    url = new_url(tmp_path)
    with ChatHistoryCallback(url) as history:
        record(history, HumanMessage(SECRET))
        assert (type(history.recorder.queue), history.takes_bytes) == (RecordingQueue, True)
        assert history.recorder.config.capture == "wire"
    assert sql(url, "SELECT redaction FROM runs") == [(None,)]
    assert SECRET in str(sql(url, "SELECT content FROM messages"))


def test_what_could_not_be_redacted_is_counted(tmp_path: Path) -> None:
    """The run and the stats say so, and nothing of the text is stored."""

    def broken(text: str) -> str:
        raise ValueError(text)

    url = new_url(tmp_path)
    with ChatHistoryCallback(url, redact=[broken]) as history:
        record(
            history, HumanMessage("a secret"), deltas=(Delta("another\nsecret"),), reply=AIMessage("a reply")
        )
        stats = history.close().wait()
    assert sql(url, "SELECT content FROM messages ORDER BY position") == [("[withheld]",), ("[withheld]",)]
    assert "secret" not in str(sql(url, "SELECT deltas, request, metadata FROM segments, runs"))
    assert stats.withheld > 0
    [(mark,)] = sql(url, "SELECT redaction FROM runs")
    assert json.loads(mark).keys() == {"withheld"}
