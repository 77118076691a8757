"""Tokens are counted by tiktoken where its vocabulary is on disk, and estimated elsewhere. Nothing is downloaded."""

from __future__ import annotations

from statistics import median
from typing import Any

import pytest

from recorder.costs import encodings
from recorder.costs.token_counts import counter_for, input_tokens, rule_of_thumb
from recorder.costs.usage_estimate import GENERATED
from recorder.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from recorder.wire.formats import translator_of
from tests.genuine import Stream, all_streams

CALL = {"name": "weather", "args": {"city": "Zürich"}, "id": "call_1"}


@pytest.fixture
def no_vocabulary(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Let tiktoken's cache be empty, and every download an error."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    load: Any = pytest.importorskip("tiktoken.load")

    def refuse(path: str) -> bytes:
        raise AssertionError(f"{path} was downloaded")

    monkeypatch.setattr(load, "read_file", refuse)
    monkeypatch.setattr(pytest.importorskip("tiktoken.registry"), "ENCODINGS", {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ("a", 1),
        ("Hello, world", 3),
        ("привет", 3),
        ("你好世界", 3),
        ("नमस्ते", 5),
        ("🎈🎈", 2),
        ("\ud800", 1),
        ("x" * 1_000_000, 250_000),
    ],
)
def test_the_rule_counts_bytes(text: str, expected: int) -> None:
    """Four bytes of UTF-8 are a token, in any script."""
    assert rule_of_thumb(text) == expected


@pytest.mark.usefixtures("no_vocabulary")
@pytest.mark.parametrize(
    "model", ["gpt-4o", "gpt-4", "gpt-oss-20b", "davinci", "claude-sonnet-4-5", "", None]
)
def test_without_the_vocabulary_the_rule_is_used(model: str | None) -> None:
    """Also if a file of the right name holds something else, which tiktoken would replace by a download."""
    assert counter_for(model) is rule_of_thumb


@pytest.mark.usefixtures("no_vocabulary")
def test_a_damaged_vocabulary_is_not_replaced(tmp_path: Any) -> None:
    """tiktoken would delete it and download it again."""
    import hashlib

    address = "https://openaipublic.blob.core.windows.net/encodings/o200k_base.tiktoken"
    file = tmp_path / hashlib.sha1(address.encode()).hexdigest()
    file.write_bytes(b"cut")
    assert counter_for("gpt-4o") is rule_of_thumb
    assert file.read_bytes() == b"cut"


def test_the_files_are_those_of_tiktoken() -> None:
    """The addresses and the hashes are tiktoken's own."""
    public: Any = pytest.importorskip("tiktoken_ext.openai_public")
    for name, (file, expected) in encodings._FILES.items():
        constants = [*public.ENCODING_CONSTRUCTORS[name].__code__.co_consts]
        if name != "o200k_harmony":  # it is made of another one
            assert encodings._ADDRESS.format(file) in constants
            assert expected in repr(constants)


def test_a_loaded_vocabulary_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long texts are counted in pieces, because tiktoken's time can grow with the square of the length."""
    tiktoken: Any = pytest.importorskip("tiktoken")
    registry: Any = pytest.importorskip("tiktoken.registry")
    ranks = {bytes([number]): number for number in range(256)}
    own = tiktoken.Encoding(
        "o200k_base", pat_str=r".|\n", mergeable_ranks=ranks, special_tokens={"<|end|>": 256}
    )
    monkeypatch.setattr(registry, "ENCODINGS", {"o200k_base": own})
    count = counter_for("gpt-4o")
    assert count("Zürich<|end|>") == 7 + 7
    assert count("x" * 50_001) == 50_001
    assert counter_for("claude-sonnet-4-5") is rule_of_thumb


def test_a_request_is_its_messages_and_its_tools() -> None:
    """Roles, names, texts, tool calls, their results and the schemas count; ids and images' data do not."""
    messages = [
        SystemMessage("Be brief."),
        HumanMessage("Is it warm?", name="anna"),
        AIMessage("", tool_calls=[CALL]),
        ToolMessage("20 °C", tool_call_id="call_1"),
    ]
    plain = input_tokens(messages, [], len)
    texts = ["system", "Be brief.", "user", "anna", "Is it warm?", "assistant", "tool", "20 °C"]
    assert plain == 4 * 3 + 3 + sum(map(len, texts)) + len('{"name":"weather","arguments":{"city":"Zürich"}}')
    assert input_tokens(messages, [[{"type": "function"}], None], len) == plain + len('[{"type":"function"}]')


def test_an_image_counts_as_a_small_one() -> None:
    """Its size is not known, and its data is no text."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 10_000}}
    text = {"type": "text", "text": "What is it?"}
    assert input_tokens([HumanMessage([text, image])], [], len) == 3 + 3 + len("user" + "What is it?") + 85


@pytest.mark.parametrize(
    "block",
    [
        {
            "type": "file",
            "file": {"filename": "a", "file_data": "data:application/pdf;base64," + "A" * 10_000},
        },
        {"type": "input_file", "file_data": "A" * 10_000},
        {"type": "file", "base64": "A" * 10_000, "mime_type": "application/pdf"},
        {"type": "input_audio", "input_audio": {"data": "A" * 10_000, "format": "wav"}},
        {"type": "reasoning", "encrypted_content": "A" * 10_000, "summary": []},
    ],
)
def test_the_bytes_of_a_file_are_no_text(block: dict[str, Any]) -> None:
    """A document of a megabyte would count as 350,000 tokens otherwise."""
    assert input_tokens([HumanMessage([block])], [], len) < 20


@pytest.mark.parametrize("kind", [["image"], {"a": 1}, None, 5])
def test_a_block_with_an_odd_type_is_counted(kind: Any) -> None:
    """A type that is no text is none that is known."""
    assert input_tokens([HumanMessage([{"type": kind, "text": "Hi"}])], [], len) == 3 + 3 + len("user" + "Hi")


def test_a_call_that_is_a_block_too_counts_once() -> None:
    """Anthropic's messages have their calls in both places."""
    block = {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Zürich"}}
    both = AIMessage([{"type": "text", "text": "Look:"}, block], tool_calls=[CALL])
    assert input_tokens([both], [], len) == input_tokens([AIMessage("Look:", tool_calls=[CALL])], [], len)


def test_blocks_without_end_are_counted() -> None:
    """A hostile block that is nested deeply is counted to a depth, and costs no stack."""
    block: Any = "deep"
    for _ in range(5_000):
        block = {"type": "x", "inner": [block]}
    assert input_tokens([HumanMessage([block])], [], len) == 3 + 3 + len("user")


@pytest.mark.skipif(not all_streams(), reason="no genuine provider streams")
def test_the_rule_is_near_genuine_answers() -> None:
    """In the middle, a genuine answer is estimated at four fifths of what its provider counted."""
    ratios = [ratio for ratio in map(estimate_of, all_streams()) if ratio is not None]
    assert len(ratios) > 50
    assert 0.7 < median(ratios) < 1.0


def estimate_of(stream: Stream) -> float | None:
    """Return the estimate for the text that arrived, as a share of the reported output; None without one."""
    ends = {
        "/chat/completions": "openai.chat",
        "/v1/messages": "anthropic.messages",
        "responses": "openai.responses",
    }
    wire = next((wire for end, wire in ends.items() if stream.path.endswith(end)), "gemini.generate_content")
    translator = translator_of(wire, stream.request)
    if translator is None or stream.status != 200:
        return None
    frames = translator.framing.splitter().feed(stream.body)
    text = "".join(
        delta.text for frame in frames for delta in translator.decode(frame) if delta.kind in GENERATED
    )
    usage = translator.reply.usage
    return rule_of_thumb(text) / usage["output_tokens"] if usage and usage["output_tokens"] else None
