"""What a forked child has of its parent's connections and streams, and must not touch.

A child has copies of the parent's objects and of its file descriptors. Whatever it said over one of these sockets, or
told the parent's event loop to forget, would happen to the parent.
"""

from __future__ import annotations

import os
import weakref
from contextlib import suppress
from typing import Any

_sockets: weakref.WeakSet[Any] = weakref.WeakSet()
_kept: list[object] = []


def keep_for_ever(*objects: object) -> None:
    """Let no garbage collector finalize these, nor the interpreter's end: their finalizers would use the connection."""
    _kept.extend(objects)
    with suppress(ImportError):
        import ctypes

        for each in objects:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(each))


def closed_in_children(transport: Any) -> None:
    """From here on a forked child has no part in the socket of this asyncio transport."""
    _sockets.add(transport)


def _close_sockets() -> None:
    """In a child: the numbers of the parent's sockets lead to nothing.

    Not closed, for a number that is free again would be another file's, which the parent's objects here would write to.
    """
    for transport in list(_sockets):
        number = _number_of(transport)
        if number >= 0:
            keep_for_ever(transport)
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, number, inheritable=False)
            os.close(nothing)
    _sockets.clear()


def _number_of(transport: Any) -> int:
    socket = transport.get_extra_info("socket")
    return -1 if socket is None else int(socket.fileno())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_sockets)
