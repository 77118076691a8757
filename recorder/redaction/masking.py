"""Masks the credentials of a run's request in everything that is stored of the run."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from time import monotonic
from typing import Any
from urllib.parse import quote, quote_plus

from recorder.core.escaping import escape_json, may_need_escape
from recorder.core.json import dumps, loads
from recorder.redaction.credentials import (
    MASK,
    MaskedValue,
    mask_urls,
    may_hold_secrets,
    secrets_of_request,
    without_secrets,
)

log = logging.getLogger("recorder")

#: Environment variables from which the SDKs read their keys.
_VARIABLES = (
    "OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN", "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
)  # fmt: skip
#: Characters. Values of `_LONG` or more are masked, and values of `_SHORTEST` or more if they contain a digit. Keys for
#: local servers are words such as "any", "ollama" or "not-needed", which other texts contain too.
_SHORTEST, _LONG = 8, 16
#: This many credentials of earlier requests of the same client are masked too.
_REMEMBERED = 8
#: Characters. For JSON texts up to this length it is remembered whether they are plain.
_SHORT = 1_000
#: Key in the metadata of a run: the list of places where something was removed or masked.
NOTE = "recorder_masked"


class Mask:
    """The credentials of one run, and where they were found. Used by the application's and the writer's thread."""

    __slots__ = ("_forms", "_given", "_metadata", "_noted", "_sent", "_values", "body", "places")

    def __init__(self, values: Iterable[str] = (), sent: list[str] | None = None) -> None:
        #: Credentials that the same client sent last. A key that a function returns is known only after it was sent.
        self._sent = sent
        self._given = tuple(values)
        self._values, self._forms = _values_and_forms(
            (*self._given, *(sent or ())[:], *_environment_credentials())
        )
        #: The metadata that the application passed, and how many places the stored metadata list.
        self._metadata: Mapping[str, Any] | None = None
        self._noted = 0
        #: "metadata.api_key", "request.mcp_servers.0.authorization_token", "frames", "error_message".
        self.places: tuple[str, ...] = ()
        #: The body of the request while its start is reported: a recorder that redacts makes its hash of it.
        self.body: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        return f"Mask({len(self._values)} values)"

    @property
    def client_hash(self) -> str:
        """A hash of the client's credentials: those that it was given, else those in the environment."""
        values = sorted(set(map(str, self._given or _environment_credentials())))
        return blake2b(dumps(values).encode(), digest_size=16).hexdigest()

    def learn(self, values: Iterable[str]) -> None:
        """Mask these values from now on."""
        if new := tuple(value for value in values if value not in self._values):
            self._values, self._forms = _values_and_forms((*self._values, *new))

    def learn_request(self, request: Any) -> None:
        """Mask the credentials that an HTTP request carried."""
        try:
            found = secrets_of_request(request)
            self.learn(found)
            if self._sent is not None:
                self._sent += [text for text in found if text not in self._sent]
                del self._sent[:-_REMEMBERED]
        except Exception as error:  # an object of another library; recording goes on
            log.debug("Cannot read the credentials of a request: %r", error)

    def learn_error(self, error: BaseException) -> None:
        """Mask the credentials of the HTTP request that an error is about. The provider may repeat them in it."""
        try:
            request = getattr(getattr(error, "response", None), "request", None)
            request = request if request is not None else getattr(error, "request", None)
        except Exception as failure:  # an exception of httpx raises for a request that it does not have
            log.debug("An error has no request: %r", failure)
            return
        if request is not None:
            self.learn_request(request)

    def note(self, place: str, texts: Iterable[str] = ()) -> None:
        """Note that something was masked at this place, and mask these texts in other places too."""
        if place not in self.places:
            self.places = (*self.places, place)
        self.learn(texts)

    # -- what is stored -----------------------------------------------------------------------------------------

    def text(self, text: str, place: str) -> str:
        """The text with the run's credentials and the credentials of URLs masked."""
        return self._replaced(mask_urls(text), text, place)

    def json(self, value: Any, place: str) -> str:
        """The list or mapping as JSON text, without credentials. Of an entry without a JSON form, a text says so."""
        text = dumps(value)
        if text.startswith('"'):
            value = _with_plain_entries(value)
            text = dumps(value)
        if _is_plain(text) if len(text) <= _SHORT else _is_plain.__wrapped__(text):
            return self._replaced(text, text, place)
        if may_hold_secrets(text):
            masked: list[MaskedValue] = []
            value = without_secrets(value, place, masked)
            for each in masked:
                self.note(*each)
            text = dumps(value)
        text = escape_json(value, text)
        return self._replaced(text, text, place)

    def metadata(self, given: Mapping[str, Any] | None) -> str | None:
        """The metadata as JSON text, with the list of places where something was removed or masked."""
        self._metadata = given
        text = self.json(given, "metadata") if given else None
        self._noted = len(self.places)
        if not self.places:
            return text
        note = f"{dumps(NOTE)}:{dumps(list(self.places))}}}"
        return f"{text[:-1]},{note}" if text and text != "{}" else "{" + note

    def extend_metadata(self, more: Mapping[str, Any]) -> None:
        """`new_metadata` has these values, too."""
        self._metadata = {**(self._metadata or {}), **more}

    def new_metadata(self) -> str | None:
        """The metadata again, if something was masked since they were stored; else None."""
        return self.metadata(self._metadata) if len(self.places) > self._noted else None

    def may_be_in(self, text: str) -> bool:
        """A fast check whether `text()` may change the text: it contains a credential, or parts of a URL."""
        if "://" in text or "=" in text:
            return True
        for form in self._forms[0]:  # noqa: SIM110  # a generator is three times as slow
            if form in text:
                return True
        return False

    def is_in(self, frames: bytes) -> bool:
        """Whether these frames contain a credential."""
        return any(form in frames for form in self._forms[1])

    def frames(self, frames: Sequence[bytes]) -> list[bytes]:
        """The frames with the credentials masked."""
        self.note("frames")
        return [self._masked_frame(frame) for frame in frames]

    def _masked_frame(self, frame: bytes) -> bytes:
        for form in self._forms[1]:
            frame = frame.replace(form, MASK.encode())
        return frame

    def _replaced(self, text: str, before: str, place: str) -> str:
        for form in self._forms[0]:
            if form in text:
                text = text.replace(form, MASK)
        if text != before:
            self.note(place)
        return text


def _with_plain_entries(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: loads(dumps(entry)) for key, entry in value.items()}
    return [loads(dumps(entry)) for entry in value]


_Forms = tuple[tuple[str, ...], tuple[bytes, ...]]
#: Cache: the time until which it is valid (seconds, monotonic), and the credentials in the environment.
_environment: tuple[float, tuple[str, ...]] = (0.0, ())
_VALID_FOR = 1.0


def _environment_credentials() -> tuple[str, ...]:
    global _environment
    until, found = _environment
    if (now := monotonic()) >= until:
        found = tuple(filter(None, map(os.environ.get, _VARIABLES)))
        _environment = now + _VALID_FOR, found
    return found


@lru_cache(maxsize=256)  # an application sends the same parameters and metadata with many requests
def _is_plain(json: str) -> bool:
    """Whether JSON text has no name of a credential, no credential in a URL, and nothing that must be escaped."""
    return not (may_hold_secrets(json) or may_need_escape(json))


@lru_cache(maxsize=256)
def _values_and_forms(values: tuple[object, ...]) -> tuple[frozenset[str], _Forms]:
    """The values that are long enough to be masked, and their spellings in texts, JSON and URLs.

    The longest spelling comes first, because one may be a part of another.
    """
    found = frozenset(value for value in values if isinstance(value, str) and _is_maskable(value))
    forms = {form for value in found for form in _spellings(value)}
    ordered = sorted(forms, key=lambda form: (-len(form), form))
    return found, (tuple(ordered), tuple(form.encode("utf-8", "surrogatepass") for form in ordered))


def _is_maskable(value: str) -> bool:
    return len(value) >= _LONG or (len(value) >= _SHORTEST and any(map(str.isdigit, value)))


def _spellings(value: str) -> Iterable[str]:
    plain = value.encode("utf-8", "replace").decode()
    in_json = dumps(value)[1:-1]
    return value, in_json, in_json.replace("/", "\\/"), quote(plain, safe=""), quote(plain), quote_plus(plain)
