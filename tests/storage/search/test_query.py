"""Any text is a query: words, and phrases in quotes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.errors import ConfigError
from recorder.storage.search.query import MAX_QUERY, parsed


def test_words_and_phrases() -> None:
    """Each word is a phrase; quotes hold several together. In scripts without spaces a phrase may begin anywhere."""
    query = parsed('Refund "my  Order" 退款 iPhone手机 foo-bar')
    assert query.phrases == (" refund ", " my order ", "退款", " iphone 手机", " foo bar ")
    assert set(query.words) == {"refund", "my", "order", "退款", "iphone", "手机", "foo", "bar"}


@pytest.mark.parametrize("text", ["", "   ", '"', '""', "!?", "\0", "\ud800", "* OR :", "'"])
def test_a_text_without_words_looks_for_nothing(text: str) -> None:
    """It finds nothing, and is no error."""
    assert parsed(text).words in ((), ("or",))


def test_a_long_query_looks_for_some_of_its_words() -> None:
    """The index gets the longest ones; a longer text than the limit is refused."""
    query = parsed(" ".join(f"word{number}" for number in range(1_000)))
    assert (len(query.phrases), len(query.words)) == (64, 32)
    assert len(parsed("退款" * (MAX_QUERY // 2)).words) <= 32
    with pytest.raises(ConfigError, match="The query has 10,001 characters"):
        parsed("x" * (MAX_QUERY + 1))


@given(st.text(max_size=100))
def test_words_are_plain(text: str) -> None:
    """No word has a character that a database would read as an operator."""
    for word in parsed(text).words:
        assert not set(word) & set(" '\"\\:*&|!()<>\0")
