"""Records the model calls of the whole process: of every client of httpx and httpx2, made before or made later.

The method `send` of the classes is replaced. A library that is not imported yet is replaced when it is imported.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from functools import wraps
from types import ModuleType
from typing import TYPE_CHECKING, Any

from recorder.core.import_hooks import when_imported
from recorder.instrumentation.hosts import Hosts
from recorder.instrumentation.model_calls import endpoint_of
from recorder.instrumentation.send import Sender, recorded_async_send, recorded_send

if TYPE_CHECKING:
    from recorder.chat_history_callback import ChatHistoryCallback

LIBRARIES = ("httpx", "httpx2")
#: The classes of each library, and whether they are asynchronous.
CLIENTS = {"Client": False, "AsyncClient": True}

_lock = threading.RLock()
#: The senders of all attachments. Replaced as a whole, because requests read it without a lock.
_senders: tuple[Sender, ...] = ()
_is_installed = False
_default: ChatHistoryCallback | None = None


def attach_process(handlers: Sequence[Any], hosts: Hosts) -> Callable[[], None]:
    """Record all clients. Returns what ends it. Without handlers the default one is opened at the first model call."""
    global _senders
    sender = Sender(hosts, None if handlers else default_history)
    sender.add(handlers)
    with _lock:
        if not any(_is_alike(sender, other) for other in _senders):
            _senders = (*_senders, sender)
        _install()

    def detach() -> None:
        global _senders
        with _lock:
            _senders = tuple(other for other in _senders if not _is_alike(sender, other))

    return detach


def default_history() -> ChatHistoryCallback:
    """The recorder of the process for applications that made none. Its database is the default one.

    Such a program names no conversations, so they are found by their history.
    """
    global _default
    from recorder.chat_history_callback import ChatHistoryCallback

    with _lock:
        if _default is None or _default.recorder.closed:
            _default = ChatHistoryCallback(thread="history")
        return _default


def _is_alike(one: Sender, other: Sender) -> bool:
    """Whether both record the same hosts for the same handlers."""
    same_handlers = [*map(id, one.handlers)] == [*map(id, other.handlers)]
    return same_handlers and (one.hosts, one.default) == (other.hosts, other.default)


def _install() -> None:
    """Replace the methods, once in the process. Without senders they pass everything through."""
    global _is_installed
    if _is_installed:
        return
    _is_installed = True
    for name in LIBRARIES:
        when_imported(name, _replace)


def _replace(library: ModuleType) -> None:
    for name, is_async in CLIENTS.items():
        kind = getattr(library, name)
        kind.send = (_recorded_async if is_async else _recorded)(kind.send)


def _is_replay(client: Any) -> bool:
    """Whether recorder made this client, which answers from a recording."""
    return getattr(client, "answers_from_recording", False) is True


def _recorded(send: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(send)
    def recorded(client: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        call = send
        if not _senders or endpoint_of(request) is None or _is_replay(client):
            return call(client, request, *args, **kwargs)
        for sender in _senders:
            call = recorded_send(sender, call)
        return call(client, request, *args, **kwargs)

    return recorded


def _recorded_async(send: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(send)
    async def recorded(client: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        call = send
        if not _senders or endpoint_of(request) is None or _is_replay(client):
            return await call(client, request, *args, **kwargs)
        for sender in _senders:
            call = recorded_async_send(sender, call)
        return await call(client, request, *args, **kwargs)

    return recorded


def _renew_lock() -> None:
    """In a forked child: another thread of the parent may have held the lock, for as long as it opened a database."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
