"""Calls a function when a module is imported.

The package wrapt has this, too, but its import takes 60 milliseconds, and a program may never import the module.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

log = logging.getLogger("recorder")

OnImport = Callable[[ModuleType], None]


def when_imported(name: str, function: OnImport) -> None:
    """Call `function` with the module: now if it is imported already, else right after its import."""
    if (module := sys.modules.get(name)) is not None:
        function(module)
        return
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    _finder.waiting.setdefault(name, []).append(function)


class _Finder:
    """Finds the modules that somebody waits for, with the finders after it.

    Without the base classes of `importlib.abc`, whose import takes half of the time of this one.
    """

    def __init__(self) -> None:
        self.waiting: dict[str, list[OnImport]] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        functions = self.waiting.pop(name, None)  # without it, the search below does not come here again
        if functions is None:
            return None
        spec = find_spec(name)
        if spec is None or spec.loader is None:
            self.waiting[name] = functions
            return None
        loader: Any = _CallingLoader(spec.loader, functions)
        spec.loader = loader
        return spec


class _CallingLoader:
    """Loads with the module's own loader, and calls the functions."""

    def __init__(self, loader: Any, functions: Sequence[OnImport]) -> None:
        self._loader = loader
        self._functions = functions

    def __getattr__(self, name: str) -> Any:  # `get_code`, `get_data` and so on
        return getattr(self.__dict__["_loader"], name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        try:
            self._loader.exec_module(module)
        except BaseException:
            _finder.waiting.setdefault(module.__name__, []).extend(self._functions)  # for the next attempt
            raise
        for function in self._functions:
            _call(function, module)


def _call(function: OnImport, module: ModuleType) -> None:
    try:
        function(module)
    except Exception as error:  # the application's import succeeded
        log.warning("What had to follow the import of %s failed: %r", module.__name__, error, exc_info=error)


_finder = _Finder()
