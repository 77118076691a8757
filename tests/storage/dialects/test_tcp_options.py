"""A connection notices when the other side is gone without closing it."""

from __future__ import annotations

import asyncio
import socket

import pytest

from recorder.storage.dialects import Postgres, parse_url
from recorder.storage.dialects.tcp_options import notice_silence
from tests.faults.proxy import proxy


def options(found: socket.socket) -> list[int]:
    """Whether keepalive is on, and how long the kernel waits for an acknowledgement (milliseconds)."""
    names = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE), (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)]
    return [found.getsockopt(level, name) for level, name in names]


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system has no TCP_USER_TIMEOUT")
@pytest.mark.parametrize(("parameter", "expected"), [("", 30_000), ("?tcp_user_timeout=5000", 5_000)])
def test_a_connection_over_a_network_has_a_time_limit(
    postgres_url: str, parameter: str, expected: int
) -> None:
    """The limit is the timeout of a statement, or `tcp_user_timeout` of the URL."""
    with proxy(postgres_url) as server:
        dialect = Postgres(
            parse_url(server.url.partition("?")[0] + parameter).update_query_dict({"sslmode": "disable"})
        )

        async def story() -> list[int]:
            async with dialect.engine().connect() as connection:
                driver = (await connection.get_raw_connection()).driver_connection
                return options(driver._transport.get_extra_info("socket"))  # type: ignore[union-attr]

        assert asyncio.run(story()) == [1, expected]


def test_a_unix_socket_is_not_changed() -> None:
    """It has no such options. A connection without a socket raises nothing."""
    here, there = socket.socketpair()
    with here, there:
        notice_silence(here, 30)
        assert here.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
    notice_silence(None, 30)
