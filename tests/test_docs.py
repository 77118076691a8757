"""The pages of docs/ are all listed, their links lead somewhere, and what they name is what the code has.

`make docs` makes a site of them, in which every public name has its place.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest

from recorder.config import Config
from recorder.storage import rows, schema, views
from recorder.wire import deltas
from recorder.wire.encode import WIRES
from tests.test_public import DOORS, parts, public

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
CONCEPTS = (DOCS / "concepts.md").read_text(encoding="utf-8")

_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
_PATH = re.compile(r"`((?:recorder|tests|docs|migrations|examples)/[\w./-]*)`")
_ANY_ADDRESS = re.compile(r"[a-z]+:")


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


@cache
def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub names them in links."""
    heads = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def relative_links(page: Path) -> Iterator[str]:
    """The links of a page that lead to files of this repository."""
    for target in _LINK.findall(prose(page)):
        if not _ANY_ADDRESS.match(target):
            yield target


def leads_somewhere(page: Path, link: str) -> bool:
    """Whether the file exists, and the heading in it where the link names one."""
    name, _, anchor = link.partition("#")
    target = (page.parent / name).resolve() if name else page
    return target.exists() and (not anchor or anchor in anchors(target))


def table(text: str, head: str) -> list[str]:
    """The first column of the table below this head, without backquotes."""
    [rest] = re.findall(rf"^\| {head} \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [line.split("|")[1].strip().strip("`") for line in rest.splitlines()]


def constants(module: object, *, like: str) -> set[str]:
    """The texts of a module's constants whose names are in capitals, and whose texts match."""
    values = {value for name, value in vars(module).items() if name.isupper() and isinstance(value, str)}
    return {value for value in values if re.fullmatch(like, value)}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    """To a file of the repository, and to a heading of it where one is named."""
    assert [link for link in relative_links(page) if not leads_somewhere(page, link)] == []


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    """A missing page and a missing heading, and nothing inside of a block of code."""
    page = tmp_path / "page.md"
    page.write_text(
        "# A *head*, here\n[a](page.md#a-head-here) [b](gone.md) [c](#gone)\n```\n[d](x.md)\n```\n"
    )
    found = [link for link in relative_links(page) if not leads_somewhere(page, link)]
    assert found == ["gone.md", "#gone"]


def test_the_table_of_contents_lists_every_page() -> None:
    """Each page of docs/ once, and the decisions by their index."""
    listed = list(relative_links(DOCS / "README.md"))
    pages = {page.name for page in DOCS.glob("*.md")} - {"README.md"}
    assert sorted(listed) == sorted({*pages, "../README.md", "decisions/README.md"})


def test_the_first_page_leads_to_the_others() -> None:
    """It links the concepts and the table of contents."""
    assert {"docs/README.md", "docs/concepts.md"} <= set(relative_links(ROOT / "README.md"))


def test_each_noun_is_a_table_or_a_view() -> None:
    """The seven nouns are the words of the schema."""
    nouns = [noun.lower() for noun in re.findall(r"^\*\*(\w+)\.\*\* ", CONCEPTS, re.MULTILINE)]
    assert nouns == ["conversation", "message", "run", "token", "frame", "segment", "gap"]
    tables = {*schema.metadata.tables, views.tokens.name}
    assert {f"{noun}s" for noun in nouns} <= tables


@pytest.mark.parametrize("page", ["concepts.md", "recording.md"])
def test_the_statuses_are_those_of_the_code(page: str) -> None:
    """Both tables have all of them and no other."""
    listed = table((DOCS / page).read_text(encoding="utf-8"), "status")
    assert sorted(listed) == sorted(constants(rows, like="[a-z]+"))


def test_the_kinds_of_tokens_are_those_of_the_code() -> None:
    """The table has all of them and no other."""
    assert sorted(table(CONCEPTS, "kind")) == sorted(constants(deltas, like="[a-z_]+"))


def test_the_glossary_names_what_the_code_has() -> None:
    """Its statuses, views and wire formats are all there are, and each word has one line."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    lines = dict(re.findall(r"^\| ([a-z ]+) \| ([A-Z].*) \|$", page, re.MULTILINE))
    assert len(lines) == len(table(page, "word"))
    assert named_in(lines["status"]) == constants(rows, like="[a-z]+")
    assert named_in(lines["view"]) == set(views.definitions("sqlite"))
    assert named_in(lines["wire format"]) == set(WIRES)
    assert named_in(lines["kind"]) <= constants(deltas, like="[a-z_]+")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    """Modules, tests and pages, as paths from the top of the repository."""
    found = set(_PATH.findall(page.read_text(encoding="utf-8")))
    assert [name for name in found if not (ROOT / name).exists()] == []


def named_in(text: str) -> set[str]:
    """What stands in backquotes."""
    return set(re.findall("`([^`]+)`", text))


@pytest.mark.parametrize("name", ["flush_interval", "block_timeout"])
def test_the_times_are_the_defaults_of_the_code(name: str) -> None:
    """Wherever a page gives the seconds of an option in brackets."""
    default = getattr(Config(), name)
    for page in PAGES:
        for seconds in re.findall(rf"`{name}`\s+\(([\d.]+) s\)", prose(page)):
            assert float(seconds) == default, page
    assert f"`{name}` ({default:g} s)" in " ".join(CONCEPTS.split())


def test_every_option_has_its_line() -> None:
    """The table of options has each field of `Config`, and what the callback takes besides."""
    text = (DOCS / "recording.md").read_text(encoding="utf-8")
    lines = [name.strip(" `") for cell in table(text, "option") for name in cell.split(",")]
    assert sorted(lines) == sorted(["url", "conversation_id", *(field.name for field in fields(Config))])


def test_the_site_has_every_page() -> None:
    """Its navigation lists each page of docs/ and of the reference."""
    listed = set(re.findall(r"^   (/\S+)$", (DOCS / "index.rst").read_text(encoding="utf-8"), re.MULTILINE))
    pages = [*DOCS.glob("*.md"), *(DOCS / "reference").glob("*.rst")]
    assert {f"/{page.relative_to(ROOT).with_suffix('')}" for page in pages} <= listed
    assert [name for name in listed if not list(ROOT.glob(f"{name[1:]}.*"))] == []


def test_the_reference_has_every_public_module() -> None:
    """A page for each, which shows what it lists as public."""
    pages = [page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.rst")]
    shown = [name for page in pages for name in re.findall(r"^\.\. automodule:: (\S+)$", page, re.MULTILINE)]
    assert sorted(shown) == sorted(DOORS)


@pytest.mark.network
@pytest.mark.timeout(900)
def test_the_site_has_every_public_name(tmp_path: Path) -> None:
    """`make docs` ends without a warning, and its inventory has each public name and its methods."""
    site, environment = tmp_path / "site", tmp_path / "venv"
    command = ["make", "docs", f"PYTHON={sys.executable}", f"VENV={environment}", f"SITE={site}"]
    subprocess.run(command, cwd=ROOT, check=True)
    packed = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    listed = {line.partition(" ")[0] for line in zlib.decompress(packed).decode().splitlines()}
    assert [name for name in every_public_name() if name not in listed] == []
    assert "README.html" in (site / "index.html").read_text(encoding="utf-8")
    reference = (site / "docs/reference/testing.html").read_text(encoding="utf-8")
    example = re.search(r"<pre>.*LoopbackProvider", reference)
    assert example is not None


def every_public_name() -> Iterator[str]:
    """The public names of all public modules, and the public methods of their classes; of an alias only its name."""
    for door in DOORS:
        module = importlib.import_module(door)
        for name in public(module):
            thing = getattr(module, name)
            yield f"{door}.{name}"
            if getattr(thing, "__name__", None) == name:
                yield from (f"{door}.{part}" for part, _ in parts(name, thing))
