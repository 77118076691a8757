"""Texts as attributes may hold them: valid UTF-8, and of limited length."""

from __future__ import annotations

from typing import Any

#: Characters of a name, an id or a message of an error. A backend refuses or cuts longer ones, and a span must not
#: grow without limit.
MAX_TEXT = 1_000


def clean(text: str) -> str:
    """The text without lone surrogates, which cannot be sent: one of them would fail the spans sent with it, too."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def short(value: Any) -> str | None:
    """The value as a text of limited length; None for None."""
    if value is None:
        return None
    text = clean(value if isinstance(value, str) else str(value))
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 3] + "..."
