"""Vague identifiers are forbidden in the package, and no two classes of the package have the same name."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.test_floors import MODULES

#: Forbidden names: each of them meant something else in each module.
OUT = frozenset(("said", "asked", "told", "whole", "of", "taken", "took", "news", "wish", "keep"))


def names(path: Path) -> Iterator[str]:
    """Yield every identifier that a module defines or uses."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name


def forbidden_names() -> set[tuple[str, str]]:
    """Return the forbidden names that the package uses, each with its module."""
    return {
        (module, name)
        for module, path in MODULES.items()
        for name in names(path)
        if name.lower().strip("_") in OUT
    }


#: Classes of one name on purpose: a user changes an import, and nothing else.
SAME_NAME = {"ChatHistoryCallback": ["chat_history_callback", "integrations.langchain.handler"]}


def class_names() -> dict[str, list[str]]:
    """Return the modules that define each class name; leading and trailing underscores do not count."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found[node.name.strip("_")].append(module)
    return found


def test_no_module_uses_a_forbidden_name() -> None:
    """No module of the package has an identifier such as `said`, `asked` or `told`."""
    assert sorted(forbidden_names()) == []


def test_every_class_name_is_defined_once() -> None:
    """No two modules of the package define a class of the same name, but those whose name users know."""
    assert {name: modules for name, modules in class_names().items() if len(modules) > 1} == SAME_NAME


def test_names_finds_every_kind_of_identifier(tmp_path: Path) -> None:
    """`names` finds variables, attributes, parameters, functions and classes."""
    module = tmp_path / "module.py"
    module.write_text("class Wish:\n    def of(self, _said): self.news = took\n")
    assert {name.lower().strip("_") for name in names(module)} & OUT == {"wish", "of", "said", "news", "took"}
