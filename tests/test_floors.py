"""Imports go only to lower floors, modules and functions stay short, and `import recorder` stays light."""

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

#: The floor of each area, which is a module or subpackage at the top of the package.
FLOORS = {
    name: floor
    for floor, names in enumerate(
        (
            "errors",
            "config core messages",
            "redaction",
            "wire",
            "callbacks costs storage",
            "analysis export recording replay runs upkeep",
            "chat_history_callback",
            "instrumentation memory models",
            "chains integrations",
            "cli server testing __main__ __init__",
        )
    )
    for name in names.split()
}
#: Areas of the floor of models, which must not import each other.
FREE_AREAS = {name for name, floor in FLOORS.items() if floor == 7}

#: Allowed imports of a higher floor, inside of a function only: (module, imported module).
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
class Import:
    """One import of one module of the package by another."""

    #: Dotted name without the leading "recorder.", "" for the package itself.
    source: str
    target: str
    line: int
    #: Whether it is at module level, so that it runs when the module is imported.
    top: bool

    def __str__(self) -> str:
        return f"{self.source or '__init__'}:{self.line} imports {self.target or '__init__'}"


def modules() -> dict[str, Path]:
    """Return every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def area(module: str) -> str:
    """Return the first name of a module, which has a floor; `public` belongs to `__init__`."""
    first = module.split(".")[0]
    return "__init__" if first in ("", "public") else first


def targets(node: ast.AST, package: str) -> Iterator[str]:
    """Yield the modules of the package that one import statement names."""
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
    """Return the modules of a `from` import: `from a import b` names a.b if that is a module, else a."""
    above = package.split(".")
    base = ".".join(above[: len(above) - node.level + 1]) if node.level else ""
    module = ".".join(part for part in (base, node.module) if part)
    return [f"{module}.{alias.name}" for alias in node.names]


def module_of(name: str) -> str:
    """Return the longest beginning of a dotted name that is a module."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name


def imports() -> list[Import]:
    """Return every import inside of the package."""
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
                found.append(Import(source, target, line, id(node) not in inside))
    return [found_import for found_import in found if found_import.source != found_import.target]


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every function and method below a node."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def goes_up(found_import: Import) -> bool:
    """Return whether an import leads to a higher floor."""
    return FLOORS[area(found_import.target)] > FLOORS[area(found_import.source)]


def goes_sideways(found_import: Import) -> bool:
    """Return whether an import leads from one area of the floor of models to another."""
    ends = {area(found_import.source), area(found_import.target)}
    return len(ends) == 2 and ends <= FREE_AREAS


def allowed(found_import: Import) -> bool:
    """Return whether an import of a higher floor is listed and stands inside of a function."""
    return not found_import.top and (found_import.source, found_import.target) in UPWARD


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the number of lines of a function without its docstring."""
    total = (function.end_lineno or function.lineno) - function.lineno + 1
    if ast.get_docstring(function) is None:
        return total
    text = function.body[0]
    return total - ((text.end_lineno or text.lineno) - text.lineno + 1)


def long_functions() -> dict[str, int]:
    """Return each function over the limit with its number of lines."""
    found = {}
    for module, path in MODULES.items():
        for function in functions(ast.parse(path.read_text(encoding="utf-8"))):
            if length(function) > LONGEST_FUNCTION:
                found[f"{module}.{function.name}"] = length(function)
    return found


def test_every_module_has_a_floor() -> None:
    """Each module belongs to an area that is listed in `FLOORS`."""
    missing = [name for name in MODULES if area(name) not in FLOORS]
    assert missing == []


def test_contributing_lists_the_floors() -> None:
    """The table in CONTRIBUTING.md has each area on its floor, and no area that does not exist."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\| (\d) \w+ \| ([^|]*) \|", page, re.MULTILINE)
    shown = {name: int(floor) for floor, names in lines for name in re.findall(r"`(\w+)/?`", names)}
    assert shown == {name: floor for name, floor in FLOORS.items() if name != "__init__"}
    assert FLOORS.keys() == {area(name) for name in MODULES}


def longest_chain() -> list[str]:
    """Return the areas of the longest chain of imports from one area to the next."""
    below: dict[str, set[str]] = {area(name): set() for name in MODULES}
    for found_import in imports():
        if area(found_import.source) != area(found_import.target) and not goes_up(found_import):
            below[area(found_import.source)].add(area(found_import.target))
    chains: dict[str, list[str]] = {}
    for name in TopologicalSorter(below).static_order():
        chains[name] = [name, *max((chains[each] for each in below[name]), key=len, default=[])]
    # The two ways in, `import recorder` and `python -m recorder`, are no areas to walk through.
    return max((chain for name, chain in chains.items() if not name.startswith("__")), key=len)


def test_the_longest_chain_of_imports_has_at_most_eleven_areas() -> None:
    """No chain of imports from area to area is longer than eleven."""
    assert len(longest_chain()) <= 11, longest_chain()


def test_imports_only_go_down() -> None:
    """No module imports one of a higher floor, except for the listed imports."""
    wrong = [
        str(found_import) for found_import in imports() if goes_up(found_import) and not allowed(found_import)
    ]
    assert wrong == []


def test_every_listed_upward_import_exists() -> None:
    """The list of allowed imports holds only imports that the code has."""
    used = {(found_import.source, found_import.target) for found_import in imports() if goes_up(found_import)}
    assert used >= UPWARD


def test_areas_of_the_floor_of_models_do_not_import_each_other() -> None:
    """Each area of this floor can be removed without changing another."""
    assert [str(found_import) for found_import in imports() if goes_sideways(found_import)] == []


def test_no_imports_form_a_circle() -> None:
    """There is no circle of imports, inside of a floor either."""
    graph: dict[str, set[str]] = {name: set() for name in MODULES}
    for found_import in imports():
        if (found_import.source, found_import.target) not in UPWARD and not found_import.target.startswith(
            f"{found_import.source}."
        ):
            graph[found_import.source].add(found_import.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(name or "__init__" for name in error.args[1]))


def test_targets_finds_every_form_of_import() -> None:
    """Absolute imports, imports of a name, of a module, and relative imports are found."""
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


def test_imports_that_go_up_or_sideways_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules report an import of a higher floor and one between two areas of the floor of models."""
    monkeypatch.setattr(f"{__name__}.FREE_AREAS", {*FREE_AREAS, "integrations"})
    assert goes_up(Import("wire.sse", "storage.store", 1, True))
    assert not goes_up(Import("storage.store", "wire.sse", 1, True))
    assert goes_sideways(Import("models.openai", "integrations.tee", 1, True))
    assert not goes_sideways(Import("models.openai", "models.base", 1, True))
    assert not allowed(Import("replay", "models.replayed_model", 1, True))


@pytest.mark.parametrize("module", MODULES, ids=lambda name: name or "__init__")
def test_modules_stay_short(module: str) -> None:
    """No module has more than 400 lines."""
    lines = len(MODULES[module].read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST_MODULE


def test_functions_stay_short() -> None:
    """No function has more than 40 lines, except for those that are listed with a reason."""
    assert sorted(long_functions()) == sorted(LONG_FUNCTIONS)


def test_half_of_the_functions_have_six_lines_or_less() -> None:
    """The median length of a function, without its docstring, is at most six lines."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in MODULES.values()]
    assert median(length(function) for tree in trees for function in functions(tree)) <= 6


def test_import_recorder_loads_nothing_heavy() -> None:
    """`import recorder` loads no SDK, no database library and no library of the command line."""
    code = f"import sys, recorder; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_records_is_imported_without_the_databases_libraries() -> None:
    """The first recorder loads them: the import of the callback takes a fraction of an SDK's."""
    databases = ("aiosqlite", "alembic", "asyncpg", "sqlalchemy")
    code = (
        "import sys; from recorder import ChatHistoryCallback; import recorder.models; "
        f"print([name for name in {databases!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
