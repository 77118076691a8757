"""Tokens that are held back: under any chunking nothing of a match leaves, and without a match nothing changes."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.recording.held_tokens import HeldTokens
from recorder.redaction.ready_made import READY_MADE
from recorder.redaction.redaction import MatchCounts, Redaction
from recorder.wire.deltas import Delta
from tests.wires import unhurried

SECRETS = (
    "sk-proj-Ab3dEfGhIjKlMnOpQrStUvWx",
    "AKIAIOSFODNN7EXAMPLE",
    "ghp_0123456789abcdefghijABCDEFGHIJ012345",
    "jane.doe+list@mail.example.co.uk",
    "jürgen@müller.de",
    "4111 1111 1111 1111",
    "5555-5555-5555-4444",
    "378282246310005",
    "+49 (30) 1234-5678",
    "(415) 555-2671",
    "DE89 3704 0044 0532 0130 00",
    "GB82WEST12345698765432",
    "192.168.17.4",
    "2001:db8::ff00:42:8329",
)
#: None of these, beside a secret, makes a longer match of it, or none at all.
PLAIN = (
    " ",
    " and ",
    "\n",
    ", ",
    " (see) ",
    "; the quick brown fox ",
    " 17 apples, 3.5 % ",
    " 日本語 ",
    ' "x" ',
)
TEXTS = st.lists(
    st.tuples(st.sampled_from(PLAIN), st.sampled_from((*SECRETS, "", "word", "a.b", "12"))), max_size=6
)
OWN = (
    re.compile(r"(?<!\d)\d{4}(?!\d)"),
    re.compile(r"(?i)project \w+"),
    re.compile(r"\bfoo(?:bar)*\b(?! baz)"),
)


def chunked(text: str, cuts: Sequence[int]) -> list[str]:
    """The text, cut at these places."""
    places = sorted({cut % (len(text) + 1) for cut in cuts})
    return [
        text[start:end] for start, end in zip((0, *places), (*places, len(text)), strict=True) if start < end
    ]


def streamed(redaction: Redaction, chunks: Sequence[str], kind: str = "text") -> list[tuple[int, str]]:
    """The tokens that leave, with their times, of chunks that came at 0, 1, 2 ..."""
    held = HeldTokens(redaction, MatchCounts(redaction))
    found = [token for at, chunk in enumerate(chunks) for token in held.add(Delta(chunk, kind), at)]
    return [(token.at_us, token.text) for token in (*found, *held.finish())]


@unhurried
@given(TEXTS, st.lists(st.integers(0, 500), max_size=40))
def test_no_secret_leaves_under_any_chunking(parts: list[tuple[str, str]], cuts: list[int]) -> None:
    """The joined tokens are what the redaction makes of the text in one piece, and hold no secret."""
    redaction = Redaction([*READY_MADE])
    text = "".join(plain + secret for plain, secret in parts) + "."
    tokens = streamed(redaction, chunked(text, cuts))
    joined = "".join(token for _, token in tokens)
    assert joined == redaction.text(text, MatchCounts(redaction))
    assert [secret for _, secret in parts if secret in SECRETS and secret in joined] == []
    assert [at for at, _ in tokens] == sorted(at for at, _ in tokens)


@unhurried
@given(
    st.text(st.characters(exclude_characters="@0123456789:", codec="utf-8"), max_size=300),
    st.lists(st.integers(0, 300)),
)
def test_without_a_match_nothing_changes(text: str, cuts: list[int]) -> None:
    """Each token leaves as it came, at its own time."""
    chunks = chunked(text, cuts)
    assert streamed(Redaction([*READY_MADE]), chunks) == list(enumerate(chunks))


@unhurried
@given(
    st.lists(
        st.sampled_from(("foo", "bar", "foobar", " baz", "1234", "5", " ", "project x", "PROJ", "ect", "\n")),
        max_size=12,
    ),
    st.lists(st.integers(0, 80), max_size=30),
)
def test_patterns_of_users_match_as_in_one_text(words: list[str], cuts: list[int]) -> None:
    """Under any chunking the tokens are what the patterns make of the text in one piece, also with lookarounds."""
    redaction, text = Redaction(OWN), "".join(words)
    tokens = streamed(redaction, chunked(text, cuts))
    assert "".join(token for _, token in tokens) == redaction.text(text, MatchCounts(redaction))
    for pattern in OWN[:1]:
        assert (
            pattern.search("".join(token for _, token in tokens).replace("[pattern]", "")) is None
            or "[" in text
        )


@unhurried
@given(TEXTS, st.lists(st.integers(0, 900), max_size=40), st.booleans())
def test_streamed_arguments_stay_json(parts: list[tuple[str, str]], cuts: list[int], ascii: bool) -> None:
    """A secret in JSON is found behind escapes, and the arguments can be parsed in any case."""
    redaction = Redaction([*READY_MADE])
    text = "".join(plain + secret for plain, secret in parts)
    escaped = "".join(f"\\u{ord(each):04x}" for each in text)
    arguments = json.dumps(
        {"text": text, "n": 4111111111111111, "k": [1, None, {"y": text}]}, ensure_ascii=ascii
    )
    arguments = arguments[:-1] + f', "e": "{escaped}"}}'
    tokens = streamed(redaction, chunked(arguments, cuts), "tool_args")
    value = json.loads("".join(token for _, token in tokens))
    new = redaction.text(text, MatchCounts(redaction))
    assert value == {"text": new, "n": "[card]", "k": [1, None, {"y": new}], "e": new}


@unhurried
@given(st.text("ab\n Bob", max_size=80), st.lists(st.integers(0, 80)))
def test_a_function_gets_lines(text: str, cuts: list[int]) -> None:
    """A function sees the same lines under any chunking."""
    redaction = Redaction([lambda line: line.replace("Bob", "[a much longer name]")])
    joined = "".join(token for _, token in streamed(redaction, chunked(text, cuts)))
    assert joined == text.replace("Bob", "[a much longer name]")


def test_a_match_has_the_time_of_its_first_token() -> None:
    """Tokens that are a match and nothing else are left out; the others stay as they are."""
    chunks = ["Mail ", "jane", "@", "example", ".com now", ", please"]
    expected = [(0, "Mail "), (1, "[email]"), (4, " now"), (5, ", please")]
    assert streamed(Redaction(["email"]), chunks) == expected


def test_a_match_that_may_be_longer_than_the_window_is_withheld() -> None:
    """Nothing of it leaves, and nothing that follows in its text."""
    redaction = Redaction([re.compile(r"BEGIN.*?END", re.DOTALL)])
    chunks = ["before BEGIN ", *["x" * 50 + "\n"] * 100, " END after"]
    assert "".join(text for _, text in streamed(redaction, chunks)) == "before [withheld]"
    assert redaction.failures == 1


def test_a_pattern_without_end_is_stopped(caplog: pytest.LogCaptureFixture) -> None:
    """A search that takes too long ends, and its text is not stored."""
    redaction = Redaction([re.compile(r"(?:a|aa)+$")])
    texts = [redaction.text("a" * 60 + "b" * number, MatchCounts(redaction)) for number in range(1, 9)]
    assert (texts, redaction.failures) == (["[withheld]"] * 8, 8)
    assert "a pattern took too long" in caplog.text


@pytest.mark.parametrize("function", [lambda _text: 1 / 0, lambda _text: None], ids=["raises", "None"])
def test_a_function_that_fails_stores_nothing(function: object, caplog: pytest.LogCaptureFixture) -> None:
    """The text is withheld, the log says so once, and does not show it."""
    redaction = Redaction([function])  # type: ignore[list-item]
    counts = MatchCounts(redaction)
    assert redaction.text("secret\nagain", counts) == "[withheld][withheld]"
    assert (redaction.failures, counts, len(caplog.records)) == (2, {"withheld": 2}, 1)
    assert "secret" not in caplog.text
