"""`/healthz` and `/readyz` say whether requests should come to this process."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from recorder.storage.schema import HEAD
from recorder.testing import LoopbackProvider
from tests.oracle import new_url
from tests.server.serving import CLIENT, begin_chat, read, serving, small


def test_readiness_tells_of_the_revision(database: str) -> None:
    """It also tells of the recorder, once there is one."""
    with LoopbackProvider("Hello") as provider, serving(database, models=[small(provider)]) as server:
        expected = {"status": "ready", "revision": HEAD, "expected_revision": HEAD, "recording": "off"}
        assert CLIENT.get(f"{server.url}/readyz").json() == expected
        read(server.url, begin_chat(server.url, messages="Hi")["run_id"])
        assert CLIENT.get(f"{server.url}/readyz").json() == {**expected, "recording": "healthy"}


@pytest.mark.parametrize("revision", ["9999", "0001", None], ids=["newer", "older", "missing"])
def test_a_database_of_another_revision_is_not_ready(tmp_path: Path, revision: str | None) -> None:
    """The answer says so, without the name of the database."""
    url = f"sqlite:///{tmp_path / 'secret-name.db'}"
    if revision is not None:
        with (
            closing(
                sqlite3.connect(new_url(tmp_path, "secret-name.db").removeprefix("sqlite:///"))
            ) as connection,
            connection,
        ):
            connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    with serving(url) as server:
        for path in ("/readyz", "/healthz"):
            response = CLIENT.get(server.url + path)
            assert (response.status_code, response.headers["retry-after"]) == (503, "1")
            assert "secret-name" not in response.text
            assert ("another revision" in response.json()["detail"]) == (revision is not None)


def test_a_server_that_ends_is_not_ready(tmp_path: Path) -> None:
    """Requests should go to another process."""
    with serving(new_url(tmp_path)) as server:
        server.database.is_draining = True
        assert CLIENT.get(f"{server.url}/readyz").status_code == 503
        assert CLIENT.get(f"{server.url}/healthz").status_code == 200
