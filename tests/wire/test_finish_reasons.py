"""Finish reasons: only those that are known to be good make a run complete."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest

from recorder.messages import AIMessageChunk, ChatGenerationChunk
from recorder.models import SimpleChatModel
from recorder.testing import anthropic_messages_frames
from recorder.wire.finish_reasons import is_reason, meaning_of, worst_of
from tests.alike import assert_alike, claude, forms_of
from tests.alike import openai as chat
from tests.alike import total as sum_of
from tests.chatting import ROADS, Road, history_at, name_of, recorded
from tests.wires import DONE, delta, event

both = pytest.mark.parametrize("road", ROADS, ids=name_of)

GOOD = "stop STOP eos end_turn tool_calls tool-calls toolUse tool_use pause_turn COMPLETE FINISH_REASON_STOP stopstop"
LIMITS = "length max_tokens MAX_TOKENS maxTokens content_filter refusal SAFETY model_context_window_exceeded"
FAILURES = "error ERROR server_error network_error upstreamError failed internal-failure insufficient_system_resource"
UNKNOWN = "abort cancelled timeout other MALFORMED_FUNCTION_CALL terrorist stopped?"


@pytest.mark.parametrize(
    ("words", "meaning"), [(GOOD, "good"), (LIMITS, "limit"), (FAILURES, "failure"), (UNKNOWN, "unknown")]
)
def test_what_reasons_mean(words: str, meaning: str) -> None:
    """In the words of all providers, however they write them."""
    assert {word: meaning_of(word) for word in words.split()} == dict.fromkeys(words.split(), meaning)


@pytest.mark.parametrize("reason", [None, "", "null", "None", False])
def test_no_reason(reason: Any) -> None:
    """Some providers write null as a word in each event."""
    assert not is_reason(reason)


def test_the_worst_of_several_choices_counts() -> None:
    """One that failed is not made good by another."""
    assert worst_of(["stop", "length"]) == ("limit", "length")
    assert worst_of(["abort", "error", "stop"]) == ("failure", "error")
    assert worst_of([]) == ("good", None)


def ends_with(reason: str) -> bytes:
    """A stream whose last event has this reason, and its terminator."""
    return delta(role="assistant", content="Hel") + delta(finish_reason=reason) + DONE


@both
@pytest.mark.parametrize("reason", ["abort", "cancelled"])
def test_an_odd_reason_is_no_complete_answer(reason: str, road: Road, tmp_path: Path) -> None:
    """It is `interrupted`, with the provider's word; the application gets what came, as from the SDK."""
    found = forms_of(chat, ends_with(reason), road, tmp_path)
    assert found.end[:2] == ("interrupted", reason)
    assert reason in found.run["error_message"]
    assert (found.error, found.heard.text) == (None, "Hel")
    assert_alike(found)


@both
def test_a_reason_that_says_error_is_an_error(road: Road, tmp_path: Path) -> None:
    """Without any other word; it is raised when the stream is over, for an event behind it may tell more."""
    found = forms_of(chat, ends_with("error"), road, tmp_path)
    assert isinstance(found.error, openai.APIError)
    assert str(found.error) == "The provider ended the answer with finish reason 'error'"
    assert found.end[:2] == ("error", "error")
    assert found.message is not None
    assert found.message.text == "Hel"
    assert_alike(found)

    later = delta(content="Hel") + delta(finish_reason="error") + event({"error": {"message": "no memory"}})
    assert str(forms_of(chat, later, road, tmp_path).error) == "no memory"


def test_a_router_s_word_is_told_as_well(tmp_path: Path) -> None:
    """OpenRouter knows the reason of who answered behind it."""
    choice = {
        "index": 0,
        "delta": {"content": "Hel"},
        "finish_reason": "error",
        "native_finish_reason": "OOM",
    }
    found = forms_of(chat, event({"choices": [choice]}) + DONE, ROADS[0], tmp_path)
    assert "(OOM)" in found.run["error_message"]


@both
def test_anthropic_s_reasons(road: Road, tmp_path: Path) -> None:
    """The same rules in the other format."""
    expected = {"end_turn": "complete", "refusal": "incomplete", "compaction": "complete", "error": "error",
                "aborted": "interrupted"}  # fmt: skip
    for reason, status in expected.items():
        body = b"".join(anthropic_messages_frames(["Hello"], stop_reason=reason))
        found = forms_of(claude, body, road, tmp_path)
        assert (found.end[:2], found.error is not None) == ((status, reason), status == "error")
        assert_alike(found)


def test_null_as_a_word_is_no_reason(tmp_path: Path) -> None:
    """The stream goes on behind it."""
    body = delta(content="Hel", finish_reason="null") + delta(content="lo", finish_reason="stop") + DONE
    found = forms_of(chat, body, ROADS[0], tmp_path)
    assert (found.end[:2], found.heard.text) == (("complete", "stop"), "Hello")


def test_a_choice_that_has_no_end_was_cut_off(tmp_path: Path) -> None:
    """The stream stops where one of two choices is through."""
    body = delta(content="a", finish_reason="stop") + delta(content="b", index=1)
    assert forms_of(chat, body, ROADS[0], tmp_path, n=2).end[0] == "interrupted"


class Own(SimpleChatModel):
    """Ends as it is told."""

    def _stream(self, messages: Any, **options: Any) -> Any:
        yield "Hel"
        yield ChatGenerationChunk(AIMessageChunk("lo", response_metadata=options["ends"]))


@both
@pytest.mark.parametrize(
    ("ends", "status"),
    [({"finish_reason": "abort"}, "interrupted"), ({"done_reason": "stop"}, "complete"),
     ({"stopReason": "max_tokens"}, "incomplete"), ({"finish_reason": "error"}, "interrupted"), ({}, "complete")],
)  # fmt: skip
def test_models_of_one_s_own(ends: dict[str, Any], status: str, road: Road, tmp_path: Path) -> None:
    """What they give as the reason counts; an error of theirs is an exception, and a word is none."""
    with history_at(tmp_path) as history:
        assert road.invoke(Own(callbacks=[history], ends=ends), "Hi").text == "Hello"
    assert recorded(f"sqlite:///{tmp_path / 'history.db'}").run["status"] == status


CHANGES = {
    "another good one": (["stop", "tool_calls"], "complete", "tool_calls", ["stop"]),
    "a limit behind it": (["stop", "length"], "incomplete", "length", ["stop"]),
    "a limit before it": (["length", "stop"], "incomplete", "length", ["stop"]),
    "an unknown one before it": (["abort", "stop", "stop"], "interrupted", "abort", ["stop"]),
    "three": (["stop", "tool_calls", "stop", "content_filter"], "incomplete", "content_filter",
              ["stop", "tool_calls"]),
    "the same again": (["stop", "stop"], "complete", "stop", None),
}  # fmt: skip


@both
@pytest.mark.parametrize(("given", "status", "counts", "others"), CHANGES.values(), ids=CHANGES)
def test_a_reason_that_changes_is_told(
    given: list[str], status: str, counts: str, others: list[str] | None, road: Road, tmp_path: Path
) -> None:
    """The worst one counts, or the last of those as bad; chunks, message and row agree, and the others are named."""
    body = delta(content="Hi") + b"".join(delta(finish_reason=reason) for reason in given) + DONE
    found = forms_of(chat, body, road, tmp_path)
    assert found.end[:2] == (status, counts)
    for message in (found.heard, sum_of(found.modelled)):
        assert message.response_metadata["finish_reason"] == counts
        assert message.response_metadata.get("earlier_finish_reasons") == others
        assert message.response_metadata["model_name"] == "gpt-4o"
    assert_alike(found)


@both
def test_a_reason_that_becomes_an_error_is_an_error(road: Road, tmp_path: Path) -> None:
    """Whichever comes first."""
    for given in (["stop", "error"], ["error", "stop"]):
        body = delta(content="Hi") + b"".join(delta(finish_reason=reason) for reason in given) + DONE
        found = forms_of(chat, body, road, tmp_path)
        assert (type(found.error), found.end[:2]) == (openai.APIError, ("error", "error"))


def test_anthropic_s_reason_that_changes(tmp_path: Path) -> None:
    """The same, under its name."""
    frames = anthropic_messages_frames(["Hi"])
    (place,) = [at for at, frame in enumerate(frames) if b"message_delta" in frame]
    frames.insert(place + 1, frames[place].replace(b"end_turn", b"max_tokens"))
    found = forms_of(claude, b"".join(frames), ROADS[0], tmp_path)
    assert found.end[:2] == ("incomplete", "max_tokens")
    assert found.heard.response_metadata["stop_reason"] == "max_tokens"
    assert found.heard.response_metadata["earlier_finish_reasons"] == ["end_turn"]
