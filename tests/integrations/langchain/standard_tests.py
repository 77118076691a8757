"""LangChain's standard tests of chat models pass on `ReplayChatModel`, after one recording of each.

What a recording cannot answer: `LEFT_OUT` in conftest.py, and the one test below that is expected to fail.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integrations.langchain.obliging import obliging_provider
from tests.oracle import new_url

langchain: Any = pytest.importorskip("recorder.integrations.langchain")
unit: Any = pytest.importorskip("langchain_tests.unit_tests")
integration: Any = pytest.importorskip("langchain_tests.integration_tests")
langchain_openai: Any = pytest.importorskip("langchain_openai")

#: LangChain's own warnings, and that of a benchmark whose test skips itself.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning"),
    pytest.mark.filterwarnings("ignore:Received a Pydantic BaseModel V1 schema:UserWarning"),
    pytest.mark.filterwarnings("ignore:Benchmark fixture was not used"),
]


def like(url: str) -> Any:
    """Return the model that answers while a test is recorded; port 9 answers nothing."""
    return langchain_openai.ChatOpenAI(
        model="gpt-5.4-mini", base_url=f"{url}/v1", api_key="any", stream_usage=True
    )


class TestUnits(unit.ChatModelUnitTests):  # type: ignore[misc]
    """The tests that make no call."""

    @property
    def chat_model_class(self) -> Any:
        """Return the class under test."""
        return langchain.ReplayChatModel

    @property
    def chat_model_params(self) -> dict[str, Any]:
        """Return the arguments of the class."""
        return {"url": "sqlite:///nothing.db", "like": like("http://127.0.0.1:9")}


class TestReplayed(integration.ChatModelIntegrationTests):  # type: ignore[misc]
    """Each test is run twice: once it is recorded, then it is replayed without a provider."""

    #: The arguments of the models that a test makes itself.
    params: dict[str, Any]

    @property
    def chat_model_class(self) -> Any:
        """Return the class under test."""
        return langchain.ReplayChatModel

    @property
    def chat_model_params(self) -> dict[str, Any]:
        """Return the arguments of the class."""
        return self.params

    @property
    def model_override_value(self) -> str:
        """Return the name of another model."""
        return "gpt-5.4"

    @property
    def supports_anthropic_inputs(self) -> bool:
        """Return that blocks in Anthropic's form are tested."""
        return True

    @property
    def supports_json_mode(self) -> bool:
        """Return that JSON mode is tested."""
        return True

    @pytest.fixture
    def model(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
        """Yield a model that replays, after the same test was run on one that records."""
        url, more = new_url(tmp_path), getattr(request, "param", None) or {}
        with obliging_provider() as provider:
            with self._model(url, provider.url, mode="all", **more) as recording:
                self._run(request, recording)
            gc.collect()  # ends what the test recorded with models of its own
        with self._model(url, "http://127.0.0.1:9", **more) as model:
            yield model

    def _model(self, url: str, provider: str, *, mode: str = "none", **more: Any) -> Any:
        self.params = {"url": url, "like": like(provider), "mode": mode}
        return self.chat_model_class(**{**self.standard_chat_model_params, **self.params, **more})

    def _run(self, request: pytest.FixtureRequest, model: Any) -> None:
        names = [
            name for name in inspect.signature(request.function).parameters if name in request.fixturenames
        ]
        values = {name: model if name == "model" else request.getfixturevalue(name) for name in names}
        if inspect.iscoroutine(found := request.function(**values)):
            asyncio.run(found)

    @pytest.mark.xfail(
        reason="the test puts random ids into its request, so it differs from the recorded one"
    )
    def test_structured_few_shot_examples(self, *args: Any, **kwargs: Any) -> None:
        """A recording answers only a request that was recorded."""
        super().test_structured_few_shot_examples(*args, **kwargs)
