"""Makes a malicious database, and reads malicious files with every command and every Python function.

    python -m tests.hostile PART SEED SHARE FILE...

reads databases with the command line (`commands`, `ids`, `databases`) or from Python (`python`), or imports files
(`import`). For each call it prints one line of JSON: the call, the exit code, stdout and stderr. It runs in a process
of its own, because it limits the memory and the time of its process.
"""

from __future__ import annotations

import json
import random
import resource
import signal
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import zstandard

#: Control characters that a terminal obeys, and text that it would display wrongly.
TRICK = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.exe\u2028[bold][link=file:///etc/passwd]x[/link]\r\x7f"
#: Limits for reading everything: bytes of memory, and seconds of processor time.
MEMORY, SECONDS = 3 * 2**30, 120
#: The same with a share of 1.
MANY_SECONDS = 1_500
#: Seconds after which a command counts as hung; a command that follows a run is stopped after `FOLLOWING` seconds.
PATIENCE, FOLLOWING = 20, 1.0

#: Statements that would write, access another file, or load code.
FORBIDDEN = (
    "DELETE FROM runs", "ATTACH 'x.db' AS x", "VACUUM INTO 'x.db'", "SELECT load_extension('x')", "CREATE TABLE x (i)",
)  # fmt: skip

_RUN_ID = "01a00000-0000-7000-8000-{:012d}"


def run_id(number: int) -> str:
    """Return the id of the run with this number."""
    return _RUN_ID.format(number)


# -- a database ----------------------------------------------------------------------------------------------------

#: Invalid values for columns of a run; each is stored in a run of its own.
_RUN_VALUES: list[tuple[str, Any]] = [
    ("started_at", "yesterday"), ("started_at", 7), ("started_at", "0001-01-01T00:00:00+14:00"),
    ("started_at", "2026-01-01T00:00:00"), ("ended_at", b"\xff"), ("first_token_at", "9999-12-31T23:59:59-14:00"),
    ("status", TRICK), ("status", b"\x1b[31m"), ("status", 5), ("status", None), ("request_model", b"\x00\xff"),
    ("request_model", TRICK), ("response_model", 2.5), ("error_message", TRICK), ("error_type", "builtins.SystemExit"),
    ("error_type", "os.system"), ("error_type", "../../x"), ("finish_reason", TRICK), ("token_count", "many"),
    ("token_count", -1), ("input_tokens", TRICK), ("usage", "{"), ("usage", "[]"), ("usage", '{"prompt_tokens":"x"}'),
    ("usage", '{"prompt_tokens":1e308,"completion_tokens":-1}'), ("request", "7"), ("request", "[" * 900 + "]" * 900),
    ("request", '{"messages":7,"tools":{},"stream_options":[]}'), ("request", b"{}"), ("metadata", "NaN"),
    ("metadata", '{"a":' * 5_000), ("metadata", '{"a":1,"a":2}'), ("tags", "{}"), ("tags", '[1,{},null]'),
    ("wire", TRICK), ("wire", "anthropic.messages"), ("wire", 7), ("operation", b"x"), ("attempt", TRICK),
    ("prompt_message_id", "nobody"), ("prompt_message_id", b"\x00"), ("response_message_id", TRICK),
    ("producer_id", "../../etc/passwd"), ("producer_id", 2**62), ("said_at", "x"), ("parent_run_id", TRICK),
    ("provider_name", b"\xff"), ("response_id", 2**63 - 1), ("sha256", b""), ("usage_source", TRICK),
    ("input_hash", b""), ("frames_sha256", 1), ("conversation_id", None),
]  # fmt: skip
#: Rows of tokens: seq, count, deltas.
_SEGMENTS: list[tuple[Any, Any, Any]] = [
    (0, 1, "{"), (0, 1, b"[[0]]"), (0, 2, '[[0,"a"]]'), (0, -5, '[[0,"a"]]'), (5, -5, '[[0,"a"]]'), (-9, 4, "[]"),
    (0, 2**63 - 1, '[[0,"a"]]'), (2**63 - 1, 1, '[[0,"a"]]'), (0, "x", '[[0,"a"]]'), ("x", 1, '[[0,"a"]]'),
    (0, 1, "7"), (0, 1, '{"a":1}'), (0, 1, "[7]"), (0, 1, "[[]]"), (0, 1, '[["0","a"]]'), (0, 1, "[[0,7]]"),
    (0, 1, '[[0,"a",7,null]]'), (0, 1, '[[0,"a","text","a.b.c"]]'), (0, 1, '[[0,"a","tool_args","0.x.y"]]'),
    (0, 1, '[[0,"{","tool_call","0.0"]]'), (0, 1, '[[0,"[]","tool_call","9.9"]]'), (0, 1, '[[1e300,"a"]]'),
    (0, 1, '[[9223372036854775807,"a"]]'), (0, 1, '[[-9223372036854775807,"a"]]'), (0, 1, '[[0,"a","x\x1b[2J","0"]]'),
    (0, 1, "[" * 3_000), (0, 1, json.dumps([[0, TRICK]])), (0, 1, json.dumps([[0, "\ufdd0zzzz\ufdd0d800"]])),
    (0, 0, "[]"), (None, 1, "[]"), (0, 1, '[[0,"a","citation","0"],1]'), (0, 2, '[[5,"a"],[1,"b"]]'),
]  # fmt: skip


def _frames() -> list[tuple[Any, Any, Any, Any, Any, Any]]:
    """Return rows of frames with invalid values: seq, first_delta, count, at_us, data, dictionary."""
    pack = zstandard.ZstdCompressor(level=1, write_content_size=False).compress
    sized = zstandard.compress
    window = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=1)
    packer = zstandard.ZstdCompressor(compression_params=window).compressobj()
    blocks = [
        pack(bytes(300 * 2**20)), sized(bytes(300 * 2**20)), packer.compress(b"ab" * 4_000) + packer.flush(),
        sized(b"[0,1]\nx") * 5, sized(b"[0,1048576,0,-1048576]\n"), sized(b"[" + b"0,0," * 400_000 + b"0,0]\n"),
        sized(b"[" * 100_000), sized(b"[0,1e9]\nx"), sized(b'["x",1]\nx'), sized(b"7\n"), sized(b"{}\n"), b"", b"x",
        sized(b"[18446744073709551615,1]\nx"), sized(b"[0,1]\n\xff"), sized(b"[0,7]\n" + TRICK.encode()[:7]),
    ]  # fmt: skip
    rows: list[tuple[Any, Any, Any, Any, Any, Any]] = [(0, 0, 1, 0, block, None) for block in blocks]
    good = sized(b"[0,2]\n\n\n")
    rows += [
        (0, 0, 1, 0, good, "../../../etc/passwd"), (0, 0, 1, 0, good, TRICK), (0, 0, 1, 0, good, b"x"),
        (0, 0, -1, 0, good, None), (-5, 0, 5, 0, good, None), (0, 0, 2**63 - 1, 0, good, None),
        (0, "x", 1, 0, good, None),
        (0, 0, 1, "x", good, None), (0, 0, 1, 2**63 - 1, good, None), (0, 0, 1, 0, "text", None), (0, 0, 1, 0, 7, None),
    ]  # fmt: skip
    return rows


#: Invalid values for columns of a message; each is stored in a conversation of its own.
_MESSAGE_VALUES: list[tuple[str, Any]] = [
    ("content", b"\xff"), ("content", 7), ("content", None), ("content", TRICK), ("role", TRICK), ("role", b"x"),
    ("role", None), ("position", "x"), ("position", -(2**63)), ("position", 2.5), ("created_at", "x"),
    ("created_at", None), ("created_at", b"\x1b[2J"), ("parts", "{"), ("parts", "[]"), ("parts", "{}"),
    ("parts", b"{}"),
    ("parts", '{"role":7}'), ("parts", '{"role":[]}'), ("parts", '{"role":"user","x":1}'), ("parts", "null"),
    ("parts", '{"role":"user","content":[7,null,{"type":[]}]}'), ("parts", '{"role":"user","content":{"a":1}}'),
    ("parts", '{"role":"assistant","content":"","tool_calls":[7]}'), ("parts", '{"role":"assistant","tool_calls":{}}'),
    ("parts", '{"role":"assistant","content":"","tool_calls":[{}]}'),
    ("parts", '{"role":"assistant","content":"","tool_calls":[{"name":7,"args":[[]],"id":{}}]}'),
    ("parts", '{"role":"user","content":"","tool_calls":[{"name":"a","args":{}}]}'),
    ("parts", '{"role":"user","additional_kwargs":7,"content":""}'),
    ("parts", '{"role":"assistant","content":"","usage_metadata":{"input_tokens":"x"}}'),
    ("parts", '{"role":"assistant","content":%s}' % ("[" * 900 + "]" * 900)),
    ("parts", json.dumps({"role": TRICK, "content": [{"type": TRICK, "text": TRICK}], "name": TRICK})),
    ("parent_id", "self"), ("parent_id", "nobody"), ("parent_id", b"x"), ("run_id", TRICK), ("run_id", 7),
    ("id", TRICK), ("id", b"x"), ("id", None),
]  # fmt: skip


def spoil(path: Path, seed: int) -> None:
    """Insert every invalid value into a database that recorder made, in random order, one run or conversation each."""
    chance = random.Random(seed)
    with closing(sqlite3.connect(path)) as connection, connection:
        tricks = [*_runs(connection), *_messages(connection), *_others(connection)]
        chance.shuffle(tricks)
        for trick in tricks:
            trick()


def _runs(connection: sqlite3.Connection) -> Iterator[Callable[[], None]]:
    number = 100
    for column, value in _RUN_VALUES:
        yield _run(connection, number, {column: value})
        number += 1
    for segment in _SEGMENTS:
        yield _run(connection, number, {"token_count": 1}, segment=segment)
        number += 1
    for frame in _frames():
        yield _run(connection, number, {"wire": "openai.chat", "frames_sha256": "x"}, frame=frame)
        number += 1
    for gap in ((0, -1, "x"), (0, 2**63 - 1, TRICK), ("x", 1, "x"), (0, 1, b"x"), (-5, 3, "x")):
        yield _run(connection, number, {}, gap=gap)
        number += 1


def _run(
    connection: sqlite3.Connection, number: int, columns: dict[str, Any], *, segment: Any = None, frame: Any = None,
    gap: Any = None,
) -> Callable[[], None]:  # fmt: skip
    def put() -> None:
        conversation, id = f"run {number}", run_id(number)
        at = "2026-01-01T00:00:00.000000Z"
        known = {
            "id": id, "conversation_id": conversation, "operation": "chat", "status": "complete", "started_at": at,
            "request_model": "m", "request": '{"model":"m"}', **columns,
        }  # fmt: skip
        _insert(connection, "conversations", {"id": conversation, "created_at": at})
        _insert(connection, "runs", known)
        if segment is not None:
            _insert(
                connection,
                "segments",
                dict(zip(("run_id", "seq", "count", "deltas"), (id, *segment), strict=True)),
            )
        if frame is not None:
            names = ("run_id", "seq", "first_delta", "count", "at_us", "data", "dictionary")
            _insert(connection, "frames", dict(zip(names, (id, *frame), strict=True)))
        if gap is not None:
            _insert(
                connection, "gaps", dict(zip(("run_id", "seq", "count", "reason"), (id, *gap), strict=True))
            )

    return put


def _messages(connection: sqlite3.Connection) -> Iterator[Callable[[], None]]:
    for number, (column, value) in enumerate(_MESSAGE_VALUES):
        id = str(UUID(int=number + 1))
        known = {
            "conversation_id": f"message {number}", "id": id, "position": 0, "role": "user", "content": "Hi",
            "created_at": "2026-01-01T00:00:00.000000Z", column: id if value == "self" else value,
        }  # fmt: skip
        yield lambda known=known: _conversation(connection, known)  # type: ignore[misc]


def _conversation(connection: sqlite3.Connection, message: dict[str, Any]) -> None:
    at = "2026-01-01T00:00:00.000000Z"
    _insert(connection, "conversations", {"id": message["conversation_id"], "created_at": at})
    _insert(connection, "messages", message)


def _others(connection: sqlite3.Connection) -> Iterator[Callable[[], None]]:
    at = "2026-01-01T00:00:00.000000Z"
    for number, (column, value) in enumerate(
        [("title", TRICK), ("title", b"\xff"), ("metadata", "{"), ("user_id", TRICK), ("created_at", "x"),
         ("id", TRICK), ("id", b"\x1b[2J"), ("id", None), ("created_at", None), ("id", "-" * 70_000)]
    ):  # fmt: skip
        row = {"id": f"conversation {number}", "created_at": at, column: value}
        yield lambda row=row: _insert(connection, "conversations", row)  # type: ignore[misc]
    dead = {
        "id": str(UUID(int=7)),
        "host": TRICK,
        "pid": "x",
        "started_at": at,
        "heartbeat_at": at,
        "process": b"x",
    }
    yield lambda: _insert(connection, "producers", dead)
    yield _run(connection, 900, {"status": "streaming", "producer_id": dead["id"]})
    yield _run(connection, 901, {"status": "streaming"})
    for statement in (
        "CREATE TRIGGER t AFTER INSERT ON runs BEGIN SELECT 1; END",
        'CREATE VIEW "\x1b]0;owned\x07" AS SELECT 1 AS "\x1b[2J\u202e"',
        "CREATE VIEW endless AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n",
    ):
        yield lambda statement=statement: connection.execute(statement)  # type: ignore[misc]


def _insert(connection: sqlite3.Connection, table: str, row: dict[str, Any]) -> None:
    """Insert a row; do nothing if the schema itself refuses the invalid value."""
    names, marks = ",".join(f'"{name}"' for name in row), ",".join("?" * len(row))
    try:
        connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(row.values()))
    except sqlite3.IntegrityError:
        pass


# -- everything that reads the database ----------------------------------------------------------------------------


def ids_in(path: Path) -> list[str]:
    """Return the ids of the conversations and runs that a command can name; none of a file that is no database."""
    if not path.is_file():
        return []
    found: list[Any] = []
    try:
        with closing(sqlite3.connect(path)) as connection:
            for table in ("conversations", "runs"):
                found += [row[0] for row in connection.execute(f"SELECT id FROM {table} LIMIT 1000")]
    except sqlite3.DatabaseError:
        pass
    return [id for id in found if isinstance(id, str) and len(id) < 1_000]


#: Commands that take one id as their last argument.
_COMMANDS_OF_AN_ID = (
    ["show"], ["show", "--json"], ["show", "--tokens"], ["show", "--branch", TRICK], ["replay", "--instant"],
    ["replay", "--instant", "--json"], ["replay", "--frames", "--instant"], ["export"],
)  # fmt: skip


def commands(path: Path, seed: int, share: float) -> Iterator[list[str]]:
    """Yield every command that reads a whole database or follows a run."""
    chance = random.Random(seed)
    yield from (["ls"], ["ls", "--json"], ["ls", "-n", "2"], ["stats"], ["stats", "--json"], ["migrate"])
    yield from (["replay", "--instant"], ["replay", "--instant", "--json"], ["tail"], ["export"])
    for table in (
        "conversations",
        "messages",
        "runs",
        "segments",
        "frames",
        "tokens",
        "run_stats",
        "chathistory",
    ):
        yield ["sql", *chance.sample(["--json"], chance.randrange(2)), f"SELECT * FROM {table}"]
    yield from (["sql", f"SELECT * FROM {name}"] for name in ("transcripts", "nothing", '"\x1b]0;owned\x07"'))
    yield from (["sql", statement] for statement in FORBIDDEN)
    yield from (["sql", TRICK], [TRICK], ["ls", "--" + TRICK])
    for id in (run_id(900), run_id(901), run_id(150)):
        yield from (["replay", "--follow", "--instant", id], ["tail", id])
    ids = ids_in(path)
    for id in chance.sample(ids, min(4, len(ids))):
        yield ["chat", "--provider", "loopback", "--conversation", id]


def read_from_python(path: Path, seed: int, share: float) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield calls of Python functions that read the database, each with its name; a random share of those with an id.

    A call is quicker than a command, so ten times as many are made.
    """
    from recorder.export import export
    from recorder.messages import HumanMessage
    from recorder.replay import Replay

    url, chance = f"sqlite:///{path}", random.Random(seed)
    yield "open", lambda: Replay(url).close()
    if not path.is_file():
        return
    with Replay(url) as replay:
        calls: dict[str, Callable[[str], object]] = {
            "stream": lambda id: list(replay.stream(id, speed=None)),
            "frames": lambda id: list(replay.frames(id, speed=None)),
            "into": lambda id: replay.into([], id),
            "messages": replay.messages,
        }
        for id in ids_in(path):
            for name, call in calls.items():
                if chance.random() < 10 * share:
                    yield f"{name} {id!r}", partial(call, id)
        yield "model", lambda: replay.model().invoke([HumanMessage("Hi")])
    yield "export", lambda: export(url, path.with_suffix(".out.jsonl"))


def commands_of_ids(path: Path, seed: int, share: float) -> Iterator[list[str]]:
    """Yield a random share of all combinations of a command and an id."""
    chance = random.Random(seed)
    for id in ids_in(path):
        yield from ([*command, id] for command in _COMMANDS_OF_AN_ID if chance.random() < share)


def databases_read(path: Path, seed: int, share: float) -> Iterator[list[str]]:
    """Yield one command of each kind, for a file that may not be a database; every command with a share of 1."""
    if share == 1:
        yield from commands(path, seed, share)
        yield from ([*command, "good"] for command in _COMMANDS_OF_AN_ID)
    yield from (
        ["ls"],
        ["stats"],
        ["show", "good"],
        ["replay", "--instant", "good"],
        ["replay", "--instant"],
        ["export"],
    )
    yield from (
        ["sql", f"SELECT * FROM {name}"] for name in ("transcripts", "run_stats", "messages", "segments")
    )
    yield from (
        ["show", "--json", "good"],
        ["chat", "--provider", "loopback", "--conversation", "good"],
        ["migrate"],
    )


def main() -> None:
    """Read the files as the module's docstring describes."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    part, seed, share, *files = sys.argv[1:]
    seconds = SECONDS if float(share) < 1 else MANY_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    for path in map(Path, files):
        if part == "import":
            new = f"sqlite:///{tempfile.mkdtemp()}/new.db"
            _print_outcome(["import", str(path)], _by_command(["import", str(path), "--url", new]))
        elif part == "python":
            for name, work in read_from_python(path, int(seed), float(share)):
                _print_outcome([name], _by_call(work))
        else:
            every = _READ[part](path, int(seed), float(share))
            for arguments in every:
                url = [] if arguments == [TRICK] else ["--url", f"sqlite:///{path}"]
                _print_outcome(arguments, _by_command([*arguments, *url]))


_READ: dict[str, Callable[[Path, int, float], Iterator[list[str]]]] = {
    "commands": commands,
    "ids": commands_of_ids,
    "databases": databases_read,
}


def _print_outcome(done: list[str], outcome: tuple[Any, ...]) -> None:
    print(json.dumps([done, *outcome]))


def _by_command(arguments: list[str]) -> tuple[int, str, str]:
    from typer.testing import CliRunner

    from recorder.cli.app import app

    _limit(
        FOLLOWING if "tail" in arguments or "--follow" in arguments or "endless" in arguments else PATIENCE
    )
    done = CliRunner().invoke(app, arguments, input="/exit\n", env={"COLUMNS": "100", "NO_COLOR": "1"})
    signal.setitimer(signal.ITIMER_REAL, 0)
    error = (
        done.exception
        if not isinstance(done.exception, (SystemExit, KeyboardInterrupt, type(None)))
        else None
    )
    return done.exit_code, done.stdout, done.stderr if error is None else f"TRACEBACK {error!r}"


def _by_call(work: Callable[[], object]) -> tuple[int, str, str]:
    from recorder.errors import RecorderError

    _limit(PATIENCE)
    try:
        work()
    except RecorderError as error:
        return 1, "", f"recorder: {error}"
    except Exception as error:
        return 2, "", f"TRACEBACK {error!r}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return 0, "", ""


def _limit(seconds: float) -> None:
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, seconds)


if __name__ == "__main__":
    main()
