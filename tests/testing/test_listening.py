"""A server that ends serves the connections that it has accepted, or closes them."""

from __future__ import annotations

import asyncio
import gc
import socket

from recorder.testing.listening import stop_listening


def test_connections_that_were_just_accepted_reach_their_handler() -> None:
    """The server ends between the step that accepts them and the step that attaches them."""
    served: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(writer)
        writer.close()
        await writer.wait_closed()

    async def story(clients: list[socket.socket]) -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        for client in clients:
            client.connect(server.sockets[0].getsockname())
        for _ in range(2):  # in the second step the loop has accepted the clients, and not attached them
            await asyncio.sleep(0)
        await stop_listening(server)
        loop = asyncio.get_running_loop()
        for client in clients:
            client.setblocking(False)
            assert await loop.sock_recv(client, 1) == b""

    clients = [socket.socket() for _ in range(3)]
    try:
        asyncio.run(asyncio.wait_for(story(clients), 20))
    finally:
        for client in clients:
            client.close()
    assert len(served) == len(clients)
    gc.collect()
