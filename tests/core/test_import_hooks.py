"""A function is called once a module is imported, and the import is not disturbed."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from importlib import import_module, reload
from importlib.machinery import SourceFileLoader
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

from recorder.core.import_hooks import when_imported


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield a folder whose modules can be imported; they are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("hooked_")]:
        del sys.modules[name]


def write(folder: Path, name: str, code: str = "VALUE = 1\n") -> str:
    """Write a module, and return its name."""
    (folder / f"{name}.py").write_text(code)
    return name


def test_the_function_gets_the_module_after_its_import(folder: Path) -> None:
    """The module is complete, and has its own loader and spec."""
    seen: list[int] = []
    name = write(folder, "hooked_later")
    when_imported(name, lambda module: seen.append(module.VALUE))
    assert seen == []
    module = import_module(name)
    assert seen == [1]
    assert module.__spec__ is not None
    assert (type(module.__loader__), type(module.__spec__.loader)) == (SourceFileLoader, SourceFileLoader)


def test_a_module_that_is_imported_already_is_passed_at_once(folder: Path) -> None:
    """The function is called before `when_imported` returns."""
    seen: list[ModuleType] = []
    module = import_module(write(folder, "hooked_now"))
    when_imported("hooked_now", seen.append)
    assert seen == [module]


def test_all_functions_are_called_once(folder: Path) -> None:
    """Also when the module is loaded again."""
    seen: list[str] = []
    name = write(folder, "hooked_twice")
    when_imported(name, lambda _: seen.append("one"))
    when_imported(name, lambda _: seen.append("two"))
    reload(import_module(name))
    assert seen == ["one", "two"]


def test_a_missing_module_stays_missing(folder: Path) -> None:
    """It is found once it exists."""
    seen: list[ModuleType] = []
    when_imported("hooked_missing", seen.append)
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError):
            import_module("hooked_missing")
    write(folder, "hooked_missing")
    import_module("hooked_missing")
    assert len(seen) == 1


def test_an_import_that_fails_can_be_repeated(folder: Path) -> None:
    """The function is called after the attempt that succeeds."""
    seen: list[ModuleType] = []
    name = write(folder, "hooked_broken", "import os\nif not os.environ.get('READY'): raise OSError('no')\n")
    when_imported(name, seen.append)
    with pytest.raises(OSError, match="no"):
        import_module(name)
    assert seen == []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("READY", "1")
        import_module(name)
    assert len(seen) == 1


def test_a_function_that_fails_does_not_break_the_import(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its error is logged, and the next function is called."""
    seen: list[ModuleType] = []
    name = write(folder, "hooked_failing")
    when_imported(name, lambda _: 1 / 0)  # type: ignore[arg-type]
    when_imported(name, seen.append)
    with caplog.at_level(logging.WARNING):
        import_module(name)
    assert len(seen) == 1
    assert "ZeroDivisionError" in caplog.text


def test_a_program_may_ask_for_a_module_before_it_imports_it(folder: Path) -> None:
    """Many programs look with `find_spec` whether a package is installed."""
    seen: list[ModuleType] = []
    name = write(folder, "hooked_asked")
    when_imported(name, seen.append)
    for _ in range(2):
        assert find_spec(name) is not None
    module = import_module(name)
    assert seen == [module]
    assert type(module.__loader__) is SourceFileLoader


def test_a_module_that_another_thread_imports_is_passed_when_it_is_complete(folder: Path) -> None:
    """It is in `sys.modules` before it has its names."""
    began, seen = threading.Event(), list[int]()
    code = "import threading, time\nthreading.began.set()\ntime.sleep(0.2)\nVALUE = 1\n"
    name = write(folder, "hooked_slow", code)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "began", began, raising=False)
        importing = threading.Thread(target=import_module, args=(name,))
        importing.start()
        assert began.wait(10)
        when_imported(name, lambda module: seen.append(module.VALUE))
        importing.join(10)
    assert seen == [1]
