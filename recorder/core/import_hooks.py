"""Calls a function when a module is imported.

The package wrapt has this, too, but its import takes 60 milliseconds, and a program may never import the module.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

log = logging.getLogger("recorder")

OnImport = Callable[[ModuleType], None]


def when_imported(name: str, function: OnImport) -> None:
    """Call `function` with the module: now if it is imported already, else right after its import."""
    if sys.modules.get(name) is not None:
        function(import_module(name))  # another thread may be importing it: then this waits for it
        return
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    _finder.waiting.setdefault(name, []).append(function)


class _Finder:
    """Finds the modules that somebody waits for, with the other finders.

    Without the base classes of `importlib.abc`, whose import takes half of the time of this one.
    """

    def __init__(self) -> None:
        self.waiting: dict[str, list[OnImport]] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in self.waiting:
            return None
        # Nothing is taken out here: a program may only ask whether the module exists, and import it later.
        spec = self._find_with_others(name, path, target)
        if spec is not None and spec.loader is not None:
            loader: Any = _CallingLoader(spec.loader)
            spec.loader = loader
        return spec

    def _find_with_others(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> ModuleSpec | None:
        for finder in sys.meta_path:
            find: Any = getattr(finder, "find_spec", None) if finder is not self else None
            if find is not None and (spec := find(name, path, target)) is not None:
                found: ModuleSpec = spec
                return found
        return None


class _CallingLoader:
    """Loads with the module's own loader, and calls the functions that wait."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:  # `get_code`, `get_data` and so on
        return getattr(self.__dict__["_loader"], name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        for function in _finder.waiting.pop(module.__name__, ()):
            _call(function, module)


def _call(function: OnImport, module: ModuleType) -> None:
    try:
        function(module)
    except Exception as error:  # the application's import succeeded
        log.warning("What had to follow the import of %s failed: %r", module.__name__, error, exc_info=error)


_finder = _Finder()
