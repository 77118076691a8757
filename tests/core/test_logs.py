"""Lines of the log: whatever recorded text they carry, they stay lines and move no cursor."""

from __future__ import annotations

import logging

import pytest

import recorder.core.logs

TRICK = "x\x1b]0;owned\x07\nERROR forged\u202e"
SHOWN = r"x\x1b]0;owned\x07\nERROR forged\u202e"

log = logging.getLogger("recorder")


class Unspeakable(Exception):
    """An exception whose text raises."""

    def __str__(self) -> str:
        raise RuntimeError(TRICK)


def test_what_was_recorded_is_written_out(caplog: pytest.LogCaptureFixture) -> None:
    """In a text and in an exception; numbers and what is plain stay what they are."""
    log.error("%s, %s, %d, %s", TRICK, ValueError(TRICK), 7, "plain")
    assert caplog.messages == [f"{SHOWN}, {SHOWN}, 7, plain"]


def test_a_named_argument_is_written_out(caplog: pytest.LogCaptureFixture) -> None:
    """As the logging module takes them in one mapping."""
    log.error("%(said)s", {"said": TRICK})
    assert caplog.messages == [SHOWN]


def test_a_traceback_is_written_out(caplog: pytest.LogCaptureFixture) -> None:
    """It ends with the error's text; its own line ends stay."""
    try:
        raise ValueError(TRICK)
    except ValueError:
        log.exception("Something failed")
    assert "\x1b" not in caplog.text
    assert r"ValueError: x\x1b]0;owned\x07" in caplog.text


def test_an_exception_without_a_text_is_logged_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    """Logging raises nothing into the application."""
    log.error("%s", Unspeakable())
    assert caplog.messages == ["Unspeakable without a text"]


def test_the_filter_is_there_once() -> None:
    """However often it is installed."""
    recorder.core.logs.install()
    assert sum(isinstance(each, recorder.core.logs.PrintableFilter) for each in log.filters) == 1
