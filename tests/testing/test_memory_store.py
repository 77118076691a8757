"""The store in memory keeps what it was given as it was given."""

from __future__ import annotations

import json
from dataclasses import replace

from recorder import ChatHistoryCallback
from recorder.messages import HumanMessage
from recorder.testing import MemoryStore
from tests.oracle import begin, finish, say


def test_a_store_in_memory_has_what_was_asked_after_it_was_committed() -> None:
    """Nothing changes in a store's hands; an open run lets go of its request all the same."""
    store = MemoryStore()
    with ChatHistoryCallback(store=store, conversation_id="c") as history:
        run_id = begin(history, HumanMessage("Hi"), invocation_params={"model": "m"}, metadata={"a": 1})
        history.flush().wait(10)
        kept = store.starts[str(run_id)]
        before = replace(kept)
        held = history.recorder.runs[run_id.int].start
        assert (held.messages, held.path, held.request, held.metadata) == ((), (), None, None)
        say(history, run_id, "a")
        finish(history, run_id, "a")
    assert kept == before
    assert (kept.request, kept.metadata) == ('{"model":"m"}', '{"a":1}')
    assert [message.text for message in kept.messages] == ["Hi"]
    [prompt, reply] = store.messages.values()
    assert (reply.parent_id, kept.placement.prompt_message_id) == (prompt.id, prompt.id)
    assert next(batch for batch in store.batches if batch.runs).runs[0].start is kept


def test_what_is_noted_at_the_end_is_shown() -> None:
    """A password that an error repeats is found when the run ends, and the metadata says where it was masked."""
    store = MemoryStore()
    with ChatHistoryCallback(store=store, conversation_id="c") as history:
        run_id = begin(history, HumanMessage("Hi"), metadata={"a": 1})
        history.flush().wait(10)
        history.on_llm_error(ValueError("no answer of https://me:hunter22@host/v1"), run_id=run_id)
    metadata = json.loads(store.starts[str(run_id)].metadata or "{}")
    assert metadata == {"a": 1, "recorder_masked": ["error_message"]}
