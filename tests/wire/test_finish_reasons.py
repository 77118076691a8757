"""A run is complete only if its finish reason is known to mean a complete answer."""

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
from tests.chatting import CALL_STYLES, CallStyle, history_at, name_of, recorded
from tests.wires import DONE, delta, event

both = pytest.mark.parametrize("style", CALL_STYLES, ids=name_of)

GOOD = "stop STOP eos end_turn tool_calls tool-calls toolUse tool_use pause_turn COMPLETE FINISH_REASON_STOP stopstop"
LIMITS = "length max_tokens MAX_TOKENS maxTokens content_filter refusal SAFETY model_context_window_exceeded"
FAILURES = "error ERROR server_error network_error upstreamError failed internal-failure insufficient_system_resource"
UNKNOWN = "abort cancelled timeout other MALFORMED_FUNCTION_CALL terrorist stopped?"


@pytest.mark.parametrize(
    ("reasons", "meaning"), [(GOOD, "good"), (LIMITS, "limit"), (FAILURES, "failure"), (UNKNOWN, "unknown")]
)
def test_each_finish_reason_has_a_meaning(reasons: str, meaning: str) -> None:
    """The reasons of all providers are known, in every spelling."""
    assert {each: meaning_of(each) for each in reasons.split()} == dict.fromkeys(reasons.split(), meaning)


@pytest.mark.parametrize("reason", [None, "", "null", "None", False])
def test_null_and_empty_text_are_no_finish_reason(reason: Any) -> None:
    """Some providers send the text "null" in each event."""
    assert not is_reason(reason)


def test_the_worst_finish_reason_of_several_choices_counts() -> None:
    """A failed choice is not outweighed by a good one."""
    assert worst_of(["stop", "length"]) == ("limit", "length")
    assert worst_of(["abort", "error", "stop"]) == ("failure", "error")
    assert worst_of([]) == ("good", None)


def ends_with(reason: str) -> bytes:
    """Return a stream whose last event has this finish reason, and the terminator."""
    return delta(role="assistant", content="Hel") + delta(finish_reason=reason) + DONE


@both
@pytest.mark.parametrize("reason", ["abort", "cancelled"])
def test_an_unknown_finish_reason_makes_the_run_interrupted(
    reason: str, style: CallStyle, tmp_path: Path
) -> None:
    """The reason is stored, and the application gets the text without an error, as from the SDK."""
    found = forms_of(chat, ends_with(reason), style, tmp_path)
    assert found.end[:2] == ("interrupted", reason)
    assert reason in found.run["error_message"]
    assert (found.error, found.live.text) == (None, "Hel")
    assert_alike(found)


@both
def test_the_finish_reason_error_raises_an_error(style: CallStyle, tmp_path: Path) -> None:
    """It is raised at the end of the stream, because a later event may explain it."""
    found = forms_of(chat, ends_with("error"), style, tmp_path)
    assert isinstance(found.error, openai.APIError)
    assert str(found.error) == "The provider ended the answer with finish reason 'error'"
    assert found.end[:2] == ("error", "error")
    assert found.message is not None
    assert found.message.text == "Hel"
    assert_alike(found)

    later = delta(content="Hel") + delta(finish_reason="error") + event({"error": {"message": "no memory"}})
    assert str(forms_of(chat, later, style, tmp_path).error) == "no memory"


def test_a_native_finish_reason_is_part_of_the_error(tmp_path: Path) -> None:
    """OpenRouter sends the reason of the provider that answered."""
    choice = {
        "index": 0,
        "delta": {"content": "Hel"},
        "finish_reason": "error",
        "native_finish_reason": "OOM",
    }
    found = forms_of(chat, event({"choices": [choice]}) + DONE, CALL_STYLES[0], tmp_path)
    assert "(OOM)" in found.run["error_message"]


@both
def test_anthropics_stop_reasons_decide_the_status(style: CallStyle, tmp_path: Path) -> None:
    """The same rules hold for Anthropic's format."""
    expected = {"end_turn": "complete", "refusal": "incomplete", "compaction": "complete", "error": "error",
                "aborted": "interrupted"}  # fmt: skip
    for reason, status in expected.items():
        body = b"".join(anthropic_messages_frames(["Hello"], stop_reason=reason))
        found = forms_of(claude, body, style, tmp_path)
        assert (found.end[:2], found.error is not None) == ((status, reason), status == "error")
        assert_alike(found)


def test_the_finish_reason_null_as_text_is_ignored(tmp_path: Path) -> None:
    """The stream continues after it."""
    body = delta(content="Hel", finish_reason="null") + delta(content="lo", finish_reason="stop") + DONE
    found = forms_of(chat, body, CALL_STYLES[0], tmp_path)
    assert (found.end[:2], found.live.text) == (("complete", "stop"), "Hello")


def test_a_choice_without_a_finish_reason_makes_the_run_interrupted(tmp_path: Path) -> None:
    """The other choice has one."""
    body = delta(content="a", finish_reason="stop") + delta(content="b", index=1)
    assert forms_of(chat, body, CALL_STYLES[0], tmp_path, n=2).end[0] == "interrupted"


class ScriptedModel(SimpleChatModel):
    """A model whose last chunk has the given metadata."""

    def _stream(self, messages: Any, **options: Any) -> Any:
        yield "Hel"
        yield ChatGenerationChunk(AIMessageChunk("lo", response_metadata=options["ends"]))


@both
@pytest.mark.parametrize(
    ("ends", "status"),
    [({"finish_reason": "abort"}, "interrupted"), ({"done_reason": "stop"}, "complete"),
     ({"stopReason": "max_tokens"}, "incomplete"), ({"finish_reason": "error"}, "interrupted"), ({}, "complete")],
)  # fmt: skip
def test_the_finish_reason_of_a_users_model_decides_the_status(
    ends: dict[str, Any], status: str, style: CallStyle, tmp_path: Path
) -> None:
    """ "error" as a reason raises nothing here, because such a model raises exceptions."""
    with history_at(tmp_path) as history:
        assert style.invoke(ScriptedModel(callbacks=[history], ends=ends), "Hi").text == "Hello"
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
def test_changed_finish_reasons_are_reported(
    given: list[str], status: str, counts: str, others: list[str] | None, style: CallStyle, tmp_path: Path
) -> None:
    """The worst one counts; chunks, message and row have the same, and the others are in the metadata."""
    body = delta(content="Hi") + b"".join(delta(finish_reason=reason) for reason in given) + DONE
    found = forms_of(chat, body, style, tmp_path)
    assert found.end[:2] == (status, counts)
    for message in (found.live, sum_of(found.from_model)):
        assert message.response_metadata["finish_reason"] == counts
        assert message.response_metadata.get("earlier_finish_reasons") == others
        assert message.response_metadata["model_name"] == "gpt-4o"
    assert_alike(found)


@both
def test_a_changed_finish_reason_with_an_error_raises_an_error(style: CallStyle, tmp_path: Path) -> None:
    """The order does not matter."""
    for given in (["stop", "error"], ["error", "stop"]):
        body = delta(content="Hi") + b"".join(delta(finish_reason=reason) for reason in given) + DONE
        found = forms_of(chat, body, style, tmp_path)
        assert (type(found.error), found.end[:2]) == (openai.APIError, ("error", "error"))


def test_a_changed_stop_reason_is_reported(tmp_path: Path) -> None:
    """Anthropic's field is `stop_reason`."""
    frames = anthropic_messages_frames(["Hi"])
    (place,) = [at for at, frame in enumerate(frames) if b"message_delta" in frame]
    frames.insert(place + 1, frames[place].replace(b"end_turn", b"max_tokens"))
    found = forms_of(claude, b"".join(frames), CALL_STYLES[0], tmp_path)
    assert found.end[:2] == ("incomplete", "max_tokens")
    assert found.live.response_metadata["stop_reason"] == "max_tokens"
    assert found.live.response_metadata["earlier_finish_reasons"] == ["end_turn"]
