"""Recorded text in the log cannot begin a new line or move the cursor of a terminal."""

from __future__ import annotations

import logging

import pytest

import recorder.core.logs

TRICK = "x\x1b]0;owned\x07\nERROR forged\u202e"
SHOWN = r"x\x1b]0;owned\x07\nERROR forged\u202e"

log = logging.getLogger("recorder")


class Textless(Exception):
    """An exception whose `str()` raises."""

    def __str__(self) -> str:
        raise RuntimeError(TRICK)


def test_control_characters_in_arguments_are_escaped(caplog: pytest.LogCaptureFixture) -> None:
    """Texts and exceptions are escaped; numbers and plain texts are not changed."""
    log.error("%s, %s, %d, %s", TRICK, ValueError(TRICK), 7, "plain")
    assert caplog.messages == [f"{SHOWN}, {SHOWN}, 7, plain"]


def test_control_characters_in_named_arguments_are_escaped(caplog: pytest.LogCaptureFixture) -> None:
    """The logging module takes named arguments in one mapping."""
    log.error("%(value)s", {"value": TRICK})
    assert caplog.messages == [SHOWN]


def test_control_characters_in_tracebacks_are_escaped(caplog: pytest.LogCaptureFixture) -> None:
    """A traceback ends with the text of the error; its own line ends stay."""
    try:
        raise ValueError(TRICK)
    except ValueError:
        log.exception("Something failed")
    assert "\x1b" not in caplog.text
    assert r"ValueError: x\x1b]0;owned\x07" in caplog.text


def test_an_exception_whose_str_raises_is_logged_with_its_class(caplog: pytest.LogCaptureFixture) -> None:
    """Logging raises no error into the application."""
    log.error("%s", Textless())
    assert caplog.messages == ["Textless without a text"]


def test_the_filter_is_added_once() -> None:
    """A second `install` adds no second filter."""
    recorder.core.logs.install()
    assert sum(isinstance(each, recorder.core.logs.PrintableFilter) for each in log.filters) == 1
