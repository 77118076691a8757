"""Feedback and annotations of runs are rows, with the fields of OpenTelemetry's evaluations."""

from __future__ import annotations

import json
import uuid
from math import nan
from typing import Any

import pytest

from recorder import ChatHistoryCallback
from recorder.errors import Closed, ConfigError, StoreError
from recorder.messages import HumanMessage
from recorder.models import ChatOpenAI
from recorder.testing import LoopbackProvider, MemoryStore
from tests.oracle import FaultyStore, away, record, sql

RUN = uuid.UUID(int=7)
QUERY = "SELECT run_id, id, name, label, score, data, message_id FROM annotations ORDER BY created_at, id"


def test_feedback_names_the_run_by_the_id_of_its_message(database: str) -> None:
    """As the application has it after a call: no id has to be chosen before."""
    with LoopbackProvider() as provider, ChatHistoryCallback(database) as history:
        chat = ChatOpenAI(model="gpt-5-mini", base_url=provider.url, api_key="any", callbacks=[history])
        answer = chat.invoke("Hello!")
        with history.user("ada"):
            first = history.add_feedback(str(answer.id), score=1, comment="Gr\x00at")
        second = history.add_feedback(str(answer.id), label="down")
    [(run,)] = sql(database, "SELECT id FROM runs")
    found = [(*row[:5], json.loads(row[5]) if row[5] else None) for row in sql(database, QUERY)]
    assert found == [
        (run, first, "user_feedback", None, 1.0, {"comment": "Gr\ufdd00000at", "user_id": "ada"}),
        (run, second, "user_feedback", "down", None, None),
    ]
    joined = "SELECT t.content, a.label FROM annotations AS a JOIN transcripts AS t ON t.run_id = a.run_id"
    assert len(sql(database, joined)) == 2


def test_annotations_may_name_a_message_and_hold_data(database: str) -> None:
    """Many of one name are kept; credentials in the data are not."""
    message = uuid.uuid4()
    with ChatHistoryCallback(database, flush_interval=3600) as history:
        run = record(history, HumanMessage("Hi"))
        for number in range(300):
            history.add_annotation(
                run,
                "helpfulness",
                score=number / 2,
                label="good",
                data={"why": [1], "api_key": "sk-1"},
                message_id=message,
            )
        assert history.stats().messages_added == 300
        history.flush().wait(20)
        assert history.stats().messages_stored == 300
    rows = sql(database, QUERY)
    assert [row[4] for row in rows] == [number / 2 for number in range(300)]
    assert {(row[0], row[2], row[3], row[5], row[6]) for row in rows} == {
        (str(run), "helpfulness", "good", '{"why":[1]}', str(message))
    }


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda history: history.add_feedback(RUN), "says nothing; pass score="),
        (lambda history: history.add_annotation(RUN, "x"), "says nothing; pass label="),
        (lambda history: history.add_feedback("chatcmpl-1", score=1), "run_id is 'chatcmpl-1'; pass the run_id"),
        (lambda history: history.add_feedback(RUN, score=nan), "score is nan; pass a finite number"),
        (lambda history: history.add_feedback(RUN, score=10**400), "score is 1000"),
        (lambda history: history.add_feedback(RUN, score="5"), "score is '5'; pass a finite number"),
        (lambda history: history.add_annotation(RUN, 3, score=1), "name must be a str"),
        (lambda history: history.add_annotation(RUN, "x", score=1, message_id="m"), "message_id is 'm'"),
    ],
)  # fmt: skip
def test_a_wrong_annotation_raises(call: Any, message: str) -> None:
    """The error names the argument and what to pass; nothing is stored."""
    store = MemoryStore()
    with ChatHistoryCallback(store=store) as history, pytest.raises(ConfigError, match=message):
        call(history)
    assert not store.annotations


def test_after_close_and_in_a_full_queue_an_annotation_raises() -> None:
    """The caller knows that it is not stored."""
    store = FaultyStore(MemoryStore(), before=[away] * 10**6)
    history = ChatHistoryCallback(store=store, max_queue_bytes=2_500, overflow="drop_newest")
    history.add_feedback(RUN, score=1)
    history.add_feedback(RUN, score=1)
    with pytest.raises(StoreError, match="1 messages or annotations were not accepted"):
        history.add_feedback(RUN, score=1)
    history.close(timeout=0.05).wait(10)
    with pytest.raises(Closed):
        history.add_feedback(RUN, score=1)
