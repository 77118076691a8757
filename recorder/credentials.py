"""Credentials: found by the name under which a value stands, and by the value itself; masked or dropped.

Names are compared without case and separators in between (`x-api-key`, `apiKey` and `API_KEY` are the same). Words of
language models that only look like credentials (`max_tokens`, `stop_token`, `prompt_cache_key`) are none.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote

#: What stands in the place of a credential.
MASK = "***"

#: The last word of a name whose value is a credential, alone or at the end of a longer word ("clientsecret").
_ENDS = (
    "password", "passwd", "passphrase", "pwd", "secret", "secrets", "credential", "credentials",
    "authorization", "bearer", "cookie", "cookies", "jwt", "apikey", "accesskey", "secretkey", "privatekey",
    "authtoken", "accesstoken", "refreshtoken", "bearertoken", "sessiontoken", "apitoken", "idtoken", "adtoken",
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
_SUFFIXES = frozenset(("base64", "plain", "raw", "str", "string", "value"))
#: In the query of a URL these are credentials too: Google's, Azure's and Amazon's.
_OF_QUERIES = frozenset(("code", "key", "sig", "signature"))

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_USER_INFO = re.compile(r"(?<=://)([^\s/?#@:\"'<>]*):([^\s/\"'<>]*)@")
_PARAMETER = re.compile(r"(?<=[?&;])([^\s?&;=\"'<>#]+)=([^\s&;\"'<>#]+)")


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Whether what stands under this name is a credential."""
    words = [word.lower() for word in _WORDS.findall(name)]
    while words and (words[-1].isdigit() or words[-1] in _SUFFIXES):
        words.pop()
    if not words:
        return False
    *before, last = words
    if last == "key":
        return bool(before) and (before[-1] in _KEYS or _ends(before[-1] + last))
    if last == "token":
        return not (before and before[-1] in _NO_TOKENS)
    if last == "tokens":
        return bool(before) and before[-1] in _TOKENS
    return last in _HEADERS or last == "auth" or _ends(last)


def _ends(word: str) -> bool:
    return word.endswith(_ENDS)


def mask_urls(text: str) -> str:
    """The text with the passwords, keys and tokens of the URLs in it masked."""
    if "://" in text:
        text = _USER_INFO.sub(rf"\1:{MASK}@", text)
    return _PARAMETER.sub(_masked_parameter, text) if "=" in text else text


def _masked_parameter(found: re.Match[str]) -> str:
    name = unquote(found[1])
    is_secret = is_secret_name(name) or name.lower() in _OF_QUERIES or name.lower().startswith("x-amz-")
    return f"{found[1]}={MASK}" if is_secret else found[0]
