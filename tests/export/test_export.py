"""Exports and imports keep the rows of both databases, store nothing twice, and report invalid files."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import sqlite3
import stat
import tempfile
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import openai
import pytest
import zstandard
from hypothesis import given, settings

from recorder import ChatHistoryCallback, ConfigError, NotFound, StoreError
from recorder.core.clock import now
from recorder.export import Counts, Exported, Imported, export, files, import_
from recorder.export.format import Row, write
from recorder.messages import AIMessage, HumanMessage
from recorder.storage import schema
from recorder.storage.compression import decompress
from recorder.storage.rows import (
    INTERRUPTED,
    ContextMessageRow,
    ConversationRow,
    FrameRow,
    MessageRow,
    Producer,
    RunRow,
)
from recorder.storage.store import SqlStore
from recorder.storage.store_interface import Conflict
from recorder.testing import Answer, LoopbackProvider, scripted
from tests import anthropics, chatting
from tests.export.test_format import (
    ANNOTATION,
    CONVERSATION,
    EVERYTHING,
    FRAMES,
    GAP,
    MESSAGE,
    PRODUCER,
    RUN,
    RUN_ID,
    START,
    exports,
    frame_row,
    run_row,
    segment,
    stored_rows,
)
from tests.genuine import MISSING, anthropic_streams, chat_streams
from tests.oracle import assert_whole, begin, finish, new_url, record, say, sql, stored
from tests.wires import unhurried


def written(url: str, *ids: str) -> list[str]:
    """Return the lines of an export without its header, which contains a time."""
    return export_text(url, *ids).splitlines(keepends=True)[1:]


def export_text(url: str, *ids: str) -> str:
    """Return an export as text."""
    file = io.StringIO()
    export(url, file, ids or None)
    return file.getvalue()


def of_rows(*rows: Row) -> io.StringIO:
    """Return an export with these rows."""
    return io.StringIO("".join(write(rows)))


def kinds(lines: list[str]) -> list[str]:
    """Return the kinds of these lines."""
    return [json.loads(line)[1] for line in lines]


# -- export and import -------------------------------------------------------------------------------------------


def test_rows_are_equal_after_an_export_to_postgres_and_back(tmp_path: Path, postgres_url: str) -> None:
    """SQLite to Postgres to SQLite: rows, lines and seals are the same."""
    url = new_url(tmp_path)
    texts = [f"token {number}\x00\ud800é" for number in range(2_000)]
    with ChatHistoryCallback(url) as history:
        for name in ("b", "a", "é", "B", "\ue000", "\U00010000"):
            with history.conversation(name):
                record(history, HumanMessage("Hi\x00\ud83d"), reply="Hello\ufdd0")
        run_id = begin(history)
        say(history, run_id, texts)
        finish(history, run_id, "".join(texts), finish_reason="stop")
    back = new_url(tmp_path, "back.db")
    for before, after in ((url, postgres_url), (postgres_url, back)):
        assert import_(after, io.StringIO(export_text(before))).there == Counts()
        assert stored_rows(after) == stored_rows(url)
        assert written(after) == written(url)
        assert_whole(after, run_id, texts)


def test_genuine_streams_are_equal_after_an_export_to_postgres_and_back(
    tmp_path: Path, postgres_url: str
) -> None:
    """Frames and tokens of every genuine stream are the same byte for byte, with their hashes."""
    url, back = record_genuine(tmp_path), new_url(tmp_path, "back.db")
    rows = stored_rows(url)
    for before, after in ((url, postgres_url), (postgres_url, back)):
        import_(after, io.StringIO(export_text(before)))
        assert stored_rows(after) == rows
    assert written(back) == written(url)
    for run in (row for row in rows if isinstance(row, RunRow)):
        run_in_copy = stored(back, run.id)
        assert (run_in_copy.sha256, run_in_copy.token_count) == (
            run_in_copy.found_sha256,
            len(run_in_copy.texts),
        )


def record_genuine(folder: Path) -> str:
    """Record every genuine stream that our models can read, and return the database."""
    streams = [stream for stream in (*chat_streams(), *anthropic_streams()) if stream.status == 200]
    if not streams:
        pytest.skip(MISSING)
    answers = scripted(*(Answer(frames=[stream.body]) for stream in streams))
    url = new_url(folder)
    with LoopbackProvider(answers) as provider, ChatHistoryCallback(url) as history:
        openai_chat = chatting.chat(provider, callbacks=[history])
        anthropic_chat = anthropics.chat(provider, callbacks=[history])
        for stream in streams:
            model: Any = anthropic_chat if stream.path.endswith("/v1/messages") else openai_chat
            try:
                list(model.stream("Hi"))
            except openai.APIError:
                pass  # the stream ends with an error event and is recorded up to it
    return url


@settings(unhurried, max_examples=settings().max_examples // 4)  # each stores and reads two databases
@given(exports())
def test_any_rows_are_equal_after_an_import(rows: list[Row]) -> None:
    """Rows with NUL, lone surrogates and foreign JSON come back; a second import finds nothing new."""
    rows = possible(rows)
    with tempfile.TemporaryDirectory() as folder:
        url, copy = new_url(Path(folder)), new_url(Path(folder), "copy.db")
        first = import_(url, of_rows(*rows))
        import_(copy, io.StringIO(export_text(url)))
        assert stored_rows(copy) == stored_rows(url)
        assert sorted(stored_rows(copy), key=as_line) == sorted(rows, key=as_line)
        assert written(copy) == written(url)
        again = import_(copy, io.StringIO(export_text(url)))
        assert (again.new, again.there) == (Counts(), first.new)


def as_line(row: Row) -> str:
    """Return a text that is equal for equal rows."""
    return repr(row).replace(", fold=1", "")


def possible(rows: list[Row]) -> list[Row]:
    """Remove rows with a duplicate key, and give each message and run a conversation that exists."""
    seen: set[Any] = set()
    found: list[Row] = []
    conversation = ""
    for row in rows:
        if isinstance(row, ConversationRow):
            conversation = row.id
        if isinstance(row, (MessageRow, ContextMessageRow, RunRow)):
            row = row._replace(conversation_id=conversation)
        key = (type(row), *((row.id,) if isinstance(row, (ConversationRow, RunRow)) else row[:2]))  # type: ignore[index]
        if key not in seen:
            found.append(row)
        seen.add(key)
    return found


def test_both_databases_export_conversations_in_the_same_order(tmp_path: Path, postgres_url: str) -> None:
    """The order is that of code points, not of a language, also across pages."""
    names = ["b", "a", "B", "_", "é", "\ue000", "\U00010000", *(f"c{number}" for number in range(6_000))]
    rows = [ConversationRow(name, None, None, None, START) for name in names]
    for url in (new_url(tmp_path), postgres_url):
        import_(url, of_rows(*rows))
        ids = [json.loads(line)[2]["id"] for line in written(url)[:-1]]
        assert ids == sorted(names)


def test_a_long_run_is_exported_and_imported_in_bounded_memory(database: str, tmp_path: Path) -> None:
    """50,000 tokens, which take 7 MiB as Python objects, take less than 5 MiB."""
    file, url = tmp_path / "long.jsonl", new_url(tmp_path, "long.db")

    def rows() -> Iterator[Row]:
        yield CONVERSATION
        yield run_row(token_count=50_000)
        for seq in range(0, 50_000, 500):
            yield segment(seq, *((number, f"token {number}") for number in range(seq, seq + 500)))

    with file.open("w") as out:
        out.writelines(write(rows()))
    tracemalloc.start()
    try:
        assert import_(database, file).new.tokens == 50_000
        assert export(database, tmp_path / "again.jsonl").written.tokens == 50_000
        assert tracemalloc.get_traced_memory()[1] < 5 * 2**20
    finally:
        tracemalloc.stop()
    same = [path.read_text().split("\n", 1)[1] for path in (file, tmp_path / "again.jsonl")]
    assert same[0] == same[1]
    assert import_(url, tmp_path / "again.jsonl").new.tokens == 50_000


# -- selection -----------------------------------------------------------------------------------------------------


def test_a_conversation_is_chosen_by_the_beginning_of_its_id(database: str) -> None:
    """The export contains the whole conversation and nothing else."""
    with ChatHistoryCallback(database) as history:
        for name in ("trip", "song", "soup"):
            with history.conversation(name):
                record(history, HumanMessage(name))
    assert kinds(written(database, "tr")).count("run") == 1
    assert [
        json.loads(line)[2]["id"] for line in written(database, "soup", "tr") if "conversation" in line[:20]
    ] == [
        "soup",
        "trip",
    ]
    with pytest.raises(NotFound, match="More than one"):
        export_text(database, "so")
    with pytest.raises(NotFound, match="nearest are:\n  conversation trip"):
        export_text(database, "tripp")


def test_an_export_of_a_run_has_the_path_to_its_answer(database: str) -> None:
    """Later messages and other branches are left out."""
    prompt: list[Any] = [HumanMessage("1")]
    with ChatHistoryCallback(database, conversation_id="c") as history:
        runs = []
        for number in range(3):
            runs.append(record(history, *prompt, reply=f"reply {number}"))
            prompt += [AIMessage(f"reply {number}"), HumanMessage(f"question {number}")]
    lines = written(database, str(runs[1]))
    texts = [json.loads(line)[2]["content"] for line in lines if json.loads(line)[1] == "message"]
    assert texts == ["1", "reply 0", "question 0", "reply 1"]
    assert [json.loads(line)[2]["id"] for line in lines if json.loads(line)[1] == "run"] == [str(runs[1])]
    copied = import_(database, io.StringIO(export_text(database, str(runs[1]))))
    assert (copied.new.runs, copied.there.runs, copied.there.messages) == (0, 1, 4)


def test_a_run_that_still_streams_is_left_out(database: str) -> None:
    """The result names it, its question is exported, and a later export contains the run."""
    copy = io.StringIO()
    with ChatHistoryCallback(database, conversation_id="c") as history:
        run_id = begin(history)
        say(history, run_id, ["La"])
        history.flush().wait()
        done = export(database, copy)
        assert done.left_out == [str(run_id)]
        assert (done.written.runs, done.written.messages) == (0, 1)
        finish(history, run_id, "La")
    assert export(database, io.StringIO()).written.runs == 1


def test_an_open_run_of_a_dead_process_is_exported_as_interrupted(tmp_path: Path) -> None:
    """If the run is sealed later, the next import replaces the status, and an older export does not change it back."""
    url, copy = new_url(tmp_path), new_url(tmp_path, "copy.db")
    history = ChatHistoryCallback(url, conversation_id="c")
    run_id = begin(history)
    say(history, run_id, ["La"])
    history.flush().wait()
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        connection.execute("UPDATE producers SET heartbeat_at = '2026-01-01T00:00:00.000000Z'")
    connection.close()
    early = export_text(url)
    assert import_(copy, io.StringIO(early)).new.tokens == 1
    assert sql(copy, "SELECT status, ended_at FROM runs") == [(INTERRUPTED, "2026-01-01T00:00:00.000000Z")]
    say(history, run_id, [" la"])
    finish(history, run_id, "La la")
    history.close().wait()
    late = import_(copy, io.StringIO(export_text(url)))
    assert (late.new.runs, late.new.tokens) == (1, 1)
    assert_whole(copy, run_id, ["La", " la"])
    assert import_(copy, io.StringIO(early)).new == Counts()
    assert_whole(copy, run_id, ["La", " la"])


# -- files ----------------------------------------------------------------------------------------------------------


def test_an_export_to_a_gz_file_is_compressed(tmp_path: Path) -> None:
    """An import recognizes gzip by its first bytes, whatever the name is, and reports a cut file."""
    url = new_url(tmp_path)
    import_(url, of_rows(*EVERYTHING))
    packed, renamed = tmp_path / "all.jsonl.gz", tmp_path / "all.bin"
    export(url, packed)
    assert gzip.decompress(packed.read_bytes()).decode().splitlines(keepends=True)[1:] == written(url)
    renamed.write_bytes(packed.read_bytes())
    for file in (renamed, io.BufferedReader(io.BytesIO(packed.read_bytes()))):
        assert import_(url, file).there.tokens == 3
    renamed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(StoreError, match="gzip and damaged, or was cut off"):
        import_(url, renamed)


def test_a_file_may_be_open_for_text_or_bytes(tmp_path: Path) -> None:
    """Text and binary files get the same content."""
    url = new_url(tmp_path)
    import_(url, of_rows(*EVERYTHING))
    file = io.BytesIO()
    export(url, file)
    assert file.getvalue().decode().splitlines(keepends=True)[1:] == written(url)
    with tempfile.TemporaryFile("w+", encoding="utf-8") as text:
        export(url, text)
        text.seek(0)
        assert import_(url, text).there.runs == 1


@pytest.mark.parametrize("name", ["chat.jsonl", "chat.jsonl.gz"])
def test_a_new_export_can_be_read_by_its_owner_only(name: str, tmp_path: Path) -> None:
    """A new file has mode 0600; an existing file keeps its mode."""
    url, path = new_url(tmp_path), tmp_path / name
    before = os.umask(0)
    try:
        export(url, path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.chmod(0o644)
        export(url, path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
    finally:
        os.umask(before)
    assert not list(tmp_path.glob("*.part"))


def test_a_failed_export_does_not_change_the_file(tmp_path: Path) -> None:
    """No other file is left in the folder."""
    url, file = new_url(tmp_path), tmp_path / "kept.jsonl"
    import_(url, of_rows(*EVERYTHING))
    file.write_text("mine")

    def fail(_done: int, _total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(url, file, progress=fail)
    assert file.read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} <= {
        "kept.jsonl",
        "history.db",
        "history.db-wal",
        "history.db-shm",
    }


@pytest.mark.parametrize("name", ["history.db", "link.jsonl"])
def test_an_export_does_not_overwrite_the_database(name: str, tmp_path: Path) -> None:
    """It is refused under another name of the file, too."""
    url = new_url(tmp_path)
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "history.db")
    with pytest.raises(ConfigError, match="is the database itself"):
        export(url, tmp_path / name)


def test_a_folder_or_a_missing_file_is_refused(tmp_path: Path) -> None:
    """The error says what to name instead."""
    url = new_url(tmp_path)
    with pytest.raises(ConfigError, match=r"is a directory; name a file in it"):
        export(url, tmp_path)
    with pytest.raises(ConfigError, match=r"folder .* of a\.jsonl does not exist"):
        export(url, tmp_path / "none" / "a.jsonl")
    with pytest.raises(ConfigError, match=r"none\.jsonl cannot be read: No such file"):
        import_(url, tmp_path / "none.jsonl")


def test_progress_is_reported_in_tokens_and_bytes(tmp_path: Path) -> None:
    """The numbers grow up to the total."""
    url, file = new_url(tmp_path), tmp_path / "a.jsonl"
    rows = [segment(100 * number, *((number, "é") for _ in range(100))) for number in range(300)]
    import_(url, of_rows(*EVERYTHING[:3], run_row(token_count=30_000), *rows))
    reports: list[tuple[int, int | None]] = []
    export(url, file, progress=lambda *given: reports.append(given))
    assert reports == sorted(reports)
    assert len(reports) > 50
    assert reports[-1] == (30_000, 30_000)
    reports.clear()
    import_(url, file, progress=lambda *given: reports.append(given))
    assert reports[-1] == (file.stat().st_size, file.stat().st_size)


def test_export_and_import_work_on_a_running_loop(tmp_path: Path) -> None:
    """They can be called in a notebook."""

    async def main() -> tuple[Exported, Imported]:
        url = new_url(tmp_path)
        got = import_(url, of_rows(*EVERYTHING))
        return export(url, io.StringIO()), got

    exported, imported = asyncio.run(main())
    assert exported.written == imported.new


# -- rows that are stored already -------------------------------------------------------------------------------


def test_a_second_import_changes_nothing(database: str) -> None:
    """Rows that are stored already are counted as such."""
    first, again = (import_(database, of_rows(*EVERYTHING)) for _ in range(2))
    everything = Counts(1, 1, 1, 3, 2, 1, 1, 1, context_messages=1)
    assert (first.new, first.there) == (everything, Counts())
    assert (again.new, again.there) == (Counts(), everything)


def test_a_run_without_said_at_equals_the_same_run_with_it(database: str) -> None:
    """Exports of older versions lack the column; importing both in any order is no conflict."""
    newer = RUN._replace(said_at=RUN.started_at)
    for run in (RUN, newer, RUN):
        import_(database, of_rows(run))
    import_(database, of_rows(newer))
    with pytest.raises(StoreError, match="stored already with another status"):
        import_(database, of_rows(newer._replace(status="error")))


def test_the_later_heartbeat_of_a_producer_is_kept(database: str) -> None:
    """The order of the imports does not matter."""
    later = replace(PRODUCER, heartbeat_at=PRODUCER.heartbeat_at + timedelta(seconds=9))
    for producer in (PRODUCER, later, PRODUCER):
        import_(database, of_rows(producer))
    assert [row for row in stored_rows(database) if isinstance(row, Producer)] == [later]


@pytest.mark.parametrize(
    ("row", "named"),
    [
        (CONVERSATION._replace(title="Other"), "conversations c: stored already with another title, None and not"),
        (MESSAGE._replace(content="Bye"), f"messages c, {MESSAGE.id}: stored already with another content"),
        (RUN._replace(status="error"), f"runs {RUN_ID}: stored already with another status, 'complete'"),
        (segment(0, (1, "Ho")), f"segments {RUN_ID}, 0: stored already with another count, 3 and not 1"),
        (frame_row(0, (308_610, b"a"), (341_943, b"b")), f"frames {RUN_ID}, 0: stored already with another data"),
        (GAP._replace(reason="?"), f"gaps {RUN_ID}, 3: stored already with another reason"),
        (ANNOTATION._replace(score=0.9), "annotations .*: stored already with another score, 0.1 and not 0.9"),
    ],
    ids=lambda given: type(given).__name__,
)  # fmt: skip
def test_a_row_with_other_content_under_the_same_key_is_refused(row: Row, named: str, database: str) -> None:
    """The error names the row and both values, and nothing of the transaction is stored."""
    import_(database, of_rows(*EVERYTHING))
    before = stored_rows(database)
    new = ConversationRow("new", None, None, None, START)
    rows = [new, row] if isinstance(row, (ConversationRow, MessageRow, RunRow)) else [new, RUN, row]
    with pytest.raises(Conflict, match=named):
        import_(database, of_rows(*rows))
    assert stored_rows(database) == before


def test_frames_that_are_compressed_differently_are_equal(database: str) -> None:
    """The uncompressed frames are compared."""
    import_(database, of_rows(*EVERYTHING))
    repacked = FRAMES._replace(data=zstandard.compress(block_of(FRAMES), 19), dictionary=None)
    assert repacked.data != FRAMES.data
    asyncio.run(store_frames(database, repacked))
    assert import_(database, of_rows(*EVERYTHING)).there.frames == 2


def block_of(row: FrameRow) -> bytes:
    """Return the uncompressed frames of a row."""
    return decompress(row.data, row.dictionary)


async def store_frames(url: str, row: FrameRow) -> None:
    """Replace the bytes of a stored row of frames."""
    store = SqlStore(url)
    await store.open()
    async with store.transaction() as connection:
        changed = schema.frames.update().values(data=row.data, dictionary=row.dictionary)
        await connection.execute(changed)
    await store.close()


# -- invalid files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", ConfigError, "is empty"),
        ("Dear diary\n", ConfigError, "not an export of recorder: it begins with b?'Dear diary'"),
        ('{"format":"recorder","version":99}', ConfigError, "install a newer version"),
        ('{"version": 2, "width": 80}\n[0.1, "o", "hi"]', ConfigError, "not an export"),
    ],
)
def test_an_invalid_export_creates_no_database(
    text: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    """The file is refused before a database is created."""
    file = tmp_path / "file"
    file.write_text(text)
    with pytest.raises(error, match=message):
        import_(f"sqlite:///{tmp_path / 'new.db'}", file)
    assert not (tmp_path / "new.db").exists()


def test_an_import_creates_the_database(tmp_path: Path) -> None:
    """A missing database file is created, as recording does."""
    url = f"sqlite:///{tmp_path / 'new.db'}"
    assert import_(url, of_rows(*EVERYTHING)).new.runs == 1
    assert len(stored_rows(url)) == len(EVERYTHING)


def test_the_runs_before_a_damaged_line_are_stored(database: str) -> None:
    """The damaged run is not stored; an import of the repaired file adds it."""
    second = str(UUID(int=77))
    lines = list(write([*EVERYTHING, run_row(id=second), segment(0, (1, "a"), run_id=second)]))
    place = next(number for number, line in enumerate(lines) if line == '[1,"text","a"]\n')
    damaged = [*lines[:place], '[1,"text","b"]\n', *lines[place + 1 :]]
    with pytest.raises(
        StoreError, match=rf"run {second} is not the same as when.* \(1 runs before it are stored"
    ):
        import_(database, io.StringIO("".join(damaged)))
    assert sql(database, "SELECT id FROM runs") == [(RUN_ID,)]
    mended = import_(database, io.StringIO("".join(lines)))
    assert (mended.there.runs, mended.new.runs, mended.new.tokens) == (1, 1, 1)


def test_a_damaged_long_run_is_not_stored(tmp_path: Path) -> None:
    """No segment is stored, although many were read before the damage."""
    url = new_url(tmp_path)
    rows: list[Row] = [run_row(), *(segment(number, (number, "x" * 1000)) for number in range(6_000))]
    lines = list(write([CONVERSATION, *rows]))
    with pytest.raises(StoreError, match="cut off"):
        import_(url, io.StringIO("".join(lines[:-3])))
    assert sql(url, "SELECT count(*) FROM segments") == [(0,)]


def test_an_invalid_run_id_is_refused(database: str) -> None:
    """An id in upper case equals the same id in lower case."""
    shouted: list[Any] = [
        row if isinstance(row, ConversationRow) else with_id(row, str.upper) for row in (CONVERSATION, RUN)
    ]
    import_(database, of_rows(*shouted))
    assert import_(database, of_rows(CONVERSATION, RUN)).new == Counts()
    with pytest.raises(StoreError, match="'run-1' is not the id of a RunRow: it must be a UUID"):
        import_(database, of_rows(CONVERSATION, run_row(id="run-1")))


def with_id(row: Any, change: Any) -> Any:
    """Return the row with its id in another form."""
    return row._replace(id=change(row.id))


def test_an_error_of_the_database_is_shown(postgres_url: str) -> None:
    """The error contains the database's own message."""
    with pytest.raises(StoreError, match="The database says: invalid input syntax for type json"):
        import_(postgres_url, of_rows(CONVERSATION._replace(metadata="{")))


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
def test_a_line_that_is_too_long_is_refused_in_bounded_memory(
    packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the limit in bytes, also for a compressed file, and no database is created."""
    monkeypatch.setattr(files, "MAX_LINE", 2**20)
    file, url = tmp_path / "a.jsonl", f"sqlite:///{tmp_path / 'new.db'}"
    content = b" " * (64 * 2**20)
    file.write_bytes(gzip.compress(content) if packed else content)
    tracemalloc.start()
    try:
        with pytest.raises(StoreError, match=r"a\.jsonl: Line 1 has more than 1048576 bytes"):
            import_(url, file)
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()
    assert not (tmp_path / "new.db").exists()


def test_too_many_blank_lines_at_the_end_are_refused(tmp_path: Path) -> None:
    """A compressed file could contain an enormous number of them."""
    url, file = new_url(tmp_path), tmp_path / "a.jsonl"
    file.write_text("".join(write([])) + "\n" * 70_000)
    with pytest.raises(
        StoreError, match=r"a\.jsonl: Line 65\d{3} of the export is damaged \(the export ended"
    ):
        import_(url, file)


def test_joined_gzip_files_are_read_as_one_file(tmp_path: Path) -> None:
    """Empty members among them are skipped."""
    url, file = new_url(tmp_path), tmp_path / "a.jsonl.gz"
    lines = [line.encode() for line in write([])]
    file.write_bytes(b"".join(gzip.compress(line) + gzip.compress(b"") * 100 for line in lines))
    assert not import_(url, file).new.any()


def test_a_damaged_line_is_refused_with_its_file_and_number(tmp_path: Path) -> None:
    """Nothing of the same transaction is stored."""
    url, file = new_url(tmp_path), tmp_path / "a.jsonl"
    lines = list(write([ConversationRow("c", None, None, None, now())]))
    file.write_text(
        lines[0] + lines[1] + '[null,"conversation",{"id":"d","created_at":"9999-12-31T23:59:59-23:00"}]\n'
    )
    with pytest.raises(StoreError, match=r"a\.jsonl: Line 3 .*created_at of a conversation is not a time"):
        import_(url, file)
    assert sql(url, "SELECT id FROM conversations") == []
