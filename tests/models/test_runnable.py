"""`with_config`: a config for every call, merged with the config of the call."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from recorder.models.call_config import merge_configs
from recorder.testing import LoopbackProvider
from tests.chatting import CALL_STYLES, CallStyle, Log, chat, name_of

both = pytest.mark.parametrize("style", CALL_STYLES, ids=name_of)


def started(log: Log) -> dict[str, Any]:
    """Return what the only start event says."""
    [(_, kwargs)] = log.calls_of("on_chat_model_start")
    return kwargs


@both
@pytest.mark.parametrize("way", ["model", "retry", "fallbacks", "structured"])
def test_every_call_has_the_config(style: CallStyle, way: str) -> None:
    """Callbacks and tags are added, metadata and the name override; the model itself is not changed."""
    own, bound, given = Log(), Log(), Log()
    with LoopbackProvider("{}") as provider:
        model: Any = chat(provider, callbacks=[own], tags=["model"], metadata={"a": 1, "b": 1, "c": 1})
        model = {
            "model": lambda: model,
            "retry": model.with_retry,
            "fallbacks": lambda: model.with_fallbacks([model]),
            "structured": lambda: model.with_structured_output({"title": "A", "properties": {}}),
        }[way]()
        changed = model.with_config({"callbacks": [bound], "tags": ["bound"]}, metadata={"b": 2, "c": 2})
        config = {"callbacks": [given], "tags": ["given"], "metadata": {"c": 3}, "run_name": "x"}
        style.invoke(changed.with_config(run_name="y"), "Hi", config)
        assert len(own.calls_of("on_chat_model_start")) == 1
        for log in (own, bound, given):
            found = started(log)
            assert found["tags"] == ["bound", "given", "model"]
            assert {key: found["metadata"][key] for key in "abc"} == {"a": 1, "b": 2, "c": 3}
            assert found["name"] == "x"
        style.invoke(model, "Hi")
    assert len(bound.calls_of("on_chat_model_start")) == 1


@both
def test_the_config_is_used_by_every_method(style: CallStyle) -> None:
    """Streams, batches and generate have it, too, and so has a copy with tools."""
    log = Log()
    with LoopbackProvider("Hello") as provider:
        model = chat(provider).with_config(callbacks=[log], max_concurrency=1).bind(seed=1)
        style.stream(model, "Hi")
        style.batch(model, ["Hi", "Hi"])
        style.generate(model, [["Hi"]])
        style.invoke(model, "Hi")
    assert len(log.calls_of("on_chat_model_start")) == 5


def test_events_have_the_config() -> None:
    """`astream_events` shows the tags."""

    async def tags() -> set[str]:
        model = chat(provider).with_config(tags=["bound"])
        return {tag async for event in model.astream_events("Hi") for tag in event["tags"]}

    with LoopbackProvider("Hello") as provider:
        assert asyncio.run(tags()) == {"bound"}


def test_configs_are_merged_as_in_langchain() -> None:
    """Keys without a value do not override."""
    base = {"tags": ["a"], "metadata": {"x": 1}, "configurable": {"k": 1}, "run_name": "n"}
    given = {"tags": ["b", "a"], "metadata": {"y": 2}, "configurable": {"k": 2}, "run_name": None}
    assert merge_configs(base, given) == {
        "tags": ["a", "b"],
        "metadata": {"x": 1, "y": 2},
        "configurable": {"k": 2},
        "run_name": "n",
    }
    assert merge_configs({}, given) == {key: value for key, value in given.items() if value is not None}


def test_a_manager_of_callbacks_keeps_its_parent() -> None:
    """LangGraph passes a manager; the run that calls the model stays the parent."""

    class Manager:
        def __init__(self, *handlers: Any) -> None:
            self.handlers = list(handlers)
            self.inheritable_handlers = list(handlers)
            self.parent_run_id = uuid4()

    bound, given = Log(), Log()
    manager = Manager(given)
    with LoopbackProvider("Hello") as provider:
        chat(provider).with_config(callbacks=[bound]).invoke("Hi", {"callbacks": manager})
    assert started(bound)["parent_run_id"] == started(given)["parent_run_id"] == manager.parent_run_id
