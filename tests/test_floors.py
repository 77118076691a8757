"""The house stands: imports only go down, modules and functions stay short, the front door is light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "recorder"

#: The floor of each module or subpackage, by its first name.
FLOORS = {
    name: floor
    for floor, names in enumerate(
        (
            "errors",
            "config core messages",
            "redaction",
            "wire",
            "callbacks storage",
            "export recording replay",
            "chat_history_callback",
            "models",
            "cli testing __init__",
        )
    )
    for name in names.split()
}
ROOMS = {name for name, floor in FLOORS.items() if floor == 7}

#: Public conveniences that import upward, inside a function only: (module, what it imports).
UPWARD: set[tuple[str, str]] = {("replay.replay", "models.replayed_model")}

#: Functions that are longer than LONGEST_FUNCTION, each with its reason.
LONG_FUNCTIONS = {
    "models.anthropic.__init__": "LangChain's arguments, each by its name",
    "models.azure.__init__": "LangChain's arguments, each by its name",
    "models.completions.__init__": "LangChain's arguments, each by its name",
    "models.openai.__init__": "LangChain's arguments, each by its name",
}

LONGEST_MODULE = 400
LONGEST_FUNCTION = 40
HEAVY = ("aiosqlite", "alembic", "anthropic", "openai", "rich", "sqlalchemy", "typer", "zstandard")


@dataclass(frozen=True, slots=True)
class Arrow:
    """One import of one module of the house by another."""

    #: Dotted name without the leading "recorder.", "" for the package itself.
    source: str
    target: str
    line: int
    #: Whether it stands at module level, and so runs when the module is imported.
    top: bool

    def __str__(self) -> str:
        return f"{self.source or '__init__'}:{self.line} imports {self.target or '__init__'}"


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name below it."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def room(module: str) -> str:
    """The first name of a module: what has a floor. `public` has the names of `__init__`."""
    first = module.split(".")[0]
    return "__init__" if first in ("", "public") else first


def targets(node: ast.AST, package: str) -> Iterator[str]:
    """The modules of the house that one import statement names."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        names = from_names(node, package)
    else:
        return
    for name in names:
        if name == "recorder" or name.startswith("recorder."):
            yield module_of(name.removeprefix("recorder").removeprefix("."))


def from_names(node: ast.ImportFrom, package: str) -> list[str]:
    """`from a import b` names a.b when that is a module, else something inside a."""
    above = package.split(".")
    base = ".".join(above[: len(above) - node.level + 1]) if node.level else ""
    module = ".".join(part for part in (base, node.module) if part)
    return [f"{module}.{alias.name}" for alias in node.names]


def module_of(name: str) -> str:
    """The longest part of a dotted name that is a module."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name


def arrows() -> list[Arrow]:
    """Every import inside the house."""
    found = []
    for source, path in MODULES.items():
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        inside = {id(node) for function in functions(tree) for node in ast.walk(function)}
        package = ".".join(("recorder", source) if source else ("recorder",))
        if path.name != "__init__.py":
            package = package.rpartition(".")[0]
        for node in ast.walk(tree):
            for target in targets(node, package):
                line = getattr(node, "lineno", 0)
                found.append(Arrow(source, target, line, id(node) not in inside))
    return [arrow for arrow in found if arrow.source != arrow.target]


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method below a node."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def goes_up(arrow: Arrow) -> bool:
    """Whether an import leads to a higher floor."""
    return FLOORS[room(arrow.target)] > FLOORS[room(arrow.source)]


def goes_sideways(arrow: Arrow) -> bool:
    """Whether an import leads from one room of the fifth floor to another."""
    ends = {room(arrow.source), room(arrow.target)}
    return len(ends) == 2 and ends <= ROOMS


def allowed(arrow: Arrow) -> bool:
    """Whether an upward import is a listed convenience, inside a function."""
    return not arrow.top and (arrow.source, arrow.target) in UPWARD


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function, its docstring not counted."""
    total = (function.end_lineno or function.lineno) - function.lineno + 1
    if ast.get_docstring(function) is None:
        return total
    text = function.body[0]
    return total - ((text.end_lineno or text.lineno) - text.lineno + 1)


def long_functions() -> dict[str, int]:
    """Each function over the limit, with its lines."""
    found = {}
    for module, path in MODULES.items():
        for function in functions(ast.parse(path.read_text(encoding="utf-8"))):
            if length(function) > LONGEST_FUNCTION:
                found[f"{module}.{function.name}"] = length(function)
    return found


def test_every_module_has_a_floor() -> None:
    """A new module says where it lives before anything imports it."""
    homeless = [name for name in MODULES if room(name) not in FLOORS]
    assert homeless == []


def test_the_page_for_contributors_shows_the_house() -> None:
    """Its table has the same rooms on the same floors, and no room that is not built."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\| (\d) \w+ \| ([^|]*) \|", page, re.MULTILINE)
    shown = {name: int(floor) for floor, names in lines for name in re.findall(r"`(\w+)/?`", names)}
    assert shown == {name: floor for name, floor in FLOORS.items() if name != "__init__"}
    assert FLOORS.keys() == {room(name) for name in MODULES}


def longest_chain() -> list[str]:
    """The names of the longest chain of imports from one room to the next."""
    below: dict[str, set[str]] = {room(name): set() for name in MODULES}
    for arrow in arrows():
        if room(arrow.source) != room(arrow.target) and not goes_up(arrow):
            below[room(arrow.source)].add(room(arrow.target))
    chains: dict[str, list[str]] = {}
    for name in TopologicalSorter(below).static_order():
        chains[name] = [name, *max((chains[each] for each in below[name]), key=len, default=[])]
    return max((chain for name, chain in chains.items() if name != "__init__"), key=len)


def test_the_longest_chain_of_imports_is_nine() -> None:
    """Whoever follows an import through the house passes nine rooms at most."""
    assert len(longest_chain()) <= 9, longest_chain()


def test_imports_only_go_down() -> None:
    """No module knows one above it, but for the listed conveniences."""
    wrong = [str(arrow) for arrow in arrows() if goes_up(arrow) and not allowed(arrow)]
    assert wrong == []


def test_no_listed_convenience_is_out_of_date() -> None:
    """The list of upward imports holds what exists and nothing else."""
    used = {(arrow.source, arrow.target) for arrow in arrows() if goes_up(arrow)}
    assert used >= UPWARD


def test_rooms_do_not_know_each_other() -> None:
    """A provider's model, an integration and an analysis can each be taken away alone."""
    assert [str(arrow) for arrow in arrows() if goes_sideways(arrow)] == []


def test_no_import_goes_in_a_circle() -> None:
    """Inside a floor, too, imports go one way."""
    graph: dict[str, set[str]] = {name: set() for name in MODULES}
    for arrow in arrows():
        if (arrow.source, arrow.target) not in UPWARD and not arrow.target.startswith(f"{arrow.source}."):
            graph[arrow.source].add(arrow.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(name or "__init__" for name in error.args[1]))


def test_the_reader_of_imports_sees_every_form() -> None:
    """Absolute, of a name, of a module, and relative imports all end at their module."""
    seen = []
    for text in (
        "import recorder.core.clock",
        "from recorder.core import clock",
        "from recorder.core.clock import now",
    ):
        seen += list(targets(ast.parse(text).body[0], "recorder"))
    seen += list(targets(ast.parse("from ..core import clock").body[0], "recorder.wire"))
    seen += list(targets(ast.parse("from ..core.clock import now").body[0], "recorder.wire"))
    seen += list(targets(ast.parse("from recorder import SomePublicName").body[0], "recorder"))
    assert seen == ["core.clock"] * 5 + [""]


def test_an_arrow_that_goes_up_or_sideways_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules say no to what they are there for, between rooms that are built later, too."""
    monkeypatch.setattr(f"{__name__}.ROOMS", {*ROOMS, "integrations"})
    assert goes_up(Arrow("wire.sse", "storage.store", 1, True))
    assert not goes_up(Arrow("storage.store", "wire.sse", 1, True))
    assert goes_sideways(Arrow("models.openai", "integrations.tee", 1, True))
    assert not goes_sideways(Arrow("models.openai", "models.base", 1, True))
    assert not allowed(Arrow("replay", "models.replayed", 1, True))


@pytest.mark.parametrize("module", MODULES, ids=lambda name: name or "__init__")
def test_modules_stay_short(module: str) -> None:
    """A module that grows past one reading is two nouns."""
    lines = len(MODULES[module].read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST_MODULE


def test_functions_stay_short() -> None:
    """The long functions are those listed with a reason, and no others."""
    assert sorted(long_functions()) == sorted(LONG_FUNCTIONS)


def test_half_of_the_functions_have_six_lines_or_less() -> None:
    """A function is read at one glance; the docstring is not counted."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in MODULES.values()]
    assert median(length(function) for tree in trees for function in functions(tree)) <= 6


def test_import_recorder_loads_nothing_heavy() -> None:
    """An application that imports recorder pays for a database or an SDK when it uses one."""
    code = f"import sys, recorder; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
