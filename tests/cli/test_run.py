"""`recorder run` records a program and the programs that it starts, and is otherwise not noticed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zipapp
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from recorder.cli.app import app
from recorder.testing import LoopbackProvider
from tests.oracle import ROOT, sql

#: A program that calls a model, without an SDK: its import takes a second.
#: With more arguments it does the same in another process first.
CALLER = """
import multiprocessing, os, subprocess, sys
import httpx

def call(url):
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    answer = httpx.post(f"{url}/chat/completions", json=body).json()
    print(answer["choices"][0]["message"]["content"], flush=True)

if __name__ == "__main__":
    url, *ways = sys.argv[1:]
    if "subprocess" in ways:
        subprocess.run([sys.executable, __file__, url], check=True)
    if "spawn" in ways or "fork" in ways:
        child = multiprocessing.get_context(ways[0]).Process(target=call, args=(url,))
        child.start()
        child.join()
    if "crash" in ways:
        raise SystemExit(7)
    call(url)
"""


@pytest.fixture
def provider() -> Iterator[LoopbackProvider]:
    """Yield a provider."""
    with LoopbackProvider("Hello there!") as provider:
        yield provider


def command(*arguments: str) -> list[str]:
    """Return the command line of `recorder run` with these arguments."""
    code = "import sys; sys.argv[0] = 'recorder'; from recorder.cli.app import main; main()"
    return [sys.executable, "-c", code, "run", *arguments]


def run(
    *arguments: str, folder: Path, program: str = CALLER, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Write the program to app.py, and run this command in its folder."""
    (folder / "app.py").write_text(program)
    inherited = {name: value for name, value in os.environ.items() if name != "RECORDER_URL"}
    return subprocess.run(
        command(*arguments),
        cwd=folder,
        env={**inherited, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=50,
    )


def statuses(folder: Path, name: str = "chat_history.db") -> list[str]:
    """Return the statuses of the stored runs."""
    return [status for (status,) in sql(f"sqlite:///{folder / name}", "SELECT status FROM runs")]


@pytest.mark.parametrize("way", ["alone", "subprocess", "spawn", "fork"])
def test_a_program_and_what_it_starts_is_recorded(
    way: str, tmp_path: Path, provider: LoopbackProvider
) -> None:
    """Each call is recorded once, in the default database."""
    done = run("app.py", provider.base_url, way, folder=tmp_path)
    calls = 1 if way == "alone" else 2
    assert (done.stdout, done.returncode) == ("Hello there!\n" * calls, 0), done.stderr
    assert statuses(tmp_path) == ["complete"] * calls


#: A program that calls a model with aiohttp, and imports no other HTTP library.
SESSION = """
import asyncio, os, sys
sys.modules["genai_prices"] = None  # the library of the extra `costs` imports an HTTP library
import aiohttp

async def call(url):
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{url}/chat/completions", json=body) as response:
            os.write(1, b"%r\\n" % (len([line async for line in response.content]) > 3))

child = os.fork() if "fork" in sys.argv else None
asyncio.run(call(sys.argv[1]))
if child:
    os.waitpid(child, 0)
if child != 0:
    print({"httpx", "httpx2", "openai", "anthropic"} & set(sys.modules))
"""


@pytest.mark.parametrize("way", ["alone", "fork"])
def test_a_program_on_aiohttp_is_recorded(way: str, tmp_path: Path, provider: LoopbackProvider) -> None:
    """It is not changed, and imports no other HTTP library and no SDK. Its children are recorded, too."""
    done = run("app.py", provider.base_url, way, folder=tmp_path, program=SESSION)
    calls = 1 if way == "alone" else 2
    assert (done.stdout, done.returncode) == ("True\n" * calls + "set()\n", 0), done.stderr
    assert statuses(tmp_path) == ["complete"] * calls


def test_a_module_is_run_as_python_does(tmp_path: Path, provider: LoopbackProvider) -> None:
    """`-m` takes a module; what follows belongs to it."""
    done = run("-m", "app", provider.base_url, "--url", "x", folder=tmp_path)
    assert (done.stdout, done.returncode) == ("Hello there!\n", 0), done.stderr
    assert statuses(tmp_path) == ["complete"]


def test_the_url_is_absolute_and_travels_in_the_environment(
    tmp_path: Path, provider: LoopbackProvider
) -> None:
    """A program that changes its folder records into the same file. Arguments would show a password to every user."""
    program = "import os, sys; os.chdir('/'); print(sys.argv, os.environ['RECORDER_URL'])\n" + CALLER
    done = run("--url", "mine.db", "app.py", provider.base_url, folder=tmp_path, program=program)
    assert done.stdout.startswith(f"['app.py', '{provider.base_url}'] sqlite:///{tmp_path / 'mine.db'}\n")
    assert statuses(tmp_path, "mine.db") == ["complete"]


def test_a_command_that_is_python_is_recorded(tmp_path: Path, provider: LoopbackProvider) -> None:
    """A console script, or Python itself."""
    done = run(sys.executable, "app.py", provider.base_url, folder=tmp_path)
    assert done.stdout == "Hello there!\n", done.stderr
    assert statuses(tmp_path) == ["complete"]


def test_a_folder_and_a_zip_file_are_run_as_python_does(tmp_path: Path, provider: LoopbackProvider) -> None:
    """Both have a `__main__.py`."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "__main__.py").write_text(CALLER)
    zipapp.create_archive(tmp_path / "own", tmp_path / "own.pyz")
    for name in ("own", "own.pyz"):
        done = run(name, provider.base_url, folder=tmp_path)
        assert done.stdout == "Hello there!\n", done.stderr
    assert statuses(tmp_path) == ["complete"] * 2


def test_a_folder_with_the_name_of_a_command_does_not_hide_it(tmp_path: Path) -> None:
    """A folder without a `__main__.py` is no program."""
    (tmp_path / "env").mkdir()
    done = run("env", folder=tmp_path)
    assert "RECORDER_URL=" in done.stdout, done.stderr


def test_exit_status_and_crashes_are_the_programs(tmp_path: Path) -> None:
    """Nothing is added to them."""
    assert run("app.py", "http://127.0.0.1:9", "crash", folder=tmp_path).returncode == 7
    done = run("app.py", folder=tmp_path, program="raise RuntimeError('mine')")
    assert done.returncode == 1
    assert done.stderr.endswith("RuntimeError: mine\n")
    assert "recorder" not in done.stderr.replace(str(tmp_path), "")
    assert not (tmp_path / "chat_history.db").exists()


def test_signals_reach_the_program(tmp_path: Path) -> None:
    """It has the process id of the command, and handles its signals itself."""
    program = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
        "print(os.getpid(), flush=True)\n"
        "signal.pause()\n"
    )
    (tmp_path / "app.py").write_text(program)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command("app.py"), cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == f"{started.pid}\n"
        started.send_signal(signal.SIGTERM)
        assert started.wait(20) == 5


def test_the_environments_own_sitecustomize_is_run(tmp_path: Path, provider: LoopbackProvider) -> None:
    """It may be found by PYTHONPATH; that of `recorder run` comes before it."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("print('own')")
    done = run(
        "app.py", provider.base_url, folder=tmp_path, PYTHONPATH=os.pathsep.join([str(ROOT), str(folder)])
    )
    # The command and the program are two starts of Python.
    assert done.stdout == "own\nown\nHello there!\n", done.stderr
    assert statuses(tmp_path) == ["complete"]


def test_hosts_can_be_chosen(tmp_path: Path, provider: LoopbackProvider) -> None:
    """A host that is excluded is not recorded."""
    done = run("--exclude-host", "127.0.0.1", "app.py", provider.base_url, folder=tmp_path)
    assert done.stdout == "Hello there!\n", done.stderr
    assert not (tmp_path / "chat_history.db").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        ([], 2, "Missing argument"),
        (["nosuch.py"], 1, "There is no file nosuch.py; name a Python file"),
        (["nosuch"], 1, "There is no program nosuch; name a Python file, a command"),
        (["--url", "mysql://u:secret@h/d", "app.py"], 1, "'mysql' are not supported"),
    ],
)
def test_what_cannot_be_run_is_named(
    arguments: list[str], code: int, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program is not started, and no password is shown."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.py").write_text("raise SystemExit(3)")
    done = CliRunner().invoke(app, ["run", *arguments], env={"COLUMNS": "200", "RECORDER_URL": None})
    assert (done.exit_code, done.stdout) == (code, "")
    assert expected in done.stderr
    assert "secret" not in done.stderr
