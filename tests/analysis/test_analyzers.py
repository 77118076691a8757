"""Analyzers are names, functions and objects; what cannot run is refused when the recorder is made."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from recorder import ChatHistoryCallback
from recorder.analysis import Analysis, FunctionAnalyzer
from recorder.errors import ConfigError, MissingExtra
from tests.analysis.misbehaving import LockHolder, Misbehaving, fine


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("sentiment", "pass a list"),
        (["sentimant"], "no analyzer 'sentimant'"),
        ([3], "is no analyzer"),
        ([Misbehaving], "pass an object"),
        ([lambda text: text], "has no name"),
        ([fine, FunctionAnalyzer(fine)], "Two analyzers have the name 'fine'"),
        ([FunctionAnalyzer(fine, name="x" * 101)], "1 to 100 characters"),
        ([LockHolder()], "cannot be sent to a worker process .*analyze_in='thread'"),
    ],
    ids=["text", "name", "number", "class", "lambda", "twice", "long", "lock"],
)
def test_what_is_no_analyzer_is_refused(given: Any, reason: str, tmp_path: Path) -> None:
    """The error comes before the database is opened."""
    with pytest.raises(ConfigError, match=reason):
        ChatHistoryCallback(f"sqlite:///{tmp_path / 'a.db'}", analyze=given)
    assert list(tmp_path.iterdir()) == []


def test_a_thread_needs_no_pickle() -> None:
    """What holds a lock can run on a thread."""
    assert Analysis([LockHolder()], executor="thread").stats().by_analyzer.keys() == {"lock"}


def test_a_function_without_texts_is_refused() -> None:
    """It would never be called."""
    with pytest.raises(ConfigError, match="gets no texts"):
        FunctionAnalyzer(fine, messages=False)


def test_sentences_need_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function for messages needs no library, one for sentences does."""
    monkeypatch.setattr("recorder.analysis.extra.find_spec", lambda name: None)
    Analysis([fine])
    with pytest.raises(MissingExtra, match="sentencex"):
        Analysis([FunctionAnalyzer(fine, sentences=True)])


def test_unknown_executors_are_refused() -> None:
    """There are two."""
    with pytest.raises(ConfigError, match="'process' or 'thread'"):
        Analysis([fine], executor=threading)  # type: ignore[arg-type]
