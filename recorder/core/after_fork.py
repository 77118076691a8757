"""Protects the parent's connections and streams from a forked child.

A child has copies of the parent's objects and file descriptors. If it used one of these sockets, or removed one from
the parent's event loop (epoll), the parent would see the effect.
"""

from __future__ import annotations

import os
import weakref
from contextlib import suppress
from typing import Any

_sockets: weakref.WeakSet[Any] = weakref.WeakSet()
_never_finalized: list[object] = []


def never_finalize(*objects: object) -> None:
    """Prevent finalization of these objects, also at interpreter exit: their finalizers use the connection."""
    _never_finalized.extend(objects)
    with suppress(ImportError):
        import ctypes

        for each in objects:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(each))


def detach_in_children(transport: Any) -> None:
    """Detach the socket of this asyncio transport in every child that is forked from now on."""
    _sockets.add(transport)


def _close_sockets() -> None:
    """In a child: point the descriptors of the parent's sockets to /dev/null.

    They are not closed. A closed descriptor would be reused for another file, and the copies of the parent's objects
    would write to that file.
    """
    for transport in list(_sockets):
        descriptor = _descriptor_of(transport)
        if descriptor >= 0:
            never_finalize(transport)
            devnull = os.open(os.devnull, os.O_RDWR)
            os.dup2(devnull, descriptor, inheritable=False)
            os.close(devnull)
    _sockets.clear()


def _descriptor_of(transport: Any) -> int:
    socket = transport.get_extra_info("socket")
    return -1 if socket is None else int(socket.fileno())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_sockets)
