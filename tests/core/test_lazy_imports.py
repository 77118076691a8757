"""Public names are imported when they are first used, and behave like names that were imported before."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

INIT = """
from recorder.core.lazy_imports import public_names
__getattr__, __dir__, __all__ = public_names(__name__)
"""
PUBLIC = """
from lazily.heavy import Heavy as Heavy
from lazily.light import Light as Light
from lazily.light import light as light
"""


@pytest.fixture
def lazily(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A package with the public names `Heavy`, `Light` and `light`, the last two of the module `light`."""
    folder = tmp_path / "lazily"
    folder.mkdir()
    (folder / "__init__.py").write_text(INIT)
    (folder / "public.py").write_text(PUBLIC)
    (folder / "heavy.py").write_text("class Heavy: ...")
    (folder / "light.py").write_text("class Light: ...\ndef light(): return 'light'")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("lazily")
    for name in [name for name in sys.modules if name.partition(".")[0] == "lazily"]:
        del sys.modules[name]


def test_a_name_is_imported_when_it_is_first_used(lazily: Any) -> None:
    """Importing the package imports none of its modules, and using a name imports the one it comes from."""
    assert "lazily.heavy" not in sys.modules
    assert lazily.Heavy.__module__ == "lazily.heavy"
    assert vars(lazily)["Heavy"] is lazily.Heavy


def test_all_and_dir_have_the_names_before_they_are_used(lazily: Any) -> None:
    """`__all__` is sorted; `dir` also shows what the package has anyway."""
    assert lazily.__all__ == ["Heavy", "Light", "light"]
    assert {"Heavy", "Light", "light", "__name__"} <= set(dir(lazily))


def test_a_star_import_has_all_names(lazily: ModuleType) -> None:
    """`from lazily import *` binds each public name, and nothing else."""
    names: dict[str, Any] = {}
    exec("from lazily import *", names)
    assert {"Heavy", "Light", "light"} == names.keys() - {"__builtins__"}


def test_a_function_with_its_modules_name_stays_the_function(lazily: Any) -> None:
    """Importing the module `lazily.light` does not replace the function `lazily.light`."""
    importlib.import_module("lazily.light")
    assert lazily.light() == "light"


def test_an_unknown_name_raises_as_python_does(lazily: Any) -> None:
    """The error has the same text, name and object as Python's own."""
    with pytest.raises(AttributeError) as caught:
        _ = lazily.Havy
    assert "module 'lazily' has no attribute 'Havy'" in str(caught.value)
    assert ("Havy", lazily) == (caught.value.name, caught.value.obj)


def test_a_package_whose_assertions_pytest_rewrites_is_imported(tmp_path: Path) -> None:
    """pytest does so with every installed package that has a plugin, as recorder has."""
    program = "def test_names(): from recorder import ChatHistoryCallback; from recorder.testing import song"
    (tmp_path / "test_names.py").write_text(program)
    (tmp_path / "conftest.py").write_text('import pytest\npytest.register_assert_rewrite("recorder")\n')
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_names.py"],
        cwd=tmp_path, env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
