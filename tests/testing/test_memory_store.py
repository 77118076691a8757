"""`MemoryStore` keeps the batches that it was given without changing them."""

from __future__ import annotations

import json
from dataclasses import replace

from recorder import ChatHistoryCallback
from recorder.messages import HumanMessage
from recorder.testing import MemoryStore
from tests.oracle import begin, finish, say


def test_a_memory_store_keeps_requests_after_their_commit() -> None:
    """Its rows do not change, although the open run drops its request and messages."""
    store = MemoryStore()
    with ChatHistoryCallback(store=store, conversation_id="c") as history:
        run_id = begin(history, HumanMessage("Hi"), invocation_params={"model": "m"}, metadata={"a": 1})
        history.flush().wait(10)
        stored_start = store.starts[str(run_id)]
        before = replace(stored_start)
        held = history.recorder.runs[run_id.int].start
        assert (held.messages, held.path, held.request, held.metadata) == ((), (), None, None)
        say(history, run_id, "a")
        finish(history, run_id, "a")
    assert stored_start == before
    assert (stored_start.request, stored_start.metadata) == ('{"model":"m"}', '{"a":1}')
    assert [message.text for message in stored_start.messages] == ["Hi"]
    [prompt, reply] = store.messages.values()
    assert (reply.parent_id, stored_start.placement.prompt_message_id) == (prompt.id, prompt.id)
    assert next(batch for batch in store.batches if batch.runs).runs[0].start is stored_start


def test_metadata_of_the_end_of_a_run_are_visible() -> None:
    """A password in an error is found when the run ends, and the metadata say where it was masked."""
    store = MemoryStore()
    with ChatHistoryCallback(store=store, conversation_id="c") as history:
        run_id = begin(history, HumanMessage("Hi"), metadata={"a": 1})
        history.flush().wait(10)
        history.on_llm_error(ValueError("no answer of https://me:hunter22@host/v1"), run_id=run_id)
    metadata = json.loads(store.starts[str(run_id)].metadata or "{}")
    assert metadata == {"a": 1, "recorder_masked": ["error_message"]}
