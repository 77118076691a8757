"""The locked environments: every package with its version and hashes, nothing of the machine that wrote them."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.oracle import ROOT

LOCK = ROOT / ".ci" / "lock"
LISTS = sorted(path.name for path in LOCK.glob("*.txt"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
BASE = [*PROJECT["project"]["dependencies"], *EXTRAS["postgres"], *PROJECT["build-system"]["requires"]]
#: What each list must hold, as pyproject.toml asks for it.
WANTED = {
    "base.txt": [*BASE, *PROJECT["dependency-groups"]["build"]],
    "dev.txt": [*BASE, *EXTRAS["dev"]],
    "bench.txt": [*BASE, *EXTRAS["dev"], *EXTRAS["bench"]],
    "lowest.txt": [*BASE, *EXTRAS["dev"]],
    "docs.txt": PROJECT["dependency-groups"]["docs"],
    "lock.txt": PROJECT["dependency-groups"]["lock"],
}
#: A line for each package; the hashes follow on lines of their own.
PINNED = re.compile(
    r"^(?P<name>[\w.-]+)(?:\[[\w,-]+\])?==(?P<version>[^ ;]+)(?: ; [^\\]+)? \\$", re.MULTILINE
)


def versions(name: str) -> dict[str, set[str]]:
    """The versions of each package in a list; several where it depends on the Python."""
    found: dict[str, set[str]] = {}
    for line in PINNED.finditer((LOCK / name).read_text()):
        found.setdefault(canonicalize_name(line["name"]), set()).add(line["version"])
    return found


@pytest.mark.parametrize("name", LISTS)
def test_every_package_has_its_version_and_hashes(name: str) -> None:
    """And nothing else is there: no address, no option, no path."""
    rest = PINNED.sub("", (LOCK / name).read_text())
    lines = [line.strip() for line in rest.splitlines() if line.strip()]
    assert [
        line for line in lines if not re.fullmatch(r"--hash=sha256:[0-9a-f]{64}( \\)?|#( .*)?", line)
    ] == []
    assert not re.search(r"https?:|file:|index|find-links", rest.replace("--hash", ""))
    assert versions(name)


@pytest.mark.parametrize("name", sorted(WANTED))
def test_a_list_holds_what_pyproject_asks_for(name: str) -> None:
    """After a change of pyproject.toml: `make lock`."""
    found = versions(name)
    for text in WANTED[name]:
        wanted = Requirement(text)
        if wanted.name != "chat-recorder":
            pinned = found.get(canonicalize_name(wanted.name), set())
            assert [each for each in pinned if each in wanted.specifier], f"{name} needs {text}: make lock"


def test_every_list_is_one_of_these() -> None:
    """None is forgotten."""
    assert sorted(WANTED) == LISTS


@pytest.mark.parametrize("name", ["base.txt", "dev.txt", "docs.txt"])
def test_one_environment_serves_all(name: str) -> None:
    """What two lists have, they have in the same version, so that installing both changes nothing."""
    largest, listed = versions("bench.txt"), versions(name)
    both = listed.keys() & largest.keys()
    assert {package: listed[package] for package in both if listed[package] != largest[package]} == {}
    assert both == listed.keys() or name == "docs.txt"


def test_the_lowest_versions_are_those_that_pyproject_names() -> None:
    """What `make test-lowest` runs is the beginning of each range."""
    found = versions("lowest.txt")
    for text in [*PROJECT["project"]["dependencies"], *EXTRAS["postgres"]]:
        wanted = Requirement(text)
        [floor] = [each.version for each in wanted.specifier if each.operator == ">="]
        assert {Version(each) for each in found[canonicalize_name(wanted.name)]} == {Version(floor)}


@pytest.mark.network
@pytest.mark.timeout(600)
def test_it_is_installed_beside_instructor(tmp_path: Path) -> None:
    """Which holds rich below 15 and jiter below 0.15; both work in one environment."""
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", str(ROOT), "instructor==1.17.0"], check=True)
    subprocess.run([python, "-m", "pip", "check"], check=True)
    code = "import instructor, recorder; print(instructor.from_openai, recorder.ChatHistoryCallback)"
    subprocess.run([python, "-c", code], check=True)
    subprocess.run([python.with_name("recorder"), "demo", "--pace", "1000"], check=True, cwd=tmp_path)
