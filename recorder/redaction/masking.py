"""What of a run must not be stored: the credentials of its request, wherever somebody repeats them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from time import monotonic
from typing import Any
from urllib.parse import quote, quote_plus

from recorder.core.escaping import escape_json
from recorder.core.json import dumps
from recorder.redaction.credentials import (
    MASK,
    Found,
    mask_urls,
    may_hold_secrets,
    secrets_of_request,
    without_secrets,
)

log = logging.getLogger("recorder")

#: Where the SDKs look for their keys.
_VARIABLES = (
    "OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN", "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
)  # fmt: skip
#: Shorter values are looked for only where they have a digit: local servers take "any", "ollama", "not-needed", and
#: these words stand elsewhere too.
_SHORTEST, _LONG = 8, 16
#: How many credentials that were sent are masked in the next runs of the same client, too.
_REMEMBERED = 8
#: In the metadata of a run: where something was dropped or masked.
NOTE = "recorder_masked"


class Mask:
    """The credentials of one run, and where they were found. Of the application's thread and the writer's."""

    __slots__ = ("_forms", "_metadata", "_noted", "_sent", "_values", "places")

    def __init__(self, values: Iterable[str] = (), sent: list[str] | None = None) -> None:
        #: What was sent last by the same client: keys that a function gives are not known before.
        self._sent = sent
        self._values, self._forms = _looked_for((*values, *(sent or ())[:], *_of_the_environment()))
        #: The metadata as the application gave them, and how many places the stored ones name.
        self._metadata: Mapping[str, Any] | None = None
        self._noted = 0
        #: "metadata.api_key", "request.mcp_servers.0.authorization_token", "frames", "error_message".
        self.places: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Mask({len(self._values)} values)"

    def learn(self, values: Iterable[str]) -> None:
        """Mask these from now on."""
        if new := tuple(value for value in values if value not in self._values):
            self._values, self._forms = _looked_for((*self._values, *new))

    def learn_request(self, request: Any) -> None:
        """Mask the credentials that an HTTP request carried."""
        try:
            found = secrets_of_request(request)
            self.learn(found)
            if self._sent is not None:
                self._sent += [text for text in found if text not in self._sent]
                del self._sent[:-_REMEMBERED]
        except Exception as error:  # another library's request; recording goes on
            log.debug("The credentials of a request are not known: %r", error)

    def note(self, place: str, texts: Iterable[str] = ()) -> None:
        """Something was taken out of there: say so, and mask it elsewhere too."""
        if place not in self.places:
            self.places = (*self.places, place)
        self.learn(texts)

    # -- what is stored -----------------------------------------------------------------------------------------

    def text(self, text: str, place: str) -> str:
        """The text with the credentials in it masked, and the passwords of its URLs."""
        return self._replaced(mask_urls(text), text, place)

    def json(self, value: Any, place: str) -> str:
        """The value as JSON text, without what stands under the name of a credential."""
        text = dumps(value)
        if may_hold_secrets(text):
            found: list[Found] = []
            value = without_secrets(value, place, found)
            for each in found:
                self.note(*each)
            text = dumps(value)
        text = escape_json(value, text)
        return self._replaced(text, text, place)

    def metadata(self, given: Mapping[str, Any] | None) -> str | None:
        """The metadata as JSON text, with a note of where something was dropped or masked."""
        self._metadata = given
        text = self.json(given, "metadata") if given else None
        self._noted = len(self.places)
        if not self.places:
            return text
        note = f"{dumps(NOTE)}:{dumps(list(self.places))}}}"
        return f"{text[:-1]},{note}" if text and text != "{}" else "{" + note

    def new_metadata(self) -> str | None:
        """The metadata once more where something was masked since; None where nothing was."""
        return self.metadata(self._metadata) if len(self.places) > self._noted else None

    def may_be_in(self, text: str) -> bool:
        """Whether there can be anything in the text that `text` would mask: a credential, or a part of a URL."""
        return "://" in text or "=" in text or any(form in text for form in self._forms[0])

    def is_in(self, frames: bytes) -> bool:
        """Whether there is a credential in these frames."""
        return any(form in frames for form in self._forms[1])

    def frames(self, frames: Sequence[bytes]) -> list[bytes]:
        """The frames with the credentials in them masked."""
        self.note("frames")
        return [_without(frame, self._forms[1], MASK.encode()) for frame in frames]

    def _replaced(self, text: str, before: str, place: str) -> str:
        text = _without(text, self._forms[0], MASK)
        if text != before:
            self.note(place)
        return text


def _without(text: Any, forms: Sequence[Any], mask: Any) -> Any:
    for form in forms:
        if form in text:
            text = text.replace(form, mask)
    return text


_Forms = tuple[tuple[str, ...], tuple[bytes, ...]]
#: The credentials in the environment, and until when they are not looked up again (seconds).
_environment: tuple[float, tuple[str, ...]] = (0.0, ())
_LOOKED_UP_EVERY = 1.0


def _of_the_environment() -> tuple[str, ...]:
    global _environment
    until, found = _environment
    if (now := monotonic()) >= until:
        found = tuple(filter(None, map(os.environ.get, _VARIABLES)))
        _environment = now + _LOOKED_UP_EVERY, found
    return found


@lru_cache(maxsize=256)
def _looked_for(values: tuple[object, ...]) -> tuple[frozenset[str], _Forms]:
    """The values that are worth looking for, and how they are written in texts, JSON and URLs.

    The longest first: one may be a part of another.
    """
    found = frozenset(value for value in values if isinstance(value, str) and _is_telling(value))
    forms = {form for value in found for form in _written(value)}
    ordered = sorted(forms, key=lambda form: (-len(form), form))
    return found, (tuple(ordered), tuple(form.encode("utf-8", "surrogatepass") for form in ordered))


def _is_telling(value: str) -> bool:
    return len(value) >= _LONG or (len(value) >= _SHORTEST and any(map(str.isdigit, value)))


def _written(value: str) -> Iterable[str]:
    plain = value.encode("utf-8", "replace").decode()
    in_json = dumps(value)[1:-1]
    return value, in_json, in_json.replace("/", "\\/"), quote(plain, safe=""), quote(plain), quote_plus(plain)
