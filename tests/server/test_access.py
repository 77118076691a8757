"""Tokens, users, hosts and origins are checked for every route and every stream."""

from __future__ import annotations

from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.errors import ConfigError
from recorder.server.access import Access, tokens_from
from tests.oracle import new_url, record
from tests.server.serving import CLIENT, TOKEN, Served, serving

ANNA, BORIS = "a-token-of-the-user-anna", "a-token-of-the-user-boris"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, str]]:
    """Yield a server with tokens, and the id of a run of the user "anna"."""
    url = new_url(tmp_path_factory.mktemp("guarded"))
    with ChatHistoryCallback(url) as history, history.conversation("c", user="anna"):
        run_id = str(record(history))
    with serving(url, {TOKEN: None, ANNA: "anna", BORIS: "boris"}) as server:
        yield server, run_id


def status(url: str, **headers: str) -> int:
    """Return the status of a request."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return CLIENT.get(url, headers=given).status_code


def socket_status(url: str, **options: Any) -> int:
    """Return the status of a WebSocket's handshake."""
    try:
        with connect(url.replace("http", "ws", 1), proxy=None, **options) as socket:
            socket.recv(10)
            return 101
    except InvalidStatus as error:
        is_problem = error.response.headers["content-type"] == "application/problem+json"
        return error.response.status_code if is_problem else -1


ROUTES = ["/streams/{run}", "/openapi.json", "/models", "/metrics", "/readyz", "/nothing"]


def test_no_route_answers_without_a_token(guarded: tuple[Served, str]) -> None:
    """A missing, wrong or doubled token gets 401, from routes that do not exist, too."""
    server, run_id = guarded
    for route in ROUTES:
        url = server.url + route.format(run=run_id)
        assert status(url) == status(url, authorization=f"Bearer {TOKEN}x") == 401
        assert status(url, authorization=f"Basic {TOKEN}") == status(url, authorization="Bearer") == 401
        twice = CLIENT.get(
            url, headers=[("authorization", f"Bearer {TOKEN}"), ("authorization", f"Bearer {ANNA}")]
        )
        assert twice.status_code == 401
        assert twice.headers["www-authenticate"] == "Bearer"
        assert socket_status(server.url + f"/streams/{run_id}") == 401


def operations(server: Served) -> Iterator[tuple[str, str]]:
    """Yield the method and the path of each operation that the server describes."""
    found = CLIENT.get(f"{server.url}/openapi.json", headers={"authorization": f"Bearer {TOKEN}"}).json()
    for path, methods in found["paths"].items():
        yield from ((method.upper(), path) for method in methods)


def test_no_operation_answers_a_wrong_token(guarded: tuple[Served, str]) -> None:
    """Each one that `/openapi.json` describes is refused, without a token and with a wrong one."""
    server, run_id = guarded
    found = [*operations(server)]
    assert ("POST", "/chat") in found
    for method, path in found:
        url = server.url + path.format(run=run_id, id=run_id)
        for headers in ({}, {"authorization": f"Bearer {TOKEN}x"}, {"authorization": "Bearer"}):
            assert CLIENT.request(method, url, headers=headers).status_code == 401, (method, path, headers)


def test_no_operation_tells_of_another_users_run(guarded: tuple[Served, str]) -> None:
    """Those of a run and of a conversation are 404 for another user."""
    server, run_id = guarded
    for method, path in operations(server):
        if "{" in path:
            url = server.url + path.format(run=run_id, id="c" if "conversations" in path else run_id)
            response = CLIENT.request(method, url, headers={"authorization": f"Bearer {BORIS}"})
            assert response.status_code == 404, (method, path)


def test_a_token_reads_what_belongs_to_its_user(guarded: tuple[Served, str]) -> None:
    """A run of another user does not exist for it."""
    server, run_id = guarded
    url = f"{server.url}/streams/{run_id}"
    assert [status(url, authorization=f"Bearer {token}") for token in (TOKEN, ANNA, BORIS)] == [200, 200, 404]
    for token, expected in ((TOKEN, 101), (ANNA, 101), (BORIS, 404)):
        assert socket_status(url, additional_headers={"authorization": f"Bearer {token}"}) == expected
        assert socket_status(url, subprotocols=["recorder", f"bearer.{token}"]) == expected


def test_the_answer_for_another_users_run_is_that_for_no_run(guarded: tuple[Served, str]) -> None:
    """Nothing tells whether a run exists."""
    server, run_id = guarded
    absent = "0" * 8 + run_id[8:]
    headers = {"authorization": f"Bearer {BORIS}"}
    found = [CLIENT.get(f"{server.url}/streams/{id}", headers=headers) for id in (run_id, absent)]
    texts = [response.text.replace(id, "ID") for response, id in zip(found, (run_id, absent), strict=True)]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([("host", "evil.example")], 403),
        ([("host", "127.0.0.1.evil.example")], 403),
        ([("host", "localhost:1")], 404),
        ([("host", "[::1]:80")], 404),
        ([("host", "")], 400),
        ([("host", "a b")], 400),
        ([("host", "localhost"), ("host", "evil.example")], 400),
        ([("host", "localhost"), ("origin", "http://localhost")], 404),
        ([("host", "localhost"), ("origin", "https://localhost")], 403),
        ([("host", "localhost"), ("origin", "null")], 403),
        ([("origin", "http://evil.example")], 403),
        ([("origin", "https://good.example")], 404),
    ],
    ids=str,
)
def test_hosts_and_origins_are_checked(
    open_server: Served, headers: list[tuple[str, str]], expected: int
) -> None:
    """Each Host header and each Origin must be an allowed one."""
    connection = HTTPConnection("127.0.0.1", open_server.server.port, timeout=10)
    connection.putrequest("GET", "/streams/none", skip_host=any(name == "host" for name, _ in headers))
    for name, value in headers:
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    assert (response.status, response.getheader("content-type")) == (expected, "application/problem+json")
    connection.close()


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Yield a server without tokens, which allows one origin."""
    with serving(new_url(tmp_path_factory.mktemp("open")), origins=["https://good.example"]) as server:
        yield server


def test_a_foreign_page_opens_no_websocket(open_server: Served) -> None:
    """Browsers let every page open WebSockets, and send its origin."""
    url = f"{open_server.url}/streams/none"
    assert socket_status(url, origin="http://evil.example") == 403
    assert socket_status(url, origin="https://good.example") == 404


def test_an_allowed_page_may_read_the_answer(open_server: Served) -> None:
    """The browser's question before the request is answered, and only for this origin."""
    asking = {"access-control-request-method": "GET", "access-control-request-headers": "authorization"}
    names = "authorization, content-type, idempotency-key, prefer"
    starting = {"access-control-request-method": "POST", "access-control-request-headers": names}
    for origin, allowed in (("https://good.example", "https://good.example"), ("https://evil.example", None)):
        for path, given in (("/streams/none", asking), ("/chat", starting)):
            response = CLIENT.options(open_server.url + path, headers={"origin": origin, **given})
            assert response.headers.get("access-control-allow-origin") == allowed
            assert (response.status_code == 200) == (allowed is not None)


@pytest.mark.parametrize("token", ["", "short", "x" * 513, "a token with spaces", "ünïcödé-is-no-token"])
def test_a_bad_token_is_refused(token: str) -> None:
    """The error does not repeat it."""
    with pytest.raises(ConfigError) as error:
        Access({token: None})
    assert not token or token not in str(error.value)


def test_tokens_of_the_command_line_name_their_user() -> None:
    """What stands before the last colon is the user."""
    given = [TOKEN, f"anna:{ANNA}", f"urn:user:boris:{BORIS}"]
    assert tokens_from(given) == {TOKEN: None, ANNA: "anna", BORIS: "urn:user:boris"}
    with pytest.raises(ConfigError):
        tokens_from([f":{ANNA}"])


def test_no_token_is_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither a right one nor a wrong one, at any level."""
    caplog.set_level(0)
    with serving(new_url(tmp_path), {TOKEN: None}) as server:
        for token in (TOKEN, TOKEN + "-wrong"):
            status(f"{server.url}/streams/none", authorization=f"Bearer {token}")
            socket_status(f"{server.url}/streams/none", subprotocols=["recorder", f"bearer.{token}"])
    ours = [
        record.getMessage()
        for record in caplog.records
        if not record.name.startswith(("websockets.client", "httpcore"))
    ]
    assert TOKEN not in "\n".join(ours)
