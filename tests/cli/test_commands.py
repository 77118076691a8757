"""The commands of `recorder`: what they print about a real database, and their errors."""

from __future__ import annotations

import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from typer.testing import CliRunner, Result

from recorder import ChatHistoryCallback
from recorder.cli.app import app
from recorder.cli.console import plural, size
from recorder.core.clock import now
from recorder.core.printable import printable
from recorder.export import import_
from recorder.export.format import write
from recorder.messages import AIMessage, BaseMessage, ChatGeneration, HumanMessage, LLMResult, tool_call
from recorder.storage.rows import ConversationRow
from recorder.storage.schema import REVISIONS
from recorder.testing import song
from tests import postgres
from tests.oracle import new_url, sql
from tests.oracle import record as record_reply

ROOT = Path(__file__).parents[2]
ANSWERED = UUID("01a00000-0000-7000-8000-000000000001")
FAILED = UUID("01a00000-0000-7000-8000-000000000002")
CANCELLED_RUN = UUID("01b00000-0000-7000-8000-000000000003")


def cli(*arguments: str, columns: int = 100, url: str = "") -> Result:
    """Run one command in this process."""
    environment = {"COLUMNS": str(columns), "NO_COLOR": "1", "RECORDER_URL": url}
    return CliRunner().invoke(app, list(arguments), env=environment)


def process(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one command in a process of its own, with its output in pipes."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "RECORDER_URL")}
    code = "import sys; sys.argv[0] = 'recorder'; from recorder.cli.app import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env={**inherited, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=50,
    )


def ask(history: ChatHistoryCallback, run: UUID, message_text: str, tokens: list[str]) -> None:
    """Start a run and stream some of its tokens."""
    about = {"ls_provider": "openai", "ls_model_name": "gpt-4o-mini"}
    history.on_chat_model_start({}, [[HumanMessage(message_text)]], run_id=run, metadata=about)
    for token in tokens:
        history.on_llm_new_token(token, run_id=run)


def answered(message: BaseMessage) -> LLMResult:
    """Return the result that a model passes at the end of a run."""
    return LLMResult([[ChatGeneration(message, {"finish_reason": "stop"})]])


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield a database with two conversations, whose three runs succeeded, failed and were cancelled."""
    if request.param == "sqlite":
        url = new_url(tmp_path_factory.mktemp("cli"), "chats.db")
        record(url)
        yield url
        return
    url = postgres.new_database()
    record(url)
    yield url
    postgres.drop(url)


def is_file(url: str) -> bool:
    """Return whether the database is SQLite."""
    return url.startswith("sqlite")


def record(url: str) -> None:
    """Record the two conversations."""
    reply = AIMessage("Go to Paris.", tool_calls=[tool_call("book", {"city": "Paris"}, "call_1")])
    with ChatHistoryCallback(url) as history:
        with history.conversation("trip"):
            ask(history, ANSWERED, "Where to?\nTell \x1b[31mme", ["Go", " to", " Paris", "."])
            history.on_llm_end(answered(reply), run_id=ANSWERED)
            ask(history, FAILED, "Sing [bold]loud[/bold]", ["La"])
            history.on_llm_error(ValueError("out of breath"), run_id=FAILED)
        with history.conversation("trap"):
            ask(history, CANCELLED_RUN, "Hello?", [])
            history.on_llm_error(KeyboardInterrupt(), run_id=CANCELLED_RUN)


def test_ls_lists_the_newest_conversation_first(url: str) -> None:
    """Each line has the id and the beginning of the conversation."""
    lines = cli("ls", url=url).stdout.splitlines()[2:]
    assert [line.split()[0] for line in lines] == ["trap", "trip"]
    assert "cancelled" in lines[0]
    assert "Hello?" in lines[0]


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
def test_ls_fits_the_terminal(url: str, columns: int) -> None:
    """No line is wider than the terminal, and the id is always shown."""
    lines = cli("ls", url=url, columns=columns).stdout.splitlines()
    assert max(map(len, lines)) <= columns
    assert "trip" in "".join(lines)


def test_ls_of_80_columns_has_status_and_counts(tmp_path: Path) -> None:
    """Also beside an id of 36 characters and the longest status; the beginning ends with a whole word."""
    url = f"sqlite:///{tmp_path / 'chats.db'}"
    with ChatHistoryCallback(url) as history, history.conversation(str(ANSWERED)):
        ask(history, ANSWERED, "Supercalifragilistic words of a question that is long", [])
        ask(history, FAILED, "Write me a song", [])
    head, line, row = cli("ls", url=url, columns=80).stdout.splitlines()
    assert head.split() == ["conversation", "status", "messages", "runs", "begins"]
    assert row.split()[:4] == [str(ANSWERED), "interrupted", "2", "2"]
    assert len(line) <= 80
    wide = cli("ls", url=url, columns=110).stdout.splitlines()[-1]
    assert wide.rstrip().endswith(" Supercalifragilistic words of…")


def test_ls_in_a_pipe_is_not_cut(url: str, tmp_path: Path) -> None:
    """A line has its cells between tabs."""
    lines = process("ls", "--url", url, folder=tmp_path).stdout.splitlines()
    assert lines[0].split("\t") == ["id", "last_at", "status", "messages", "runs", "begins"]
    assert lines[2].split("\t")[2:] == ["error", "3", "2", r"Where to?↵Tell \x1b[31mme"]


def test_ls_keeps_an_id_in_one_piece(tmp_path: Path) -> None:
    """An id is not wrapped in a narrow terminal, so that it can be copied."""
    url = f"sqlite:///{tmp_path / 'chats.db'}"
    with ChatHistoryCallback(url) as history, history.conversation(str(ANSWERED)):
        ask(history, ANSWERED, "A question that is longer than there is room for on one line.", [])
        history.on_llm_end(answered(AIMessage("Yes.")), run_id=ANSWERED)
    assert f"\n{ANSWERED} " in cli("ls", url=url, columns=60).stdout


def test_ls_prints_json(url: str) -> None:
    """`--json` prints one object for each conversation."""
    rows = json.loads(cli("ls", "--json", "-n", "1", url=url).stdout)
    assert [(row["id"], row["runs"], row["messages"], row["status"]) for row in rows] == [
        ("trap", 1, 1, "cancelled")
    ]


def test_ls_sorts_conversations_by_their_last_run_or_message(database: str) -> None:
    """Conversations without runs, without messages, and without both are listed, too."""

    with ChatHistoryCallback(database) as history:
        for name in ("added", "asked"):
            history.add_messages(f"Hello {name}", conversation_id=name)
        with history.conversation("silent"):
            history.on_llm_start({}, [], run_id=CANCELLED_RUN)
        for name in ("asked", "added"):
            history.add_messages("And then?", conversation_id=name)
    empty = ConversationRow("empty", user_id=None, title=None, metadata=None, created_at=now())
    import_(database, io.StringIO("".join(write([empty]))))
    rows = json.loads(cli("ls", "--json", url=database).stdout)
    assert [(row["id"], row["runs"], row["messages"], row["status"], row["opening"]) for row in rows] == [
        ("added", 0, 2, None, "Hello added"),
        ("asked", 0, 2, None, "Hello asked"),
        ("silent", 1, 0, "interrupted", None),
        ("empty", 0, 0, None, None),
    ]
    assert rows[-1]["last_at"] is None
    assert [row["id"] for row in json.loads(cli("ls", "--json", "-n", "1", url=database).stdout)] == ["added"]
    assert cli("ls", url=database).stdout.splitlines()[-1].split()[0] == "empty"


def test_show_prints_messages_tool_calls_and_errors(url: str) -> None:
    """A conversation is shown with text, tool calls, a partial answer and how each run ended."""
    shown = cli("show", "trip", url=url).stdout
    for expected in (
        "conversation trip\n",
        "Go to Paris.\n",
        'calls book({"city":"Paris"})\n',
        "Sing [bold]loud[/bold]\n",
        f"error  gpt-4o-mini  run {FAILED}",
        "\nLa\n",
    ):
        assert expected in shown


def test_control_characters_of_a_model_are_escaped_by_commands(url: str) -> None:
    """Every command that shows text prints control characters as escapes."""
    for command in (["show", "trip"], ["ls"], ["sql", "SELECT content FROM transcripts"]):
        shown = cli(*command, url=url).stdout
        assert r"\x1b[31m" in shown
        assert "\x1b" not in shown


def test_show_lists_a_run_without_an_answer(url: str) -> None:
    """A cancelled run is shown with its status and without text."""
    shown = cli("show", "trap", url=url).stdout
    assert "1 message, 1 run" in shown
    assert f"assistant  cancelled  gpt-4o-mini  run {CANCELLED_RUN}  no text" in shown


def test_show_finds_a_run_by_the_start_of_its_id(url: str) -> None:
    """It prints the status, the error and the number of tokens."""
    shown = cli("show", "01b", url=url).stdout
    assert f"run {CANCELLED_RUN}" in shown
    assert "cancelled" in shown
    shown = cli("show", str(FAILED), url=url).stdout
    assert "ValueError: out of breath" in shown
    assert "1 token" in shown


def test_show_of_a_run_has_its_question_and_its_answer(database: str) -> None:
    """Though an earlier run gave the same answer, which is stored once, or the request ends with a reply."""
    with ChatHistoryCallback(database, conversation_id="c") as history:
        runs = [record_reply(history, HumanMessage("Ping?"), reply="Pong.") for _ in range(2)]
        runs.append(record_reply(history, HumanMessage("Ping?"), AIMessage("Po"), reply="ng."))
    shown = [cli("show", str(run), url=database).stdout.split("\n\n", 1)[1] for run in runs]
    assert shown == [
        f"user\nPing?\n\nassistant  complete  run {runs[0]}\nPong.\n",
        f"user\nPing?\n\nassistant  complete  run {runs[1]}\nPong.\n",
        f"user\nPing?\n\nassistant\nPo\n\nassistant  complete  run {runs[2]}\nng.\n",
    ]


def test_show_lists_the_tokens_of_a_run(url: str) -> None:
    """`--tokens` prints every token in order, with its time."""
    found = json.loads(cli("show", str(ANSWERED), "--tokens", "--json", url=url).stdout)
    assert [token["text"] for token in found["tokens"]] == ["Go", " to", " Paris", "."]
    assert [token["seq"] for token in found["tokens"]] == [0, 1, 2, 3]
    assert found["metadata"]["ls_provider"] == "openai"


def test_show_without_an_id_shows_the_newest_run(url: str) -> None:
    """It is the run that `recorder replay` plays without an id."""
    assert cli("show", url=url).stdout == cli("show", str(CANCELLED_RUN), url=url).stdout


def test_show_and_ls_have_the_title_the_user_and_the_tags_of_a_conversation(tmp_path: Path) -> None:
    """`ls` finds it by its user and by its tag, also where no run has the tag."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url) as history:
        for name, user, tag in (("c-1", "ada", "refund"), ("c-2", "bob", "parcel")):
            with history.conversation(name, user=user, title=f"Title {name}", tags=[tag]):
                record_reply(history, HumanMessage("Hi"))
    shown = cli("show", "c-1", url=url).output
    assert "Title c-1" in shown
    assert "user ada, tagged refund" in shown
    assert "Title c-2" in cli("ls", "--tag", "parcel", "--user", "bob", url=url).output
    assert "c-1" not in cli("ls", "--tag", "parcel", url=url).output


def test_an_ambiguous_id_is_refused_with_the_candidates(url: str) -> None:
    """The message is on stderr, and the exit code is 1."""
    done = cli("show", "tr", url=url)
    assert done.exit_code == 1
    assert "More than one id begins with 'tr'" in done.stderr
    assert "conversation trap" in done.stderr
    assert "conversation trip" in done.stderr


def test_an_exact_id_wins_over_longer_ones(tmp_path: Path) -> None:
    """A conversation "a" can be shown although there is "ab"."""
    url = f"sqlite:///{tmp_path / 'chats.db'}"
    with ChatHistoryCallback(url) as history:
        for name, run in (("a", ANSWERED), ("ab", FAILED)):
            with history.conversation(name):
                ask(history, run, f"I am {name}", [])
                history.on_llm_end(answered(AIMessage("Yes.")), run_id=run)
    assert cli("show", "a", url=url).stdout.startswith("conversation a\n")


def test_an_unknown_id_is_refused_with_the_nearest_one(url: str) -> None:
    """A mistyped id is answered with a similar stored id."""
    done = cli("show", "tripp", url=url)
    assert (done.exit_code, done.stdout) == (1, "")
    message_text = "recorder: Nothing is stored under 'tripp'; the nearest are:\n  conversation trip\n"
    assert done.stderr.startswith(message_text)


def test_sql_prints_rows(url: str) -> None:
    """The output has column names, then values; a colon in a statement is not a parameter."""
    statement = "SELECT role, ':x' AS colon, CAST('1' AS int) AS one FROM messages WHERE role = 'assistant'"
    lines = cli("sql", statement, url=url).stdout.splitlines()
    assert lines[0].split() == ["role", "colon", "one"]
    assert lines[2].split() == ["assistant", ":x", "1"]


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_wide_rows_are_printed_with_one_column_per_line(url: str, columns: int) -> None:
    """Nothing is cut when the columns do not fit side by side."""
    shown = cli("sql", "SELECT * FROM transcripts", url=url, columns=columns).stdout
    assert max(map(len, shown.splitlines())) <= columns
    assert "conversation_id  trip" in shown


def test_sql_prints_json(url: str) -> None:
    """Numbers, text, NULL and bytes are all represented."""
    data = "x'00ff'" if is_file(url) else r"'\x00ff'::bytea"
    statement = f"SELECT 1 AS one, 'a\nb' AS text, NULL AS missing, {data} AS bytes"
    assert json.loads(cli("sql", "--json", statement, url=url).stdout) == [
        {"one": 1, "text": "a\nb", "missing": None, "bytes": {"$base64": True, "encoded": "AP8="}}
    ]
    assert json.loads(cli("sql", "--json", "SELECT 1 WHERE 1 = 0", url=url).stdout) == []


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM runs",
        "CREATE TABLE mine (a int)",
        f"INSERT INTO gaps VALUES ('{ANSWERED}', 1, 1, 'x')",
        "DROP VIEW tokens",
    ],
)
def test_sql_only_reads(url: str, statement: str) -> None:
    """A statement that writes is refused, and nothing changes."""
    before = json.loads(cli("stats", "--json", url=url).stdout)
    done = cli("sql", statement, url=url)
    assert done.exit_code == 1
    assert "only reads" in done.stderr
    assert json.loads(cli("stats", "--json", url=url).stdout) == before


def test_an_invalid_statement_shows_the_databases_error_and_the_views(url: str) -> None:
    """The message names the four views that can be queried."""
    done = cli("sql", "SELECT wrong FROM transcripts", url=url)
    assert done.exit_code == 1
    assert ("no such column: wrong" if is_file(url) else 'column "wrong" does not exist') in done.stderr
    assert "transcripts, tokens, chathistory and run_stats" in done.stderr


def test_stats_count_what_is_stored(url: str) -> None:
    """The numbers equal those of SQL, and the bytes those of the files."""
    found = json.loads(cli("stats", "--json", url=url).stdout)
    if is_file(url):
        files = [Path(url.removeprefix("sqlite:///") + end) for end in ("", "-wal")]
        assert found["bytes"] == sum(file.stat().st_size for file in files if file.exists())
    else:
        [(size,)] = sql(url, "SELECT pg_database_size(current_database())")
        assert 0 < found["bytes"] < size
    assert found["runs_by_status"] == {"cancelled": 1, "complete": 1, "error": 1}
    assert (found["conversations"], found["runs"], found["tokens"]) == (2, 3, 5)
    assert "3 (1 cancelled, 1 complete, 1 error)" in cli("stats", url=url).stdout


@pytest.mark.parametrize("command", [["ls"], ["show", "x"], ["sql", "SELECT 1"], ["stats"]])
def test_reading_a_missing_file_does_not_create_it(command: list[str], tmp_path: Path) -> None:
    """The message names the file."""
    done = cli(*command, url=f"sqlite:///{tmp_path / 'none.db'}")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "none.db" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_a_database_is_named(tmp_path: Path) -> None:
    """The file is not changed."""
    file = tmp_path / "notes.txt"
    file.write_text("Not a database, just some notes.\n" * 100)
    for command in (["ls"], ["migrate"]):
        done = cli(*command, url=f"sqlite:///{file}")
        assert done.exit_code == 1
        assert "notes.txt" in done.stderr
        assert "not a database" in done.stderr
    assert file.read_text().startswith("Not a database, just")


def test_a_newer_schema_is_refused_with_the_command_to_run(tmp_path: Path) -> None:
    """An older recorder does not read tables of a newer revision."""
    url = f"sqlite:///{tmp_path / 'chats.db'}"
    assert cli("migrate", url=url).exit_code == 0
    connection = sqlite3.connect(tmp_path / "chats.db")
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    for command in (["ls"], ["migrate"]):
        done = cli(*command, url=url)
        assert done.exit_code == 1
        assert "install a newer version of chat-recorder" in done.stderr


def test_a_password_is_never_printed() -> None:
    """A URL of an unknown kind is refused by its scheme, without its password."""
    for command in (["ls"], ["migrate"], ["stats"], ["demo"]):
        done = cli(*command, "--url", "mysql://user:s3cret@localhost/chats")
        assert done.exit_code == 1
        assert "mysql" in done.stderr
        assert "s3cret" not in done.output


def test_migrate_creates_a_database_once(tmp_path: Path) -> None:
    """The first call applies all revisions, the second one has nothing to do."""
    url = f"sqlite:///{tmp_path / 'chats.db'}"
    assert f"applied {', '.join(REVISIONS)}" in cli("migrate", url=url).stdout
    assert "nothing to do" in cli("migrate", url=url).stdout
    assert cli("ls", url=url).stdout == "No conversation is recorded yet.\n"


def test_the_default_database_is_in_the_current_folder(tmp_path: Path) -> None:
    """Without --url and RECORDER_URL it is chat_history.db."""
    done = process("migrate", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "chat_history.db").exists()


def test_output_in_a_pipe_is_not_cut(url: str, tmp_path: Path) -> None:
    """A pipe gets complete values without colour."""
    done = process("sql", f"SELECT *, '{'0' * 600}' AS long FROM transcripts", "--url", url, folder=tmp_path)
    assert "0" * 600 in done.stdout
    assert "\x1b" not in done.stdout


def test_characters_that_the_encoding_lacks_are_escaped(tmp_path: Path) -> None:
    """A terminal with ASCII shows escapes, and the exit code is 0."""
    statement = "SELECT 'caf' || char(233) AS word"
    assert process("migrate", folder=tmp_path).returncode == 0
    done = process("sql", statement, folder=tmp_path, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert r"caf\xe9" in done.stdout


def test_an_error_is_one_message_and_no_traceback(tmp_path: Path) -> None:
    """The process prints one message to stderr and exits with code 1."""
    done = process("ls", folder=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("recorder: There is no file chat_history.db")
    assert "Traceback" not in done.stderr


def test_the_demo_prints_an_answer_and_its_rows(tmp_path: Path) -> None:
    """In a pipe it prints the answer, SQL with its results, and commands that work, without colour."""
    done = process("demo", "--pace", "1000", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert song() in done.stdout
    assert "\x1b" not in done.stdout
    rows = json.loads(process("sql", "--json", "SELECT * FROM transcripts", folder=tmp_path).stdout)
    assert [(row["role"], row["status"]) for row in rows] == [("user", "complete"), ("assistant", "complete")]
    assert rows[1]["content"] == song()
    suggested = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("  recorder ")]
    assert suggested.pop() == ["serve"]
    assert [process(*command, folder=tmp_path).returncode for command in suggested] == [0, 0, 0, 0]


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_the_demo_fits_the_terminal(columns: int, tmp_path: Path) -> None:
    """No line is wider than 60 columns."""
    done = cli("demo", "--pace", "5000", columns=columns, url=f"sqlite:///{tmp_path / 'd.db'}")
    assert done.exit_code == 0
    assert max(len(line) for line in done.stdout.splitlines() if "d.db" not in line) <= 60
    assert done.stdout.count("SELECT") == 3


def test_the_demo_works_where_a_proxy_is_set(tmp_path: Path) -> None:
    """The loopback provider is called without the proxy."""
    proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"), "http://127.0.0.1:9")
    done = process("demo", "--pace", "5000", folder=tmp_path, **proxies)
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_stops_the_demo_and_stores_its_tokens(tmp_path: Path) -> None:
    """The run is stored as cancelled with its tokens, and the exit code is 130."""
    code = "from recorder.cli.app import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "demo", "--pace", "20"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "RECORDER_URL": "sqlite:///chat_history.db"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as demo:
        assert demo.stdout is not None
        before = ""
        while "A thousand stars" not in before:
            before += demo.stdout.readline()
        demo.send_signal(signal.SIGINT)
        after, errors = demo.communicate(timeout=40)
    assert (demo.returncode, errors) == (130, "")
    assert "Stopped. The " in after
    assert "cancelled" in after
    rows = json.loads(process("sql", "--json", "SELECT * FROM transcripts", folder=tmp_path).stdout)
    assert rows[1]["status"] == "cancelled"
    assert rows[1]["content"]
    assert song().startswith(rows[1]["content"])


def test_help_loads_neither_an_sdk_nor_a_database() -> None:
    """`recorder --help` starts fast because it imports neither."""
    code = (
        "import sys, recorder.cli.app; "
        "print([name for name in ('openai', 'sqlalchemy', 'alembic') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\tb\nc", "a\tb\nc"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\u202eevil", r"\u202eevil"),
        ("\x9b2J\x00", r"\x9b2J\x00"),
        ("\ud83d", r"\ud83d"),
        ("naïve 水", "naïve 水"),
    ],
)
def test_printable_escapes_control_characters(text: str, shown: str) -> None:
    """Letters of every script are unchanged."""
    assert printable(text) == shown


def test_sizes_and_plurals_are_readable() -> None:
    """`size` and `plural` return numbers as people write them."""
    assert [size(999), size(1500), size(2_500_000)] == ["999 bytes", "1.5 KB", "2.5 MB"]
    assert [plural(1, "run"), plural(0, "run"), plural(1000, "run")] == ["1 run", "0 runs", "1,000 runs"]


TRICK = "\x1b]0;owned\x07\x9b2J\u202e"


@pytest.mark.parametrize(
    "arguments",
    [("show", "x" + TRICK), ("replay", "x" + TRICK), ("export", "x" + TRICK), (TRICK,), ("ls", "--" + TRICK)],
    ids=["show", "replay", "export", "no command", "no option"],
)
def test_errors_contain_no_control_characters(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """Ids in an error message are escaped, both the given one and the nearest stored one."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url) as history, history.conversation(f"x{TRICK}y"):
        ask(history, ANSWERED, "Hi", ["a"])
        history.on_llm_end(answered(AIMessage("a")), run_id=ANSWERED)
    with ChatHistoryCallback(url) as history, history.conversation(f"x{TRICK}z"):
        ask(history, CANCELLED_RUN, "Hi", ["a"])
        history.on_llm_end(answered(AIMessage("a")), run_id=CANCELLED_RUN)
    done = cli(*arguments, url=url)
    assert done.exit_code in (1, 2)
    assert done.stderr
    assert printable(done.output) == done.output


def test_json_escapes_control_characters(tmp_path: Path) -> None:
    """The JSON contains no control characters and decodes to the original text."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url) as history, history.conversation("c" + TRICK):
        ask(history, ANSWERED, TRICK, [TRICK])
        history.on_llm_end(answered(AIMessage(TRICK)), run_id=ANSWERED)
    shown = [cli(command, "c", "--json", url=url).stdout for command in ("show", "replay")]
    shown.append(cli("sql", 'SELECT content, id AS "\x1b[31m" FROM messages', "--json", url=url).stdout)
    assert [printable(each) for each in shown] == shown
    assert json.loads(shown[0])["id"] == "c" + TRICK
    assert json.loads(shown[1].splitlines()[0])["text"] == TRICK
    assert json.loads(shown[2])[0]["content"] == TRICK


def test_control_characters_in_column_names_are_escaped(tmp_path: Path) -> None:
    """The names in a file from somebody else may contain control characters."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url) as history:
        history.flush().wait()
    done = cli("sql", 'SELECT 1 AS "\x1b[31m\u202e"', url=url)
    assert (done.exit_code, printable(done.stdout)) == (0, done.stdout)


def test_an_unexpected_error_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A traceback is printed only with RECORDER_TRACEBACK=1."""

    def fail(_url: str) -> str:
        raise ZeroDivisionError("a\x1b[31m\nb")

    monkeypatch.setattr("recorder.cli.queries.upgrade_schema", fail)
    done = cli("migrate")
    line = (
        r"recorder: ZeroDivisionError: a\x1b[31m b; "
        "this is unexpected, please report it; RECORDER_TRACEBACK=1 shows the traceback"
    )
    assert (done.exit_code, done.stderr) == (1, line + "\n")
    monkeypatch.setenv("RECORDER_TRACEBACK", "1")
    done = cli("migrate")
    assert "in fail" in done.stderr
    assert printable(done.stderr) == done.stderr
