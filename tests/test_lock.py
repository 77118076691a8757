"""The locked package lists in .ci/lock have a version and hashes for every package, and no paths or addresses."""

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
#: The requirements of pyproject.toml that each list must contain.
WANTED = {
    "base.txt": [*BASE, *PROJECT["dependency-groups"]["build"]],
    "dev.txt": [*BASE, *EXTRAS["dev"], *EXTRAS["frameworks"]],
    "bench.txt": [*BASE, *EXTRAS["dev"], *EXTRAS["frameworks"], *EXTRAS["bench"]],
    "lowest.txt": [*BASE, *EXTRAS["dev"]],
    "docs.txt": PROJECT["dependency-groups"]["docs"],
    "lock.txt": PROJECT["dependency-groups"]["lock"],
}
#: The line of a package; its hashes follow on lines of their own.
PINNED = re.compile(
    r"^(?P<name>[\w.-]+)(?:\[[\w,-]+\])?==(?P<version>[^ ;]+)(?: ; [^\\]+)? \\$", re.MULTILINE
)


def versions(name: str) -> dict[str, set[str]]:
    """Return the versions of each package in a list; there are several if they depend on the version of Python."""
    found: dict[str, set[str]] = {}
    for line in PINNED.finditer((LOCK / name).read_text()):
        found.setdefault(canonicalize_name(line["name"]), set()).add(line["version"])
    return found


@pytest.mark.parametrize("name", LISTS)
def test_every_package_has_its_version_and_hashes(name: str) -> None:
    """A list contains packages, versions and hashes, and no address, option or path."""
    rest = PINNED.sub("", (LOCK / name).read_text())
    lines = [line.strip() for line in rest.splitlines() if line.strip()]
    assert [
        line for line in lines if not re.fullmatch(r"--hash=sha256:[0-9a-f]{64}( \\)?|#( .*)?", line)
    ] == []
    assert not re.search(r"https?:|file:|index|find-links", rest.replace("--hash", ""))
    assert versions(name)


@pytest.mark.parametrize("name", sorted(WANTED))
def test_a_list_satisfies_pyproject(name: str) -> None:
    """Each requirement of pyproject.toml is in its list, in a version that it allows; `make lock` updates the lists."""
    found = versions(name)
    for text in WANTED[name]:
        requirement = Requirement(text)
        if requirement.name != "chat-recorder":
            pinned = found.get(canonicalize_name(requirement.name), set())
            assert [each for each in pinned if each in requirement.specifier], (
                f"{name} needs {text}: make lock"
            )


def test_every_list_is_checked_here() -> None:
    """The files in .ci/lock are those of `WANTED`."""
    assert sorted(WANTED) == LISTS


@pytest.mark.parametrize("name", ["base.txt", "dev.txt", "docs.txt"])
def test_packages_have_the_same_version_in_all_lists(name: str) -> None:
    """Packages of two lists have the same version in both, so that installing both lists changes nothing."""
    largest, listed = versions("bench.txt"), versions(name)
    both = listed.keys() & largest.keys()
    assert {package: listed[package] for package in both if listed[package] != largest[package]} == {}
    assert both == listed.keys() or name == "docs.txt"


def test_the_lowest_list_has_the_lower_ends_of_the_ranges() -> None:
    """`make test-lowest` runs with the lowest versions that pyproject.toml allows."""
    found = versions("lowest.txt")
    for text in [*PROJECT["project"]["dependencies"], *EXTRAS["postgres"]]:
        requirement = Requirement(text)
        [floor] = [each.version for each in requirement.specifier if each.operator == ">="]
        assert {Version(each) for each in found[canonicalize_name(requirement.name)]} == {Version(floor)}


@pytest.mark.network
@pytest.mark.timeout(600)
def test_recorder_can_be_installed_beside_instructor(tmp_path: Path) -> None:
    """instructor needs rich below 15 and jiter below 0.15; both packages work in one environment."""
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", str(ROOT), "instructor==1.17.0"], check=True)
    subprocess.run([python, "-m", "pip", "check"], check=True)
    code = "import instructor, recorder; print(instructor.from_openai, recorder.ChatHistoryCallback)"
    subprocess.run([python, "-c", code], check=True)
    subprocess.run([python.with_name("recorder"), "demo", "--pace", "1000"], check=True, cwd=tmp_path)
