"""Public names that are imported when they are first used.

A package writes each of its public names once, as an import statement of its module `public`, which type checkers and
editors read. At run time these statements import nothing: they only tell which module each name comes from.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.machinery import PathFinder
from types import SimpleNamespace
from typing import Any


def public_names(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package that has a module `public`."""
    sources = _sources_of(f"{package}.public")
    attributes = vars(sys.modules[package])

    def __getattr__(name: str) -> Any:
        if name not in sources:
            raise AttributeError(
                f"module {package!r} has no attribute {name!r}", name=name, obj=sys.modules[package]
            )
        value = attributes[name] = getattr(import_module(sources[name]), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*attributes, *sources})

    for name, module in sources.items():
        if module == f"{package}.{name}":  # importing the module later would put it in the function's place
            __getattr__(name)
    return __getattr__, __dir__, sorted(sources)


def _sources_of(module: str) -> dict[str, str]:
    """Each name that a module imports -> the module that it is imported from, without importing any."""
    package = sys.modules[module.rpartition(".")[0]]
    # Not `importlib.util.find_spec`: pytest puts a finder before all others, and its loader has no code to give.
    spec = PathFinder.find_spec(module, package.__path__)
    code = spec.loader.get_code(module)  # type: ignore[union-attr]  # every loader of source or bytecode has it
    namespace: dict[str, Any] = {"__builtins__": {"__import__": _imported_names}}
    exec(code, namespace)
    return {name: source for name, source in namespace.items() if not name.startswith("__")}


def _imported_names(module: str, _globals: Any, _locals: Any, names: tuple[str, ...], _level: int) -> Any:
    """In place of `__import__`: an object that has the module's name under each of the names."""
    return SimpleNamespace(**dict.fromkeys(names, module))
