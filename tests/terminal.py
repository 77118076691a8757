"""Runs `recorder` in a pseudo-terminal, as a user sees it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self

ROOT = Path(__file__).parents[1]
CTRL_C = "\x03"
CTRL_D = "\x04"
CTRL_Z = "\x1a"
UP = "\x1b[A"

#: Seconds after which a test fails that waits for output.
_TOO_LONG = 20
#: TIOCSCTTY makes the terminal the controlling one of the new session, so that Ctrl-C sends SIGINT.
_CODE = (
    "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "sys.argv[0] = 'recorder'; from recorder.cli.app import main; main()"
)
#: The same below a shell with job control: Ctrl-Z stops the program, and Enter continues it as `fg` does.
_BELOW_A_SHELL = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
program = os.fork()
if not program:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    sys.argv[0] = 'recorder'
    from recorder.cli.app import main
    main()
_, status = os.waitpid(program, os.WUNTRACED)
os.tcsetpgrp(0, os.getpid())
print("[stopped]" if os.WIFSTOPPED(status) else "[not stopped]", flush=True)
input()
os.tcsetpgrp(0, program)
os.kill(program, signal.SIGCONT)
_, status = os.waitpid(program, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""
#: Control sequences, which a terminal does not show as text.
_CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\r")


class Terminal:
    """A process of `recorder` with these arguments, in a terminal of this width; `with` starts and kills it.

    `stdout` is a file to which its output is redirected, as `>` does in a shell. `below_a_shell` adds a shell that
    prints `[stopped]` after Ctrl-Z and continues the program after Enter.
    `type` presses keys, and `wait_for` reads until the screen shows a given text.
    """

    def __init__(
        self,
        *arguments: str,
        folder: Path,
        columns: int = 80,
        environment: Mapping[str, str] | None = None,
        stdout: IO[bytes] | None = None,
        below_a_shell: bool = False,
    ) -> None:
        self._arguments = arguments
        self._folder = folder
        self._columns = columns
        self._environment = environment or {}
        self._stdout = stdout
        self._code = _BELOW_A_SHELL if below_a_shell else _CODE
        self._raw = b""
        #: Offset in the text up to which output was waited for.
        self._seen = 0

    def __enter__(self) -> Self:
        self._fd, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, self._columns, 0, 0))
        hidden = (
            "COLUMNS",
            "RECORDER_URL",
            "OPENAI_API_KEY",
            "OPENAI_BASE_URL",
            "ANTHROPIC_API_KEY",
            "NO_COLOR",
        )
        inherited = {name: value for name, value in os.environ.items() if name not in hidden}
        self._process = subprocess.Popen(
            [sys.executable, "-c", self._code, *self._arguments],
            cwd=self._folder,
            env={**inherited, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **self._environment},
            stdin=inner,
            stdout=self._stdout or inner,
            stderr=inner,
            start_new_session=True,
        )
        os.close(inner)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            print(self.text)
        self._process.kill()
        self._process.wait()
        os.close(self._fd)

    @property
    def text(self) -> str:
        """Return all output without control sequences."""
        return _CONTROLS.sub("", self._raw.decode("utf-8", "replace"))

    @property
    def raw(self) -> bytes:
        """Return all output with control sequences."""
        return self._raw

    @property
    def fd(self) -> int:
        """Return the file descriptor of the user's side of the terminal."""
        return self._fd

    def signal(self, number: int) -> None:
        """Send a signal to the program."""
        self._process.send_signal(number)

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._fd, keys.encode())

    def wait_for(self, expected: str) -> str:
        """Read until this text follows what was waited for before; return all that was read since then."""
        while (at := self.text.find(expected, self._seen)) < 0:
            assert self._read(), f"ended without {expected!r}:\n{self.text}"
        start, self._seen = self._seen, at + len(expected)
        return self.text[start : self._seen]

    def press_until(self, keys: str, expected: str) -> str:
        """Press keys until this text appears, again after each 0.5 s, since Python can lose a Ctrl-C just before it
        waits."""
        self.type(keys)
        while (at := self.text.find(expected, self._seen)) < 0:
            if not self._ready(0.5):
                self.type(keys)
            elif not self._read():
                raise AssertionError(f"ended without {expected!r}:\n{self.text}")
        start, self._seen = self._seen, at + len(expected)
        return self.text[start : self._seen]

    def end(self) -> int:
        """Read until the program ends, and return its exit code."""
        while self._read():
            pass
        return self._process.wait(_TOO_LONG)

    def _ready(self, seconds: float) -> bool:
        return bool(select.select([self._fd], [], [], seconds)[0])

    def _read(self) -> bool:
        assert self._ready(_TOO_LONG), f"nothing more came:\n{self.text}"
        try:
            more = os.read(self._fd, 65536)
        except OSError:  # Linux reports the end of a terminal as this error
            return False
        self._raw += more
        return bool(more)
