"""Finds credentials by the name of their field or URL parameter, and masks or removes them.

Case and separators of a name do not matter: `x-api-key`, `apiKey` and `API_KEY` are the same. Names of language models
that only look like credentials (`max_tokens`, `stop_token`, `prompt_cache_key`) are not treated as credentials.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import unquote, unquote_plus

from recorder.core.json import dumps, loads

#: Replaces a credential.
MASK = "***"

#: A name whose last word is or ends with one of these names a credential ("secret", "clientsecret").
_ENDS = (
    "password", "passwd", "passphrase", "pwd", "secret", "credential", "authorization", "bearer", "cookie", "jwt",
    "apikey", "accesskey", "secretkey", "privatekey", "authtoken", "accesstoken", "refreshtoken", "bearertoken",
    "sessiontoken", "apitoken", "idtoken", "adtoken",
)  # fmt: skip
#: Names of HTTP headers as a whole: any header may carry a credential, under any name.
_HEADERS = frozenset(("header", "headers"))
#: With one of these before it, `key` is a credential. `cache_key`, `sort_key` and `public_key` are not.
_KEYS = frozenset((
    "api", "access", "account", "admin", "anthropic", "auth", "authentication", "azure", "client", "encryption",
    "function", "functions", "gemini", "google", "hmac", "license", "llm", "master", "openai", "private", "provider",
    "secret", "server", "service", "session", "shared", "signing", "ssh", "subscription", "x",
))  # fmt: skip
#: With one of these before it, `token` is a word of the model or a page marker. All others are credentials.
_NO_TOKENS = frozenset((
    "bos", "budget", "cls", "continuation", "end", "eos", "first", "image", "last", "mask", "max", "min", "new", "next",
    "pad", "page", "per", "prompt", "sep", "special", "start", "stop", "text", "thinking", "unk",
))  # fmt: skip
#: With one of these before it, `tokens` are credentials. All others are counts or text.
_TOKENS = frozenset(("access", "api", "auth", "bearer", "id", "refresh", "session"))
#: Words at the end of a name that are ignored, as numbers are.
_SUFFIXES = frozenset(("base", "plain", "raw", "str", "string", "value"))
#: More names of credentials in the query of a URL: those of Google, Azure and Amazon.
_QUERY_NAMES = frozenset(("code", "key", "sig", "signature"))

#: Characters. A longer key is not a name.
_LONGEST_NAME = 100
#: Cache: name -> whether it names a credential. An application uses the same keys again and again.
_names: dict[str, bool] = {}
_MOST_NAMES = 4096
#: Keys of a JSON schema whose own keys are argument names. The values below them are descriptions, not credentials.
_SCHEMAS = frozenset(("properties", "patternProperties", "$defs", "definitions"))

#: Every name of a credential contains one of these.
_HINTS = (
    "key", "token", "secret", "pass", "pwd", "auth", "cookie", "credential", "header", "jwt", "bearer",
)  # fmt: skip
_LIMITS = re.compile(r'"(?:ls_)?(?:max|budget)(?:_\w+)?_tokens"')

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_USER_INFO = re.compile(r"(?<=://)([^\s/?#@:\"'<>]*):([^\s/\"'<>]*)@")
_PARAMETER = re.compile(r"(?<=[?&])([^\s?&=\"'<>#]+)=([^\s&\"'<>#]+)")


def is_secret_name(name: str) -> bool:
    """Whether a value with this name is a credential."""
    if (known := _names.get(name)) is None:
        known = len(name) <= _LONGEST_NAME and _names_secret(name)
        if len(_names) < _MOST_NAMES:
            _names[name] = known
    return known


def _names_secret(name: str) -> bool:
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
    """The text with passwords, keys and tokens masked in the URLs that it contains."""
    if "://" in text:
        text = _USER_INFO.sub(rf"\1:{MASK}@", text)
    return _PARAMETER.sub(_masked_parameter, text) if "=" in text else text


def _masked_parameter(found: re.Match[str]) -> str:
    return f"{found[1]}={MASK}" if is_secret_of_query(unquote(found[1])) else found[0]


def is_secret(name: object, value: object) -> bool:
    """Whether a value is a credential, judged by its name. A bool is not, and a number of tokens is not."""
    if not isinstance(name, str) or value is None or isinstance(value, bool) or value in ("", b"", MASK):
        return False
    return is_secret_name(name) and not (isinstance(value, (int, float)) and "token" in name.lower())


class MaskedValue(NamedTuple):
    """A value that was removed or masked."""

    #: Its path: "request.mcp_servers.0.authorization_token".
    place: str
    #: The credentials in it, which must be masked in all other places too.
    texts: list[str]


def without_secrets(value: Any, place: str, masked: list[MaskedValue]) -> Any:
    """The value without the fields that are credentials by their name, and with the URLs in it masked.

    A value without credentials is returned as it is, any other as a copy in plain JSON. Each removed or masked value is
    appended to `masked`. `place` is the path of the value itself.
    """
    text = dumps(value)
    if not may_hold_secrets(text):
        return value
    before = len(masked)
    copy = [loads(text)]
    unread: list[tuple[Any, str, bool]] = [(copy, place, False)]
    while unread:
        container, here, is_schema = unread.pop()
        for key, entry in list(container.items() if isinstance(container, dict) else enumerate(container)):
            at = here if container is copy else f"{here}.{key}"
            if not is_schema and is_secret(key, entry):
                masked.append(MaskedValue(at, list(secrets_in(key, entry))))
                del container[key]
            elif isinstance(entry, (dict, list)):
                unread.append((entry, at, key in _SCHEMAS))
            elif isinstance(entry, str) and (shown := mask_urls(entry)) != entry:
                masked.append(MaskedValue(at, secrets_of_urls(entry)))
                container[key] = shown
    return copy[0] if len(masked) > before else value


def shown(value: Any, length: int = 80) -> str:
    """The beginning of a value's `repr` for an error message, without credentials."""
    return repr(without_secrets([value], "", [])[0])[:length]


def may_hold_secrets(json: str) -> bool:
    """A fast check whether JSON text may hold credentials. It runs for every request and all metadata."""
    if ("@" in json and "://" in json) or ("=" in json and ("?" in json or "&" in json)):
        return True
    lower = json.lower()
    if "token" in lower:
        lower = _LIMITS.sub("", lower)
    for hint in _HINTS:  # noqa: SIM110  # a generator is three times as slow
        if hint in lower:
            return True
    return False


def secrets_in(name: str, value: Any) -> Iterator[str]:
    """The texts in a value with the name of a credential; other places may repeat them.

    Of a dict of HTTP headers only the credentials: `application/json` must not be masked.
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
        return  # not a user and a password


def secrets_of_request(request: Any) -> list[str]:
    """The credentials in the headers and the URL of an HTTP request. Raises `AttributeError` for other objects."""
    headers = [(name, value) for name, value in request.headers.items() if is_secret(name, value)]
    found = [text for name, value in headers for text in secrets_in(name, value)]
    return [*found, *secrets_of_urls(str(request.url))]


def secrets_of_urls(text: str) -> list[str]:
    """The passwords and the query credentials of the URLs in a text, as written and URL-decoded."""
    found = [each[2] for each in _USER_INFO.finditer(text)] if "://" in text else []
    found += [each[2] for each in _PARAMETER.finditer(text) if is_secret_of_query(unquote(each[1]))]
    return [*found, *map(unquote, found), *map(unquote_plus, found)]


def is_secret_of_query(name: str) -> bool:
    """Whether a parameter of a URL's query is a credential, judged by its name."""
    plain = name.lower()
    return plain in _QUERY_NAMES or plain.startswith("x-amz-") or is_secret_name(name)
