"""Analyzers that fail in every way, for tests. Worker processes import this module."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import threading
from typing import Any

from recorder.analysis import AnalyzedText


class Misbehaving:
    """Does what each message says."""

    name, version = "misbehaving", "1"

    def on_message(self, message: AnalyzedText) -> Any:
        return globals()[message.text](message)


class Unprepared:
    """Cannot be prepared."""

    name, version = "unprepared", "1"

    def prepare(self) -> None:
        raise ZeroDivisionError("nothing to load")

    def on_message(self, message: AnalyzedText) -> str:
        return "prepared"


class LockHolder:
    """Cannot be pickled."""

    name, version = "lock", "1"

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def on_message(self, message: AnalyzedText) -> str:
        return "locked"


def fine(_: object) -> str:
    return "fine"


def raises(_: object) -> str:
    raise ZeroDivisionError("no such number")


def exits(_: object) -> str:
    sys.exit("bye")


def dies(_: object) -> str:
    os._exit(7)


def hangs(_: object) -> str:
    threading.Event().wait()
    return "never"


def holds_the_lock(_: object) -> str:
    """A pattern that backtracks for longer than anybody waits, and lets no other thread run."""
    re.match(r"(a+)+$", "a" * 60 + "b")
    return "never"


def prints(_: object) -> str:
    os.write(1, b"no answer of a worker\n" * 10)
    return "printed"


def rubbish(_: object) -> object:
    return object()


def floods(_: object) -> dict[str, Any]:
    return {"data": {"words": ["word"] * 100_000}}


async def later(_: object) -> float:
    await asyncio.sleep(0)
    return 0.5


def pid(_: object) -> dict[str, int]:
    return {"pid": os.getpid()}
