"""Sockets that notice when the other side is gone without a word: a cable, a firewall, a machine without power."""

from __future__ import annotations

import socket
from typing import Any

#: Seconds of silence until the kernel asks whether the other side is there, and between such questions; their number.
_IDLE, _INTERVAL, _COUNT = 30, 10, 3


def notice_silence(found: Any, seconds: float) -> None:
    """End a connection on which nothing is acknowledged for so long, or that is silent and does not answer the kernel.

    Where the system has such options, and only over a network.
    """
    if found is None or found.family not in (socket.AF_INET, socket.AF_INET6):
        return
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {
        "TCP_KEEPIDLE": _IDLE,
        "TCP_KEEPINTVL": _INTERVAL,
        "TCP_KEEPCNT": _COUNT,
        "TCP_USER_TIMEOUT": round(seconds * 1000),
    }
    for name, value in options.items():
        if (option := getattr(socket, name, None)) is not None:
            found.setsockopt(socket.IPPROTO_TCP, option, value)
