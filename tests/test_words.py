"""One word, one meaning: names that say nothing by themselves stay out, and a class name is used once."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.test_floors import MODULES

#: Names that meant something else in each module.
OUT = frozenset(("said", "asked", "told", "whole", "of", "taken", "took", "news", "wish", "keep"))


def names(path: Path) -> Iterator[str]:
    """Every identifier that a module defines or uses."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name


def words_that_are_out() -> set[tuple[str, str]]:
    """The modules with such a name, and the name."""
    return {
        (module, name)
        for module, path in MODULES.items()
        for name in names(path)
        if name.lower().strip("_") in OUT
    }


def class_names() -> dict[str, list[str]]:
    """The modules of each class name; an underscore does not make it another one."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found[node.name.strip("_")].append(module)
    return found


def test_no_name_needs_the_code_to_be_understood() -> None:
    """`said`, `asked`, `told`: write what it is."""
    assert sorted(words_that_are_out()) == []


def test_a_class_name_has_one_meaning() -> None:
    """Two classes of one name are two things that a reader takes for one."""
    assert {name: modules for name, modules in class_names().items() if len(modules) > 1} == {}


def test_the_reader_of_names_sees_every_kind(tmp_path: Path) -> None:
    """Variables, attributes, parameters, functions and classes."""
    module = tmp_path / "module.py"
    module.write_text("class Wish:\n    def of(self, _said): self.news = took\n")
    assert {name.lower().strip("_") for name in names(module)} & OUT == {"wish", "of", "said", "news", "took"}
