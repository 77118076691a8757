"""Credentials: found by the name under which a value stands, and by the value itself; masked or dropped.

Names are compared without case and separators in between (`x-api-key`, `apiKey` and `API_KEY` are the same). Words of
language models that only look like credentials (`max_tokens`, `stop_token`, `prompt_cache_key`) are none.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import unquote, unquote_plus

from recorder.core.json import dumps, loads

#: What stands in the place of a credential.
MASK = "***"

#: The last word of a name whose value is a credential, alone or at the end of a longer word ("clientsecret").
_ENDS = (
    "password", "passwd", "passphrase", "pwd", "secret", "credential", "authorization", "bearer", "cookie", "jwt",
    "apikey", "accesskey", "secretkey", "privatekey", "authtoken", "accesstoken", "refreshtoken", "bearertoken",
    "sessiontoken", "apitoken", "idtoken", "adtoken",
)  # fmt: skip
#: Names whose value holds credentials under names of its own: HTTP headers, whose names are anybody's.
_HEADERS = frozenset(("header", "headers"))
#: Words before `key` that make it a credential; `cache_key`, `sort_key` and `public_key` are none.
_KEYS = frozenset((
    "api", "access", "account", "admin", "anthropic", "auth", "authentication", "azure", "client", "encryption",
    "function", "functions", "gemini", "google", "hmac", "license", "llm", "master", "openai", "private", "provider",
    "secret", "server", "service", "session", "shared", "signing", "ssh", "subscription", "x",
))  # fmt: skip
#: Words before `token` that make it a word of the model or the mark of a page; with any other it is a credential.
_NO_TOKENS = frozenset((
    "bos", "budget", "cls", "continuation", "end", "eos", "first", "image", "last", "mask", "max", "min", "new", "next",
    "pad", "page", "per", "prompt", "sep", "special", "start", "stop", "text", "thinking", "unk",
))  # fmt: skip
#: Words before `tokens` that make them credentials; all other tokens are counted or are text.
_TOKENS = frozenset(("access", "api", "auth", "bearer", "id", "refresh", "session"))
#: Words at the end that do not change what it is; numbers neither.
_SUFFIXES = frozenset(("base", "plain", "raw", "str", "string", "value"))
#: In the query of a URL these are credentials too: Google's, Azure's and Amazon's.
_OF_QUERIES = frozenset(("code", "key", "sig", "signature"))

#: Longer ones are no names (characters).
_LONGEST_NAME = 100
#: Names that were looked at before; keys of applications are always the same ones.
_names: dict[str, bool] = {}
_MOST_NAMES = 4096
#: Keys of JSON schemas whose keys are names of arguments: what stands under them are descriptions.
_SCHEMAS = frozenset(("properties", "patternProperties", "$defs", "definitions"))

#: One of these is in every name of a credential.
_HINTS = (
    "key", "token", "secret", "pass", "pwd", "auth", "cookie", "credential", "header", "jwt", "bearer",
)  # fmt: skip
_LIMITS = re.compile(r'"(?:ls_)?(?:max|budget)(?:_\w+)?_tokens"')

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_USER_INFO = re.compile(r"(?<=://)([^\s/?#@:\"'<>]*):([^\s/\"'<>]*)@")
_PARAMETER = re.compile(r"(?<=[?&])([^\s?&=\"'<>#]+)=([^\s&\"'<>#]+)")


def is_secret_name(name: str) -> bool:
    """Whether what stands under this name is a credential."""
    if (known := _names.get(name)) is None:
        known = len(name) <= _LONGEST_NAME and _says_secret(name)
        if len(_names) < _MOST_NAMES:
            _names[name] = known
    return known


def _says_secret(name: str) -> bool:
    words = [word.lower() for word in _WORDS.findall(name)]
    while words and (words[-1].isdigit() or words[-1] in _SUFFIXES):
        words.pop()
    if not words:
        return False
    *before, last = words
    if last in ("key", "keys"):
        return bool(before) and (before[-1] in _KEYS or _ends(f"{before[-1]}key"))
    if last == "token":
        return not (before and before[-1] in _NO_TOKENS)
    if last == "tokens":
        return bool(before) and before[-1] in _TOKENS
    return last in _HEADERS or last == "auth" or _ends(last)


def _ends(word: str) -> bool:
    return word.removesuffix("s").endswith(_ENDS)


def mask_urls(text: str) -> str:
    """The text with the passwords, keys and tokens of the URLs in it masked."""
    if "://" in text:
        text = _USER_INFO.sub(rf"\1:{MASK}@", text)
    return _PARAMETER.sub(_masked_parameter, text) if "=" in text else text


def _masked_parameter(found: re.Match[str]) -> str:
    return f"{found[1]}={MASK}" if is_secret_of_query(unquote(found[1])) else found[0]


def is_secret(name: object, value: object) -> bool:
    """Whether a value is a credential by its name; a switch is none, and neither is a number of tokens."""
    if not isinstance(name, str) or value is None or isinstance(value, bool) or value in ("", b"", MASK):
        return False
    return is_secret_name(name) and not (isinstance(value, (int, float)) and "token" in name.lower())


class Found(NamedTuple):
    """Something that was dropped or masked."""

    #: Where it stood: "request.mcp_servers.0.authorization_token".
    place: str
    #: What must not stand elsewhere either.
    texts: list[str]


def without_secrets(value: Any, place: str, found: list[Found]) -> Any:
    """The value without what stands under the name of a credential, and with the URLs in it masked.

    It is the same object where there is nothing of the kind, else a copy in plain JSON. What was taken out is appended
    to `found`.
    """
    text = dumps(value)
    if not may_hold_secrets(text):
        return value
    before = len(found)
    copy = [loads(text)]
    unread: list[tuple[Any, str, bool]] = [(copy, place, False)]
    while unread:
        container, here, is_schema = unread.pop()
        for key, entry in list(container.items() if isinstance(container, dict) else enumerate(container)):
            at = here if container is copy else f"{here}.{key}"
            if not is_schema and is_secret(key, entry):
                found.append(Found(at, list(secrets_in(key, entry))))
                del container[key]
            elif isinstance(entry, (dict, list)):
                unread.append((entry, at, key in _SCHEMAS))
            elif isinstance(entry, str) and (shown := mask_urls(entry)) != entry:
                found.append(Found(at, secrets_of_urls(entry)))
                container[key] = shown
    return copy[0] if len(found) > before else value


def may_hold_secrets(json: str) -> bool:
    """Whether JSON text is worth looking at: every request and all metadata come through here."""
    if ("@" in json and "://" in json) or ("=" in json and ("?" in json or "&" in json)):
        return True
    lower = json.lower()
    if "token" in lower:
        lower = _LIMITS.sub("", lower)
    for hint in _HINTS:  # noqa: SIM110  # a generator takes three times as long
        if hint in lower:
            return True
    return False


def secrets_in(name: str, value: Any) -> Iterator[str]:
    """The texts in what stood under the name of a credential, as they may be repeated elsewhere.

    All of them, but of HTTP headers only the credentials: `application/json` must not be masked.
    """
    is_headers = name.lower().endswith(("header", "headers")) and isinstance(value, dict)
    unread = [entry for key, entry in value.items() if is_secret(key, entry)] if is_headers else [value]
    while unread:
        each = unread.pop()
        if isinstance(each, str):
            yield from _parts_of(each)
        elif isinstance(each, (dict, list)):
            unread += each.values() if isinstance(each, dict) else each


def _parts_of(value: str) -> Iterator[str]:
    scheme, _, rest = value.partition(" ")
    if rest and scheme.lower() in ("bearer", "basic", "token", "apikey"):
        value = rest.strip()
    yield value
    if scheme.lower() == "basic":
        yield from _password_of(value)


def _password_of(basic: str) -> Iterator[str]:
    try:
        yield base64.b64decode(basic, validate=True).decode().partition(":")[2]
    except ValueError:
        return  # no user and password


def secrets_of_request(request: Any) -> list[str]:
    """The credentials that an HTTP request carried, in its headers and its URL; none of what is no request."""
    headers = [(name, value) for name, value in request.headers.items() if is_secret(name, value)]
    found = [text for name, value in headers for text in secrets_in(name, value)]
    return [*found, *secrets_of_urls(str(request.url))]


def secrets_of_urls(text: str) -> list[str]:
    """The passwords of the URLs in a text, and the credentials in their queries."""
    found = [each[2] for each in _USER_INFO.finditer(text)] if "://" in text else []
    found += [each[2] for each in _PARAMETER.finditer(text) if is_secret_of_query(unquote(each[1]))]
    return [*found, *map(unquote, found), *map(unquote_plus, found)]


def is_secret_of_query(name: str) -> bool:
    """Whether a word of a URL's query is a credential."""
    plain = name.lower()
    return plain in _OF_QUERIES or plain.startswith("x-amz-") or is_secret_name(name)
