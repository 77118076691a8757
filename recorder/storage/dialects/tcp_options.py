"""Socket options that detect a peer which disappeared without closing: a cut cable, a firewall, a power loss."""

from __future__ import annotations

import socket
from typing import Any

#: Keepalive probes: idle seconds before the first one, seconds between two, and their number.
_IDLE, _INTERVAL, _COUNT = 30, 10, 3


def notice_silence(connection: Any, seconds: float) -> None:
    """Let the kernel end a connection whose peer acknowledges nothing for `seconds`, or answers no keepalive probe.

    Only for TCP sockets, with the options that the system has.
    """
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {
        "TCP_KEEPIDLE": _IDLE,
        "TCP_KEEPINTVL": _INTERVAL,
        "TCP_KEEPCNT": _COUNT,
        "TCP_USER_TIMEOUT": round(seconds * 1000),
    }
    for name, value in options.items():
        if (option := getattr(socket, name, None)) is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
