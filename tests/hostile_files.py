"""Makes malicious files: broken exports, archives that unpack to very much, and invalid databases."""

from __future__ import annotations

import gzip
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from recorder.export.format import write
from tests.export.test_format import EVERYTHING
from tests.hostile import TRICK

_HEADER = b'{"format":"recorder","version":1,"exported_at":"2026-01-01T00:00:00Z","source":"x"}\n'
_EOF = b'[null,"eof",{"runs":0}]\n'
_RUN = (
    b'[0,"run",{"id":"01a00000-0000-7000-8000-000000000001","conversation_id":"c","attempt":1,"operation":"chat",'
    b'"status":"complete","started_at":"2026-01-01T00:00:00Z","usage_source":"none","token_count":0%s}]\n'
)


def exports(folder: Path) -> list[Path]:
    """Write broken and malicious exports, each into a file of its own, and return their paths."""
    folder.mkdir()
    for number, content in enumerate(_contents()):
        (folder / f"{number:03}.jsonl").write_bytes(content)
    os.symlink(folder, folder / "a folder")
    os.symlink(folder / "itself", folder / "itself")
    os.symlink("/dev/zero", folder / "zeros")
    return sorted(folder.iterdir())


def _contents() -> list[bytes]:
    honest = "".join(write(EVERYTHING)).encode()
    said = TRICK.encode("unicode_escape").replace(b"\\x", b"\\u00")
    line = _HEADER + b'[null,"conversation",%s]\n' + _EOF
    at = b'"created_at":"2026-01-01T00:00:00Z"'
    return [
        b"", b"\n", b"\xef\xbb\xbf" + honest, honest.decode().encode("utf-16"), b"\xff" * 1_000, TRICK.encode() + b"\n",
        honest[:-20], honest + honest, honest.replace(b"Hel", b"Hal"), honest.replace(b"\n", b"\r\n"),
        honest + b"\n" * 100_000, _HEADER.replace(b'"x"', b'"' + said + b'"') + _EOF, _HEADER.replace(b":1,", b":99,"),
        _HEADER.replace(b":1,", b":-1,"), _HEADER.replace(b":1,", b":1e300,"), _HEADER.replace(b"2026", b"0000") + _EOF,
        _HEADER.replace(b"2026-01-01T00:00:00Z", b"0001-01-01T00:00:00+14:00") + _EOF,
        _HEADER + b"[" * 100_000, _HEADER + b"{" * 100_000, _HEADER + b'[null,"' + b"x" * 2**20, _HEADER + b"7\n",
        _HEADER + b'[null,"' + said + b'",{}]\n', line % b"7", line % b"[]", line % b"{}",
        line % (b'{"id":"' + said + b"\"," + at + b"}"), line % (b'{"id":"c","id":"d",' + at + b"}"),
        line % (b'{"id":"c","metadata":' + b"[" * 600 + b"]" * 600 + b"," + at + b"}"),
        line % (b'{"id":"c","metadata":1' + b"0" * 5_000 + b"," + at + b"}"),
        line % (b'{"id":"c","metadata":NaN,' + at + b"}"),
        line % (b'{"id":"c","metadata":Infinity,' + at + b"}"), line % (b'{"id":"c","title":"\xff",' + at + b"}"),
        line % (b'{"id":"c","title":"\\ud800",' + at + b"}"), line % (b'{"id":"\\u0000",' + at + b"}"),
        line % b'{"id":"c","created_at":"9999-12-31T23:59:59-14:00"}', line % b'{"id":"c","created_at":1e300}',
        _HEADER + b'[null,"segment",0,1]\n', _HEADER + b'[null,"end",{}]\n', _HEADER + _RUN % b"" + _EOF,
        _HEADER + _RUN % b',"input_tokens":9223372036854775808' + _EOF, _HEADER + _RUN % b',"status":7' + _EOF,
        _HEADER + _RUN % b"" + b'[0,"segment",0,4611686018427387904]\n' + b'[0,"text","a"]\n' * 70_000,
        _HEADER + _RUN % b"" + b'[0,"segment",9223372036854775807,1]\n[0,"text","a"]\n',
        _HEADER + _RUN % b"" + b'[0,"frames",0,0,1]\n[1e300,"frame","x"]\n',
        _HEADER + _RUN % b"" + b'[0,"stored",0,0,1,"../../etc/passwd","AAAA"]\n',
        _HEADER + _RUN % b"" + b'[0,"stored",0,0,1,{},"AAAA"]\n', _HEADER + _RUN % b"" + b'[null,"gap",-1,1,[]]\n',
        _HEADER + _RUN % b"" + b'[null,"annotation",{"run_id":"x"}]\n', _HEADER + b'[null,"eof"]\n',
        gzip.compress(b" " * 2**27), gzip.compress(_HEADER) + gzip.compress(b"") * 50_000 + gzip.compress(_EOF),
        gzip.compress(honest)[:-9], gzip.compress(honest) + b"more", gzip.compress(gzip.compress(honest)),
        gzip.compress(_HEADER + _EOF + b"\n" * 2**24), b"SQLite format 3\0" + b"\0" * 84,
    ]  # fmt: skip


def databases(folder: Path, honest: Path) -> list[Path]:
    """Make files that are not valid databases of recorder, each damaged in another way."""
    folder.mkdir()
    content = honest.read_bytes()
    for name, data in (("empty", b""), ("text", TRICK.encode()), ("cut", content[: len(content) // 2]),
                       ("zeros", content[:100] + bytes(len(content))), ("packed", gzip.compress(content))):  # fmt: skip
        (folder / f"{name}.db").write_bytes(data)
    for number, (name, spoil) in enumerate(_SPOILT.items()):
        path = folder / f"{number:02} {name}.db"
        path.write_bytes(content)
        with closing(sqlite3.connect(path)) as connection:
            spoil(connection)
            connection.commit()
    (folder / "folder.db").mkdir()
    os.mkfifo(folder / "pipe.db")
    os.symlink("/dev/zero", folder / "device.db")
    os.symlink(folder / "itself.db", folder / "itself.db")
    return sorted(folder.iterdir())


def _run(*statements: str) -> Callable[[sqlite3.Connection], object]:
    return lambda connection: [connection.execute(statement) for statement in statements]


_ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
_SPOILT: dict[str, Callable[[sqlite3.Connection], object]] = {
    "no runs": _run("DROP TABLE runs"),
    "no views": _run("DROP VIEW chathistory", "DROP VIEW transcripts", "DROP VIEW run_stats", "DROP VIEW tokens"),
    "a view": _run("ALTER TABLE runs RENAME TO r", "CREATE VIEW runs AS SELECT * FROM r"),
    "an endless view": _run("DROP TABLE conversations", f"CREATE VIEW conversations AS {_ENDLESS}"),
    "an endless transcript": _run("DROP VIEW transcripts", f"CREATE VIEW transcripts AS {_ENDLESS}"),
    "a circle": _run("DROP TABLE gaps", "CREATE VIEW gaps AS SELECT * FROM gaps"),
    "fewer columns": _run("DROP TABLE messages", "CREATE TABLE messages (conversation_id, id)"),
    "other columns": _run("DROP TABLE segments", 'CREATE TABLE segments ("\x1b]0;owned\x07" BLOB, "\u202e")'),
    "blobs": _run("UPDATE messages SET content = x'ff', role = x'1b5b324a'", "UPDATE runs SET status = x'ff'"),
    "invalid text": _run("UPDATE messages SET content = CAST(x'ff80' AS text)"),
    "numbers": _run("UPDATE runs SET started_at = 7, request = 7", "UPDATE messages SET created_at = 1.5"),
    "a trigger": _run(
        "CREATE TRIGGER t AFTER INSERT ON runs BEGIN DELETE FROM messages; SELECT load_extension('x'); END"
    ),
    "newer": _run("UPDATE alembic_version SET version_num = '9999'"),
    "odd revision": _run(f"UPDATE alembic_version SET version_num = '{TRICK}'"),
    "a blob as revision": _run("UPDATE alembic_version SET version_num = x'1b5b324a'"),
    "a number as revision": _run("UPDATE alembic_version SET version_num = 2"),
    "no revision": _run("DELETE FROM alembic_version"),
    "NULL as revision": _run("DROP TABLE alembic_version", "CREATE TABLE alembic_version (version_num)",
                             "INSERT INTO alembic_version VALUES (NULL)"),
    "no column of revisions": _run("DROP TABLE alembic_version", "CREATE TABLE alembic_version (x)",
                                   "INSERT INTO alembic_version VALUES (1)"),
    "endless revisions": _run(
        "DROP TABLE alembic_version", f"CREATE VIEW alembic_version AS SELECT i AS version_num FROM ({_ENDLESS})"
    ),
    "an old one": _run("UPDATE alembic_version SET version_num = '0001'"),
    "many revisions": _run(*(f"INSERT INTO alembic_version VALUES ('{number}')" for number in range(200))),
}  # fmt: skip
