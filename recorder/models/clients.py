"""A model's SDK clients, and the HTTP connections below them, which outlive the model.

Making an HTTP client takes 25 ms (it reads the certificates) and a new connection to a provider takes several
round trips, and many applications make a model for each request: so there is one pool of connections for all
threads, and one for each event loop, because a connection is of no use in another.
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

from recorder.models.connections import lenient
from recorder.redaction.credentials import is_secret, is_secret_of_query, secrets_in, secrets_of_urls


class Clients:
    """What a provider's SDK offers for synchronous code, on any thread, and on each event loop."""

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
        #: The SDK's module, and the names of its synchronous and asynchronous client in it.
        self._sdk = sdk
        self._name, self._async_name = names
        self._options = dict(options)
        #: Options that only the asynchronous client takes, on top of the others.
        self._async_options = {**options, **(async_only or {})}
        self._given, self._given_async = http_client, http_async_client
        #: The credentials that were sent last: those of a function are not known before.
        self.sent: list[str] = []
        #: The HTTP client and the SDK's on top of it.
        self._held: tuple[Any, Any] | None = None

    def over(
        self, http_client: Any, http_async_client: Any, changed: Callable[[Any], dict[str, Any]]
    ) -> Clients:
        """The same clients on top of these HTTP clients, with their options changed."""
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
        """The SDK's module, loaded when it is needed."""
        return import_module(self._sdk)

    @cached_property
    def host(self) -> str:
        """Host and port that requests go to, without user and password; the SDK's default where none is given."""
        given = self._options.get("base_url") or self._options.get("azure_endpoint")
        variable = "AZURE_OPENAI_ENDPOINT" if self._name.startswith("Azure") else "OPENAI_BASE_URL"
        url = given or os.environ.get(variable) or ""
        return urlsplit(str(url)).netloc.rpartition("@")[2] or self._sdk

    @cached_property
    def secrets(self) -> tuple[str, ...]:
        """The credentials among the options: keys, and what headers, the query and the URL hold of them."""
        options = {**self._options, **self._async_options}
        given = [getattr(http, "headers", None) for http in (self._given, self._given_async)]
        headers = {f"of_client_{number}": dict(each) for number, each in enumerate(given) if each}
        return tuple(secrets_sent({**options, **headers}))

    def here(self) -> Any:
        """The client for synchronous code. Raises what the SDK says about a missing key."""
        http = _threads_http(self._sdk) if self._given is None else self._given
        # After a fork there is another HTTP client.
        if self._held is None or self._held[0] is not http:
            self._held = http, getattr(self.sdk, self._name)(**self._options, http_client=http)
        return self._held[1]

    def on_loop(self) -> Any:
        """The client for the running event loop."""
        here = _here(asyncio.get_running_loop())
        client = here.clients.get(self)
        if client is None:
            http = here.http(self._sdk) if self._given_async is None else self._given_async
            client = getattr(self.sdk, self._async_name)(**self._async_options, http_client=http)
            here.clients[self] = client
        return client


def secrets_sent(options: Mapping[str, Any]) -> Iterator[str]:
    """The credentials in options of an SDK's client or call. What is a function is not called."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            for key, each in value.items():
                if is_secret(key, each) or ("query" in name and is_secret_of_query(key)):
                    yield from secrets_in(key, each)
        elif is_secret(name, value):
            yield from secrets_in(name, value)
        elif name == "base_url":
            yield from secrets_of_urls(str(value))


class _Loop:
    """What belongs to one event loop and goes with it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._http: dict[str, tuple[Any, Any]] = {}
        #: The SDK's client of each model.
        self.clients: weakref.WeakKeyDictionary[Clients, Any] = weakref.WeakKeyDictionary()

    def http(self, sdk: str) -> Any:
        """The HTTP client that all models of an SDK share here, closed when the loop ends.

        It is the SDK's own over aiohttp: a paced stream costs it less than half of what the default one takes.
        """
        if sdk not in self._http:
            http = lenient(import_module(sdk).DefaultAioHttpClient)()
            self._http[sdk] = http, _begun(_closed_with_its_loop(self._loop, http))
        return self._http[sdk][0]


_lock = threading.Lock()
#: SDK -> the HTTP client of all threads.
_threads: dict[str, Any] = {}
_loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Loop] = weakref.WeakKeyDictionary()
#: After a fork: clients whose connections are the parent's.
_inherited: list[Any] = []


def _threads_http(sdk: str) -> Any:
    with _lock:
        if sdk not in _threads:
            _threads[sdk] = import_module(sdk).DefaultHttpxClient()
        return _threads[sdk]


def _here(loop: asyncio.AbstractEventLoop) -> _Loop:
    held = _loops.get(loop)
    if held is None:
        with _lock:
            # What is held knows its loop, so one that closed without ending its generators would be kept for ever.
            for ended in [other for other in _loops if other.is_closed()]:
                del _loops[ended]
            held = _loops.setdefault(loop, _Loop(loop))
    return held


async def _closed_with_its_loop(loop: asyncio.AbstractEventLoop, http: Any) -> AsyncGenerator[None, None]:
    """A generator that is left in its middle: every loop ends those before it closes."""
    try:
        yield
    finally:
        with _lock:
            _loops.pop(loop, None)
        await http.aclose()


def _begun(generator: AsyncGenerator[None, None]) -> AsyncGenerator[None, None]:
    """The generator at its first `yield`, which it reaches without waiting; now its loop knows it."""
    try:
        generator.asend(None).send(None)
    except StopIteration:
        pass  # how an asynchronous generator hands over a value
    return generator


def _close() -> None:
    for http in _threads.values():
        http.close()


def _forget_after_fork() -> None:
    """Two processes must not talk on one connection; and closing it here would end it for the parent."""
    global _lock
    _lock = threading.Lock()
    _inherited.append((dict(_threads), dict(_loops)))
    _threads.clear()
    _loops.clear()


atexit.register(_close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
