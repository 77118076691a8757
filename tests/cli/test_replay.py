"""`recorder replay` and `recorder tail`: what they print and when, and the keys in a terminal."""

from __future__ import annotations

import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from recorder import ChatHistoryCallback
from recorder.cli.key_presses import PAUSE, STEP, Clock, Keys, Quit
from recorder.export import import_
from recorder.export.format import Row, write
from recorder.messages import AIMessage, HumanMessage
from tests.cli.test_commands import cli
from tests.export.test_format import CONVERSATION, GAP, MESSAGE, RUN_ID, frame_row, run_row, segment
from tests.oracle import ROOT, begin, finish, new_url, record, say
from tests.terminal import CTRL_C, CTRL_Z, Terminal

HOUR = 3_600_000_000
OTHER = str(UUID(int=1 << 120))


def database(folder: Path, *rows: Row, name: str = "history.db", **about: Any) -> str:
    """Return a database with one run that has these rows; `about` are columns of the run."""
    url = new_url(folder, name)
    about = {"prompt_message_id": MESSAGE.id, **about}
    lines = write([CONVERSATION, MESSAGE, run_row(**about), *rows])
    import_(url, io.StringIO("".join(lines)))
    return url


def played(url: str, *arguments: str) -> tuple[str, list[str]]:
    """Run `recorder replay`; return stdout and the lines of stderr."""
    done = cli("replay", *arguments, url=url)
    assert done.exit_code == 0, done.stderr
    return done.stdout, [line for line in done.stderr.splitlines() if line]


def refused(url: str, *arguments: str) -> str:
    """Run `recorder replay`, which must fail, and return stderr."""
    done = cli("replay", *arguments, url=url)
    assert done.exit_code == 1
    assert done.stdout == ""
    return done.stderr


# -- what is shown -------------------------------------------------------------------------------------------------


def test_the_answer_goes_to_stdout_and_the_question_to_stderr(tmp_path: Path) -> None:
    """Without an id the newest run is played."""
    url = database(tmp_path, segment(0, (10, "Hel"), (20, "lo.")))
    assert played(url) == ("Hello.\n", ["> Hello"])
    assert played(url, RUN_ID[:9]) == ("Hello.\n", ["> Hello"])


def test_reasoning_tool_calls_and_gaps_are_shown(tmp_path: Path) -> None:
    """Reasoning is separated, a call has its arguments, and a gap is shown in its place."""
    url = database(
        tmp_path,
        segment(0, (1, "Hm", "reasoning", "0"), (2, "m.", "reasoning", "0"), (3, "Let me see.")),
        segment(
            5,
            (4, '{"id":"a","name":"weather"}', "tool_call", "0.0"),
            (5, '{"city":', "tool_args", "0.0"),
            (6, '"Rome"}', "tool_args", "0.0"),
            (7, '{"id":"b","name":"time"}', "tool_call", "0.1"),
            (8, "{}", "tool_args", "0.1"),
        ),
        GAP,
    )
    text, beside = played(url, "--instant")
    assert text == (
        "Hmm.\n\nLet me see.[2 tokens missing: the queue was full]\n"
        'calls weather({"city":"Rome"})\ncalls time({})\n'
    )
    assert beside == ["> Hello"]


def test_control_characters_of_a_stream_are_escaped(tmp_path: Path) -> None:
    """In a pipe the text has no colour either."""
    url = database(tmp_path, segment(0, (1, "a\x1b[2J", "reasoning", "0"), (2, "b\x9b"), (3, "\r\n")))
    text, _ = played(url, "--instant")
    assert text == "a\\x1b[2J\n\nb\\x9b\\r\n"


@pytest.mark.parametrize(
    ("about", "line"),
    [
        ({"status": "error", "error_type": "openai.RateLimitError", "error_message": "Error code: 429\n- no"},
         "[error: openai.RateLimitError: Error code: 429 - no]"),
        ({"status": "cancelled"}, "[cancelled: the application stopped reading here]"),
        ({"status": "interrupted"}, "[interrupted: the recording process died, or the stream had no end]"),
        ({"status": "incomplete", "finish_reason": "length"}, "[incomplete: length]"),
        ({"status": "streaming"}, "[still streaming: --follow continues until it ends]"),
    ],
    ids=lambda given: given.get("status") if isinstance(given, dict) else "",
)  # fmt: skip
def test_the_status_of_a_run_is_one_line_at_the_end(about: dict[str, Any], line: str, tmp_path: Path) -> None:
    """The exit code of the replay is 0."""
    url = database(tmp_path, segment(0, (1, "La")), **about)
    assert played(url) == ("La\n", ["> Hello", line])


def test_a_run_without_tokens_is_reported(tmp_path: Path) -> None:
    """The exit code of the replay is 0."""
    assert played(database(tmp_path)) == ("", ["> Hello", f"[run {RUN_ID} has no tokens]"])


def test_only_the_first_choice_is_shown(tmp_path: Path) -> None:
    """The number of other choices is printed, and `--json` prints them all."""
    url = database(tmp_path, segment(0, (1, "a", "text", "0"), (2, "b", "text", "1"), (3, "c")))
    text, beside = played(url, "--instant")
    assert (text, beside[-1]) == ("ac\n", "[1 more choice: --json shows all]")
    lines = [json.loads(line) for line in played(url, "--instant", "--json")[0].splitlines()]
    assert [(line["seq"], line["at_us"], line["kind"], line["idx"], line["text"]) for line in lines[:-1]] == [
        (0, 1, "text", "0", "a"),
        (1, 2, "text", "1", "b"),
        (2, 3, "text", "0", "c"),
    ]
    assert lines[-1] == {"run_id": RUN_ID, "at_us": 3, "status": "complete"}


def test_json_has_the_original_text(tmp_path: Path) -> None:
    """It contains NUL and halves of surrogate pairs unchanged, and a gap in its place."""
    url = database(tmp_path, segment(0, (1, "\ufdd00000\ufdd0d800")), GAP)
    lines = [json.loads(line) for line in played(url, "--instant", "--json")[0].splitlines()]
    assert lines[0]["text"] == "\x00\ud800"
    assert (lines[1]["seq"], lines[1]["count"], lines[1]["missing"]) == (3, 2, "the queue was full")


def test_frames_are_printed_byte_for_byte(tmp_path: Path) -> None:
    """`--frames` writes the provider's bytes, and is refused for a run without frames."""
    url = database(tmp_path, segment(0, (1, "a")), frame_row(0, (1, b"data: a\n\n"), (2, b"\xff\r\n\n")))
    raw = subprocess.run(
        [
            sys.executable,
            "-c",
            "from recorder.cli.app import main; main()",
            "replay",
            "--frames",
            "--url",
            url,
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
    )
    assert raw.stdout == b"data: a\n\n\xff\r\n\n"
    without = database(tmp_path, segment(0, (1, "a")), name="without.db")
    assert f"events of run {RUN_ID} were not recorded; leave --frames out" in refused(without, "--frames")


def test_a_conversation_is_played_along_its_newest_branch(tmp_path: Path) -> None:
    """Each run is below its question, and a message says that there are other branches."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url, conversation_id="trip") as history:
        record(history, HumanMessage("Where?"), reply="Paris.")
        record(history, HumanMessage("Where?"), reply="Rome.")
        last = record(
            history, HumanMessage("Where?"), AIMessage("Rome."), HumanMessage("Why?"), reply="Pasta."
        )
    text, beside = played(url, "trip", "--instant")
    assert text == "Rome.\nPasta.\n"
    assert beside == [
        "Conversation trip has other branches. This is the newest, up to run",
        f"{last}; `recorder show trip` shows all branches.",
        "> Where?",
        "> Why?",
    ]


def test_a_long_question_is_cut(tmp_path: Path) -> None:
    """Four lines of the question are shown, and the number of the others."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url) as history:
        record(history, HumanMessage("\n".join(f"line {number}" for number in range(9))), reply="Yes.")
    assert played(url)[1] == [*(f"> line {number}" for number in range(4)), "> ... 5 lines more"]


# -- start, end and speed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--from", "1"], "bcd"),
        (["--until", "2"], "ab"),
        (["--from", "1s"], "bcd"),
        (["--from", "1.5s", "--until", "3s"], "c"),
        (["--from", ".5s", "--until", "3"], "bc"),
    ],
    ids=str,
)
def test_a_part_of_a_run_is_played(arguments: list[str], shown: str, tmp_path: Path) -> None:
    """`--from` and `--until` take the number of a token, or seconds."""
    url = database(tmp_path, segment(0, *((at * 1_000_000, text) for at, text in enumerate("abcd"))))
    assert played(url, "--instant", *arguments)[0] == shown + "\n"


def test_long_pauses_are_shortened(tmp_path: Path) -> None:
    """With `--idle-time-limit` a recorded pause of an hour takes a moment."""
    url = database(tmp_path, segment(0, (HOUR, "a"), (2 * HOUR, "b")))
    assert played(url, "--idle-time-limit", "0.01", "--speed", "2")[0] == "ab\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--speed", "0"], "--speed is 0; choose 0.1 to 1000, or --instant"),
        (["--speed", "-1"], "--speed is -1; choose"),
        (["--speed", "nan"], "--speed is nan; choose"),
        (["--speed", "2", "--instant"], "--instant and --speed exclude each other"),
        (["--json", "--frames"], "--json and --frames exclude each other; leave one of them out"),
        (["--idle-time-limit", "-1"], "--idle-time-limit is -1; give seconds"),
        (["--from", "-3"], "--from is '-3'; give the number of a token (120), or seconds (2.5s)"),
        (["--until", "soon"], "--until is 'soon'"),
        (["--from", "99"], f"start is 99, and run {RUN_ID} has 1 tokens; choose an earlier place"),
        (["--from", "1", "c"], "'c' is a conversation, and start and until are places in one run"),
        (["nobody"], "Nothing is stored under 'nobody'; `recorder ls` lists the stored conversations"),
        (["00000000"], "More than one id begins with '00000000'"),
        ([OTHER[:-1] + "9"], f"the nearest are:\n  run {OTHER}"),
    ],
    ids=lambda given: " ".join(given)[:20] if isinstance(given, list) else "",
)
def test_an_invalid_argument_of_a_replay_is_refused(
    arguments: list[str], expected: str, tmp_path: Path
) -> None:
    """The error names the argument and the next step, and the exit code is 1."""
    url = database(tmp_path, segment(0, (1, "a")))
    others = [run_row(id=id, conversation_id="c") for id in (str(UUID(int=2)), OTHER)]
    import_(url, io.StringIO("".join(write([CONVERSATION, *others]))))
    arguments = [RUN_ID, *arguments] if arguments[0].startswith("--") and arguments[-1] != "c" else arguments
    assert expected in refused(url, *arguments)


def test_a_replay_of_nothing_is_refused(tmp_path: Path) -> None:
    """The error says that the database, or the conversation, has no runs."""
    url = new_url(tmp_path)
    assert "holds no run yet; record something" in refused(url)
    import_(url, io.StringIO("".join(write([CONVERSATION]))))
    assert "Conversation c has no runs yet" in refused(url, "c")


@pytest.mark.parametrize("arguments", [["--instant"], ["--instant", "--json"]], ids=str)
def test_a_damaged_row_of_tokens_is_shown_as_a_gap(arguments: list[str], tmp_path: Path) -> None:
    """The tokens before and after it are played."""
    url = database(tmp_path, *(segment(seq, (seq, f"{seq} "), (seq, ". ")) for seq in (0, 2, 4)))
    change(url, "UPDATE segments SET deltas = '[[1,2' WHERE seq = 2")
    text, beside = played(url, *arguments)
    if "--json" in arguments:
        [gap] = [json.loads(line) for line in text.splitlines() if "missing" in line]
        assert (gap["seq"], gap["count"]) == (2, 2)
        assert "the stored row is damaged" in gap["missing"]
    else:
        assert text.startswith("0 . [2 tokens missing: the stored row is damaged: ")
        assert text.endswith("]4 . \n")
        assert beside[-1] == f"[run {RUN_ID}: tokens 2 to 3 cannot be read]"


def test_a_damaged_row_of_frames_is_reported_on_stderr(tmp_path: Path) -> None:
    """The other frames are written to stdout."""
    url = database(tmp_path, *(frame_row(seq, (seq, b"%d;" % seq)) for seq in range(3)))
    change(url, "UPDATE frames SET data = x'00' WHERE seq = 1")
    text, beside = played(url, "--frames", "--instant")
    assert text == "0;2;"
    assert beside[0].startswith(
        f"[run {RUN_ID}: 1 frame missing, from number 1 on: the stored row is damaged"
    )


def change(url: str, statement: str) -> None:
    """Execute a statement that recorder would not execute."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        connection.execute(statement)
        connection.commit()


def test_replay_export_and_import_load_no_sdk(tmp_path: Path) -> None:
    """This holds for a run that ended with an SDK's error, too."""
    url = database(
        tmp_path, segment(0, (1, "a")), status="error", error_type="openai.RateLimitError", wire="openai.chat"
    )
    file = str(tmp_path / "a.jsonl")
    code = (
        "import sys; from recorder.cli.app import app\n"
        "for command in (['replay'], ['replay', '--json'], ['replay', '--follow'], ['export', '-o', sys.argv[2]],\n"
        "                ['import', sys.argv[2]]):\n"
        "    assert not app([*command, '--url', sys.argv[1]], standalone_mode=False)\n"
        "found = {name.partition('.')[0] for name in sys.modules} & {'openai', 'anthropic', 'httpx2', 'alembic'}\n"
        "print('loaded:', sorted(found))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, url, file],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded: []"


# -- keys --------------------------------------------------------------------------------------------------------


@contextmanager
def playing(folder: Path, *arguments: str, rows: tuple[Row, ...]) -> Iterator[Terminal]:
    """Start a replay in a terminal."""
    url = database(folder, *rows)
    with Terminal("replay", "--url", url, *arguments, folder=folder) as terminal:
        yield terminal


def is_in_line_mode(terminal: Terminal) -> bool:
    """Return whether the terminal echoes and delivers whole lines, as a shell needs it."""
    flags = termios.tcgetattr(terminal.fd)[3]
    return bool(flags & termios.ECHO and flags & termios.ICANON)


def test_space_pauses_and_dot_steps_to_the_next_token(tmp_path: Path) -> None:
    """After a step over an hour, a second space plays the tokens that follow it at once."""
    rows = segment(0, (0, "one "), (HOUR, "two "), (HOUR + 1, "three "), (HOUR + 2, "four"))
    with playing(tmp_path, rows=(rows,)) as terminal:
        terminal.wait_for("space pauses, . steps, q quits")
        terminal.wait_for("one ")
        assert not is_in_line_mode(terminal)
        terminal.type(" .")
        terminal.wait_for("two ")
        terminal.type(" ")
        terminal.wait_for("three four")
        assert terminal.end() == 0
        assert is_in_line_mode(terminal)


def test_q_quits_the_replay(tmp_path: Path) -> None:
    """The rest is not played, the exit code is 0, and the terminal's mode is restored."""
    with playing(tmp_path, rows=(segment(0, (0, "one "), (HOUR, "two ")),)) as terminal:
        terminal.wait_for("one ")
        terminal.type("q")
        assert terminal.end() == 0
        assert is_in_line_mode(terminal)
        assert "two" not in terminal.text


@pytest.mark.parametrize("keys", ["", " ."], ids=["playing", "paused"])
def test_ctrl_c_ends_the_replay(keys: str, tmp_path: Path) -> None:
    """The exit code is 130, and the terminal's mode is restored."""
    rows = segment(0, (0, "one "), (HOUR if keys else 1, "two "), (2 * HOUR, "three"))
    with playing(tmp_path, rows=(rows,)) as terminal:
        terminal.wait_for("one ")
        terminal.type(keys)
        terminal.wait_for("two ")
        terminal.type(CTRL_C)
        assert terminal.end() == 130
        assert is_in_line_mode(terminal)
        assert "three" not in terminal.text


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_restores_the_terminal(sent: signal.Signals, tmp_path: Path) -> None:
    """The exit code is 128 plus the signal's number, and the terminal's mode is restored."""
    with playing(tmp_path, rows=(segment(0, (0, "one "), (HOUR, "two ")),)) as terminal:
        terminal.wait_for("one ")
        terminal.signal(sent)
        assert terminal.end() == 128 + sent
        assert is_in_line_mode(terminal)


@pytest.mark.parametrize(
    ("before", "shown", "after"),
    [("", "one ", " .."), (" .", "two ", ".")],
    ids=["playing", "paused"],
)
def test_ctrl_z_stops_the_replay_and_fg_continues_it(
    before: str, shown: str, after: str, tmp_path: Path
) -> None:
    """The shell has its own terminal mode meanwhile. Afterwards the keys work, and a pause is still a pause."""
    rows = segment(0, (0, "one "), (HOUR, "two "), (2 * HOUR, "three "), (2 * HOUR + 1, "four"))
    with Terminal(
        "replay", "--url", database(tmp_path, rows), folder=tmp_path, below_a_shell=True
    ) as terminal:
        terminal.wait_for("one ")
        terminal.type(before)
        terminal.wait_for(shown.removeprefix("one "))
        terminal.type(CTRL_Z)
        terminal.wait_for("[stopped]")
        assert is_in_line_mode(terminal)
        terminal.type(f"\r{after}")
        terminal.wait_for("three ")
        assert not is_in_line_mode(terminal)
        terminal.type(" ")
        terminal.wait_for("four")
        assert terminal.end() == 0
        assert is_in_line_mode(terminal)


def test_the_time_in_which_the_process_was_stopped_is_measured() -> None:
    """Ctrl-Z at second 5 and `fg` at second 105: the clock of the replay is at second 5."""
    times = iter([5.0, 105.0])
    before = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    try:
        with Keys(time=lambda: next(times), stop=lambda: None) as keys:
            signal.raise_signal(signal.SIGTSTP)
            assert (keys.stopped, Clock(keys, lambda: 105.0).now()) == (100.0, 5.0)
        assert signal.getsignal(signal.SIGTSTP) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTSTP, before)


def test_an_error_restores_the_terminal(tmp_path: Path) -> None:
    """The error is printed after the terminal's mode is restored."""
    with playing(tmp_path, "--from", "7", rows=(segment(0, (0, "one ")),)) as terminal:
        terminal.wait_for("start is 7")
        assert terminal.end() == 1
        assert is_in_line_mode(terminal)


def test_reasoning_is_dimmed_in_a_terminal(tmp_path: Path) -> None:
    """The answer after it is not dimmed."""
    rows = segment(0, (0, "Hm.", "reasoning", "0"), (1, "Yes."))
    with playing(tmp_path, rows=(rows,)) as terminal:
        assert terminal.end() == 0
        assert b"\x1b[2mHm.\x1b[22m\r\n\r\nYes.\r\n" in terminal.raw


def test_keys_work_while_a_followed_run_is_silent(tmp_path: Path) -> None:
    """`q` quits while the replay waits for the next token."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url) as history:
        run_id = begin(history)
        say(history, run_id, ["one "])
        history.flush().wait()
        with Terminal("replay", "--follow", "--instant", "--url", url, folder=tmp_path) as terminal:
            terminal.wait_for("one ")
            say(history, run_id, ["two "])
            history.flush().wait()
            terminal.wait_for("two ")
            terminal.type("q")
            assert terminal.end() == 0
            assert is_in_line_mode(terminal)
        finish(history, run_id, "one two")


class FakeKeys:
    """Keys that are pressed so many seconds after the wait for them began; time passes only in these waits."""

    there = True

    def __init__(self, *pressed: tuple[float, str]) -> None:
        self.now = self.stopped = 0.0
        self._pressed = list(pressed)

    def pressed(self, timeout: float | None) -> str:
        if self._pressed and (timeout is None or self._pressed[0][0] < timeout):
            after, key = self._pressed.pop(0)
            self.now += after
            return key
        assert timeout is not None, "it waits for a key that never comes"
        self.now += timeout
        return ""


def clock(*pressed: tuple[float, str]) -> tuple[Clock, FakeKeys]:
    """Return a clock whose time passes only while it waits for keys."""
    keys = FakeKeys(*pressed)
    return Clock(keys, lambda: keys.now), keys  # type: ignore[arg-type]


def test_a_pause_delays_all_later_tokens() -> None:
    """After a pause the recorded intervals between tokens are kept."""
    time, keys = clock((0.25, PAUSE), (100.0, PAUSE))
    due = []
    for at in (1.0, 2.0, 2.5):
        time.until(at)
        due.append(keys.now)
    assert due == [101.0, 102.0, 102.5]


@pytest.mark.parametrize("pressed", [[], [(0.1, PAUSE), (50.0, PAUSE)]], ids=["playing", "paused"])
def test_a_stopped_process_delays_all_later_tokens(pressed: list[tuple[float, str]]) -> None:
    """The time that Ctrl-Z took is not counted, whether the replay was paused or not."""
    time, keys = clock(*pressed)
    keys.now = keys.stopped = 1000.0
    due = []
    for at in (1.0, 2.0):
        time.until(at)
        due.append(keys.now - 1000.0 - (50.0 if pressed else 0.0))
    assert due == pytest.approx([1.0, 2.0])


def test_steps_move_the_clock_forward() -> None:
    """After a step the next token comes at its recorded interval after the last one."""
    time, keys = clock((0.5, PAUSE), (7.0, STEP), (1.0, STEP), (1.0, PAUSE))
    due = []
    for at in (1.0, 60.0, 61.0):
        time.until(at)
        due.append(keys.now)
    assert due == [7.5, 8.5, 10.5]


def test_a_dot_without_a_pause_and_unknown_keys_do_nothing() -> None:
    """They do not shorten a wait; `Q` quits."""
    time, keys = clock((0.1, STEP), (0.1, "x"), (0.1, "\x1b"))
    time.until(1.0)
    assert keys.now == pytest.approx(1.0)
    with pytest.raises(Quit):
        clock((0.1, "Q"))[0].until(1.0)


# -- tail ----------------------------------------------------------------------------------------------------------


@contextmanager
def running(url: str, *command: str) -> Iterator[subprocess.Popen[str]]:
    """Start a command in a process of its own, which is killed at the end."""
    code = "import sys; sys.argv[0] = 'recorder'; from recorder.cli.app import main; main()"
    with subprocess.Popen(
        [sys.executable, "-u", "-c", code, *command, "--url", url],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def tailing(url: str, *arguments: str) -> AbstractContextManager[subprocess.Popen[str]]:
    """Start `recorder tail` in a process of its own."""
    return running(url, "tail", *arguments)


def read_until(process: subprocess.Popen[str], expected: str) -> str:
    """Read the output up to and including this text."""
    assert process.stdout is not None
    read = ""
    while expected not in read:
        letter = process.stdout.read(1)
        assert letter, f"ended with {read!r}, {process.stderr and process.stderr.read()}"
        read += letter
    return read


def test_tail_shows_open_runs_and_new_tokens(database: str) -> None:
    """Open runs are shown from their beginning, and a heading marks a change to another run."""
    with ChatHistoryCallback(database) as history:
        record(history, reply="long ago")
        with history.conversation("first"):
            first = begin(history)
        say(history, first, ["One"])
        history.flush().wait()
        with tailing(database) as process:
            assert read_until(process, "One") == "One"
            say(history, first, [" and"])
            assert read_until(process, "and") == " and"
            with history.conversation("second"):
                second = begin(history)
            say(history, second, ["Two"])
            assert read_until(process, "Two") == f"\n\nsecond  run {second}\nTwo"
            say(history, first, [" more"])
            assert read_until(process, "more") == f"\n\nfirst  run {first}\n more"
            history.on_llm_error(ValueError("out of breath"), run_id=second)
            shown = read_until(process, "breath]\n")
            assert shown == f"\n\nsecond  run {second}\n[error: ValueError: out of breath]\n"
            finish(history, first, "One and more")
            third = record(history, reply="Three")
            assert read_until(process, "Three") == f"\nnone  run {third}\nThree".replace(
                "none", conversation_of(database, third)
            )
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130


def conversation_of(url: str, run_id: UUID) -> str:
    """Return the conversation of a run."""
    from tests.oracle import sql

    return str(sql(url, "SELECT conversation_id FROM runs WHERE id = ?", str(run_id))[0][0])


def test_tail_of_one_run_ends_with_the_run(database: str) -> None:
    """With `--json` it prints one line for each token of that run only."""
    with ChatHistoryCallback(database) as history:
        run_id, other = begin(history), begin(history)
        say(history, run_id, ["One", " two"])
        say(history, other, ["Nobody asked"])
        history.flush().wait()
        with tailing(database, str(run_id), "--json") as process:
            first = json.loads(read_until(process, "\n"))
            assert (first["run_id"], first["seq"], first["text"]) == (str(run_id), 0, "One")
            say(history, run_id, [" three"])
            finish(history, run_id, "One two three", finish_reason="stop")
            history.flush().wait()
            assert process.stdout is not None
            rest = [json.loads(line) for line in process.stdout]
            assert [line.get("text") for line in rest] == [" two", " three", None]
            assert rest[-1]["status"] == "complete"
            assert process.wait(20) == 0


def test_tail_of_a_conversation_waits_for_its_next_run(tmp_path: Path) -> None:
    """Runs of other conversations are not shown."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url, conversation_id="mine") as history:
        open_run = begin(history)
        say(history, open_run, ["a"])
        history.flush().wait()
        with tailing(url, "mine") as process:
            read_until(process, "a")
            finish(history, open_run, "a")
            with history.conversation("yours"):
                record(history, reply="not shown")
            run_id = record(history, HumanMessage("Next?"), reply="shown")
            assert read_until(process, "shown") == f"\n\nmine  run {run_id}\nshown"


def test_tail_reports_a_dead_process(tmp_path: Path) -> None:
    """Its open run ends as interrupted."""
    url = new_url(tmp_path)
    code = (
        "import os, sys; from recorder import ChatHistoryCallback; from tests.oracle import begin, say\n"
        "history = ChatHistoryCallback(sys.argv[1]); run_id = begin(history); say(history, run_id, ['La'])\n"
        "history.flush().wait(); print(run_id, flush=True); sys.stdin.read(); os._exit(9)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, url],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as recording:
        assert recording.stdout is not None
        run_id = recording.stdout.readline().strip()
        with tailing(url, run_id) as process:
            assert read_until(process, "La") == "La"
            recording.communicate("", timeout=20)
            assert (
                read_until(process, "]\n")
                == "\n[interrupted: the recording process died, or the stream had no end]\n"
            )
            assert process.wait(20) == 0


def test_tail_of_a_missing_file_or_id_is_refused(tmp_path: Path) -> None:
    """The error names the file or the id."""
    done = cli("tail", url=f"sqlite:///{tmp_path / 'none.db'}")
    assert (done.exit_code, "none.db" in done.stderr) == (1, True)
    done = cli("tail", "nobody", url=new_url(tmp_path))
    assert (done.exit_code, "Nothing is stored under 'nobody'" in done.stderr) == (1, True)
