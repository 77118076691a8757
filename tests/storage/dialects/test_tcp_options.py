"""Sockets that notice when the other side is gone without a word."""

from __future__ import annotations

import asyncio
import socket

import pytest

from recorder.storage.dialects import Postgres, parse_url
from recorder.storage.dialects.tcp_options import notice_silence
from tests.faults.proxy import proxy


def options(found: socket.socket) -> list[int]:
    """Whether the kernel asks after the other side, and how long it waits for what was sent (milliseconds)."""
    names = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE), (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)]
    return [found.getsockopt(level, name) for level, name in names]


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system has none")
@pytest.mark.parametrize(("word", "expected"), [("", 30_000), ("?tcp_user_timeout=5000", 5_000)])
def test_a_connection_over_a_network(postgres_url: str, word: str, expected: int) -> None:
    """Is given up after the time for a statement, or after what libpq's word says."""
    with proxy(postgres_url) as server:
        dialect = Postgres(
            parse_url(server.url.partition("?")[0] + word).update_query_dict({"sslmode": "disable"})
        )

        async def story() -> list[int]:
            async with dialect.engine().connect() as connection:
                driver = (await connection.get_raw_connection()).driver_connection
                return options(driver._transport.get_extra_info("socket"))  # type: ignore[union-attr]

        assert asyncio.run(story()) == [1, expected]


def test_a_socket_of_this_machine_is_left_alone() -> None:
    """Nothing can be swallowed there, and it has no such options; and a connection may have no socket to ask for."""
    here, there = socket.socketpair()
    with here, there:
        notice_silence(here, 30)
        assert here.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
    notice_silence(None, 30)
