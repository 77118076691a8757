"""The public names: short lists, sorted, each of them there and explained."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from importlib.util import find_spec
from types import ModuleType

import pytest

import recorder

#: Modules whose names users import. A later one joins when it exists.
DOORS = ["recorder"] + [
    name
    for name in (
        "recorder.callbacks",
        "recorder.errors",
        "recorder.export",
        "recorder.messages",
        "recorder.models",
        "recorder.replay",
        "recorder.testing",
    )
    if find_spec(name)
]


def public(module: ModuleType) -> list[str]:
    """The names a module offers: its list, or what it defines itself without an underscore."""
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return list(listed)
    return [name for name, thing in vars(module).items() if mine(module, name, thing)]


def mine(module: ModuleType, name: str, thing: object) -> bool:
    """Whether a module defines a thing itself, for others."""
    named = inspect.isclass(thing) or inspect.isfunction(thing)
    return named and not name.startswith("_") and thing.__module__ == module.__name__


def parts(name: str, thing: object) -> Iterator[tuple[str, object]]:
    """A public thing, and the public methods that its class adds."""
    if inspect.isclass(thing) or inspect.isroutine(thing):
        yield name, thing
    if inspect.isclass(thing):
        for method, body in vars(thing).items():
            if not method.startswith("_") and inspect.isfunction(body):
                yield f"{name}.{method}", getattr(thing, method)


def test_the_public_list_is_sorted() -> None:
    """A list in order shows at a glance what is there."""
    assert public(recorder) == sorted(public(recorder))


@pytest.mark.parametrize("door", DOORS)
def test_every_public_name_is_there(door: str) -> None:
    """What a list promises can be imported, and dir() shows it."""
    module = importlib.import_module(door)
    names = public(module)
    assert names != []
    assert [name for name in names if not hasattr(module, name)] == []
    assert sorted(set(names) - set(dir(module))) == []


@pytest.mark.parametrize("door", DOORS)
def test_every_public_thing_is_explained(door: str) -> None:
    """Modules, classes, functions and methods that users meet have a docstring."""
    module = importlib.import_module(door)
    silent = [
        part
        for name in public(module)
        for part, thing in parts(name, getattr(module, name))
        if not inspect.getdoc(thing)
    ]
    assert silent == []
    assert module.__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    """Names that resolve on first use still fail as Python's do."""
    with pytest.raises(AttributeError, match=r"^module 'recorder' has no attribute 'no_such_name'$"):
        _ = recorder.no_such_name  # type: ignore[attr-defined]
