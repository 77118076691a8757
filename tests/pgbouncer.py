"""Starts a real pgbouncer in transaction mode in front of one database, if it is installed."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import make_url

#: Debian installs it in /usr/sbin, which is only in root's PATH.
PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

_SETTINGS = """
[databases]
{database} = {server}

[pgbouncer]
pool_mode = transaction
default_pool_size = {shared}
unix_socket_dir = {folder}
listen_port = 5432
auth_type = any
"""


@dataclass
class PgBouncer:
    """A running pgbouncer: its clients share a few connections to the server, each for one transaction."""

    target: str
    folder: Path
    #: Connections to the server.
    shared: int
    _process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """Return the URL at which clients connect."""
        parsed = make_url(self.target)
        return f"postgresql://{parsed.username}@/{parsed.database}?host={self.folder}"

    def open(self) -> None:
        """Start pgbouncer and wait until it listens."""
        assert PROGRAM is not None
        settings = self.folder / "pgbouncer.ini"
        settings.write_text(self._settings())
        owner = self._owner()
        os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        # pgbouncer refuses to run as root.
        self._process = subprocess.Popen(
            [PROGRAM, str(settings)],
            user=owner.pw_uid, group=owner.pw_gid, extra_groups=[],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        log = ""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            log += line
            if "process up" in line:
                return
        self.close()
        raise RuntimeError(f"pgbouncer did not start:\n{log}")

    def close(self) -> None:
        """Stop pgbouncer at once, with all its connections."""
        assert self._process is not None
        self._process.kill()
        self._process.communicate()

    def _settings(self) -> str:
        target = make_url(self.target)
        server = {
            "host": target.query.get("host") or target.host,
            "port": target.port,
            "user": target.username,
            "password": target.password,
        }
        return _SETTINGS.format(
            database=target.database,
            server=" ".join(f"{key}='{value}'" for key, value in server.items() if value),
            shared=self.shared,
            folder=self.folder,
        )

    def _owner(self) -> pwd.struct_passwd:
        """Return the user to run as: the user of these tests, or if that is root, the user of the server."""
        uid = os.getuid()
        host = make_url(self.target).query.get("host")
        if uid == 0:
            uid = Path(str(host)).stat().st_uid if host else 0
        return pwd.getpwuid(uid) if uid else pwd.getpwnam("nobody")


@contextmanager
def pgbouncer(target: str, folder: Path, *, shared: int) -> Iterator[PgBouncer]:
    """Yield a pgbouncer that is open inside."""
    found = PgBouncer(target, folder, shared)
    found.open()
    try:
        yield found
    finally:
        found.close()
