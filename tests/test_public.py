"""The public names of each module exist, are listed in order, and have docstrings."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from importlib.util import find_spec
from types import ModuleType

import pytest

import recorder

#: Modules from which users import.
PUBLIC_MODULES = ["recorder"] + [
    name
    for name in (
        "recorder.analysis",
        "recorder.callbacks",
        "recorder.chains",
        "recorder.errors",
        "recorder.export",
        "recorder.integrations.otel",
        "recorder.messages",
        "recorder.models",
        "recorder.replay",
        "recorder.server",
        "recorder.testing",
        "recorder.upkeep",
    )
    if find_spec(name)
]


def public(module: ModuleType) -> list[str]:
    """Return the names of a module's `__all__`; without one, the classes and functions that it defines."""
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return list(listed)
    return [
        name for name, public_object in vars(module).items() if is_defined_in(module, name, public_object)
    ]


def is_defined_in(module: ModuleType, name: str, public_object: object) -> bool:
    """Return whether a module defines a class or function itself, under a name without a leading underscore."""
    named = inspect.isclass(public_object) or inspect.isfunction(public_object)
    return named and not name.startswith("_") and public_object.__module__ == module.__name__


def parts(name: str, public_object: object) -> Iterator[tuple[str, object]]:
    """Yield a public object, and the public methods that its class defines."""
    if inspect.isclass(public_object) or inspect.isroutine(public_object):
        yield name, public_object
    if inspect.isclass(public_object):
        for method, body in vars(public_object).items():
            if not method.startswith("_") and inspect.isfunction(body):
                yield f"{name}.{method}", getattr(public_object, method)


def test_the_public_list_is_sorted() -> None:
    """The names of `recorder.__all__` are in alphabetical order."""
    assert public(recorder) == sorted(public(recorder))


@pytest.mark.parametrize("module_name", PUBLIC_MODULES)
def test_every_public_name_can_be_imported(module_name: str) -> None:
    """Each name of a module's list is an attribute of the module, and `dir()` lists it."""
    module = importlib.import_module(module_name)
    names = public(module)
    assert names != []
    assert [name for name in names if not hasattr(module, name)] == []
    assert sorted(set(names) - set(dir(module))) == []


@pytest.mark.parametrize("module_name", PUBLIC_MODULES)
def test_every_public_object_has_a_docstring(module_name: str) -> None:
    """Public modules, classes, functions and methods have docstrings."""
    module = importlib.import_module(module_name)
    undocumented = [
        part
        for name in public(module)
        for part, public_object in parts(name, getattr(module, name))
        if not inspect.getdoc(public_object)
    ]
    assert undocumented == []
    assert module.__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A module that imports names on first use raises Python's usual error for an unknown name."""
    with pytest.raises(AttributeError, match=r"^module 'recorder' has no attribute 'no_such_name'$"):
        _ = recorder.no_such_name  # type: ignore[attr-defined]
