"""The SDK clients of a model, and the pools of HTTP connections that all models share.

Many applications make a model for each request. Making an HTTP client takes 25 ms (it reads the certificates), and a
new connection to a provider takes several round trips. So one pool serves all threads. Each event loop has a pool of
its own, because asyncio binds a connection to its event loop.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from functools import cached_property
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from recorder.models.aiohttp_client import tolerant
from recorder.redaction.credentials import is_secret, is_secret_of_query, secrets_in, secrets_of_urls
from recorder.runs.naming_headers import split_headers


class Clients:
    """The SDK's clients of one model: one for synchronous code on all threads, and one for each event loop."""

    def __init__(
        self,
        sdk: str,
        names: tuple[str, str],
        options: Mapping[str, Any],
        *,
        async_only: Mapping[str, Any] | None = None,
        http_client: Any = None,
        http_async_client: Any = None,
    ) -> None:
        #: The name of the SDK's module, and in it the names of the synchronous and the asynchronous client.
        self._sdk = sdk
        self._name, self._async_name = names
        self._options = dict(options)
        #: The conversation and the user that the client's own headers name, as metadata of its runs.
        self.names: dict[str, str] = {}
        if isinstance(headers := options.get("default_headers"), Mapping):
            self._options["default_headers"], self.names = split_headers(headers)
        #: The options of the asynchronous client.
        self._async_options = {**self._options, **(async_only or {})}
        self._given_sync, self._given_async = http_client, http_async_client
        #: The credentials of the last requests. A credential that a function returns is known only after it was sent.
        self.sent: list[str] = []
        #: The HTTP client and the SDK's synchronous client that uses it.
        self._sync_pair: tuple[Any, Any] | None = None

    def with_http_clients(
        self, http_client: Any, http_async_client: Any, changed: Callable[[Any], dict[str, Any]]
    ) -> Clients:
        """A copy that uses these HTTP clients. `changed` makes its options from those of this one."""
        return Clients(
            self._sdk,
            (self._name, self._async_name),
            changed(self._options),
            async_only=changed(self._async_options),
            http_client=http_client,
            http_async_client=http_async_client,
        )

    @property
    def sdk(self) -> Any:
        """The SDK's module, loaded at first use."""
        return import_module(self._sdk)

    @cached_property
    def host(self) -> str:
        """The host and the port that requests go to, without user and password. The SDK's name if no URL is given."""
        given = self._options.get("base_url") or self._options.get("azure_endpoint")
        variable = "AZURE_OPENAI_ENDPOINT" if self._name.startswith("Azure") else "OPENAI_BASE_URL"
        url = given or os.environ.get(variable) or ""
        return urlsplit(str(url)).netloc.rpartition("@")[2] or self._sdk

    @cached_property
    def secrets(self) -> tuple[str, ...]:
        """The credentials in the options: keys, and those in headers, in the query and in the URL."""
        options = {**self._options, **self._async_options}
        given = [getattr(http, "headers", None) for http in (self._given_sync, self._given_async)]
        headers = {f"of_client_{number}": dict(each) for number, each in enumerate(given) if each}
        return tuple(secrets_sent({**options, **headers}))

    def sync_client(self) -> Any:
        """The client for synchronous code. Raises the SDK's error if there is no key."""
        http = _shared_sync_http(self._sdk) if self._given_sync is None else self._given_sync
        # A forked child has a new HTTP client.
        if self._sync_pair is None or self._sync_pair[0] is not http:
            self._sync_pair = http, getattr(self.sdk, self._name)(**self._options, http_client=http)
        return self._sync_pair[1]

    def loop_client(self) -> Any:
        """The client for the running event loop."""
        shared = _clients_of_loop(asyncio.get_running_loop())
        client = shared.clients.get(self)
        if client is None:
            http = shared.http(self._sdk) if self._given_async is None else self._given_async
            client = getattr(self.sdk, self._async_name)(**self._async_options, http_client=http)
            shared.clients[self] = client
        return client


def secrets_sent(options: Mapping[str, Any]) -> Iterator[str]:
    """The credentials in options of an SDK's client or call. Functions that return credentials are not called."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            for key, each in value.items():
                if is_secret(key, each) or ("query" in name and is_secret_of_query(key)):
                    yield from secrets_in(key, each)
        elif is_secret(name, value):
            yield from secrets_in(name, value)
        elif name == "base_url":
            yield from secrets_of_urls(str(value))


def secret_text(key: Any) -> Any:
    """The text of a pydantic `SecretStr`, which LangChain's users pass. Any other value is returned unchanged."""
    return key.get_secret_value() if hasattr(key, "get_secret_value") else key


class _LoopClients:
    """The clients of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._http: dict[str, tuple[Any, Any]] = {}
        #: The clients of a model -> its SDK client on this event loop.
        self.clients: weakref.WeakKeyDictionary[Clients, Any] = weakref.WeakKeyDictionary()

    def http(self, sdk: str) -> Any:
        """The HTTP client that all models of an SDK share on this event loop. It is closed when the loop ends.

        It is the SDK's client over aiohttp: a paced stream takes less than half of the default client's CPU time.
        """
        if sdk not in self._http:
            http = tolerant(import_module(sdk).DefaultAioHttpClient)()
            self._http[sdk] = http, _started(_close_with_loop(self._loop, http))
        return self._http[sdk][0]


_lock = threading.Lock()
#: SDK -> the HTTP client for synchronous code on all threads.
_sync_http: dict[str, Any] = {}
_loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopClients] = weakref.WeakKeyDictionary()
#: In a forked child: clients whose connections are the parent's. They are never closed here.
_inherited: list[Any] = []


def _shared_sync_http(sdk: str) -> Any:
    with _lock:
        if sdk not in _sync_http:
            _sync_http[sdk] = import_module(sdk).DefaultHttpxClient()
        return _sync_http[sdk]


def _clients_of_loop(loop: asyncio.AbstractEventLoop) -> _LoopClients:
    found = _loops.get(loop)
    if found is None:
        with _lock:
            # The clients refer to their loop. So a loop that was closed without `shutdown_asyncgens` would stay in
            # memory for ever.
            for ended in [other for other in _loops if other.is_closed()]:
                del _loops[ended]
            found = _loops.setdefault(loop, _LoopClients(loop))
    return found


async def _close_with_loop(loop: asyncio.AbstractEventLoop, http: Any) -> AsyncGenerator[None, None]:
    """Close the client when the loop ends: `shutdown_asyncgens` closes the generators that are still open."""
    try:
        yield
    finally:
        with _lock:
            _loops.pop(loop, None)
        await http.aclose()


def _started(generator: AsyncGenerator[None, None]) -> AsyncGenerator[None, None]:
    """Run the generator to its first `yield`, so that the loop registers it. It does not wait before that."""
    try:
        generator.asend(None).send(None)
    except StopIteration:
        pass  # this is how an asynchronous generator yields a value
    return generator


def _close() -> None:
    for http in _sync_http.values():
        http.close()


def _forget_after_fork() -> None:
    """Use new connections in a forked child. The parent's stay open, because closing one would end it for both."""
    global _lock
    _lock = threading.Lock()
    _inherited.append((dict(_sync_http), dict(_loops)))
    _sync_http.clear()
    _loops.clear()


atexit.register(_close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
