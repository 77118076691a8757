"""The pages of docs/ are listed, their links have targets, and the names in them exist in the code.

`make docs` makes a site of them, which lists every public name.
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
from recorder.wire.formats import DECODED
from tests.test_public import PUBLIC_MODULES, parts, public

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
CONCEPTS = (DOCS / "concepts.md").read_text(encoding="utf-8")

_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
_PATH = re.compile(r"`((?:recorder|tests|docs|migrations|examples)/[\w./-]*)`")
_ANY_ADDRESS = re.compile(r"[a-z]+:")


def prose(page: Path) -> str:
    """Return a page without its code blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


@cache
def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    heads = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def relative_links(page: Path) -> Iterator[str]:
    """Yield the links of a page that point to files of this repository."""
    for target in _LINK.findall(prose(page)):
        if not _ANY_ADDRESS.match(target):
            yield target


def has_target(page: Path, link: str) -> bool:
    """Return whether the file of a link exists, and the heading in it if the link names one."""
    name, _, anchor = link.partition("#")
    target = (page.parent / name).resolve() if name else page
    return target.exists() and (not anchor or anchor in anchors(target))


def table(text: str, head: str) -> list[str]:
    """Return the first column of the table below this header, without backquotes."""
    [rest] = re.findall(rf"^\| {head} \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [line.split("|")[1].strip().strip("`") for line in rest.splitlines()]


def constants(module: object, *, like: str) -> set[str]:
    """Return the strings of a module's upper-case constants that match a pattern."""
    values = {value for name, value in vars(module).items() if name.isupper() and isinstance(value, str)}
    return {value for value in values if re.fullmatch(like, value)}


def chat_models(path: Path) -> Iterator[str]:
    """Yield each line of example code that makes a chat model."""
    text = path.read_text(encoding="utf-8")
    code = text if path.suffix == ".py" else "".join(_FENCE.findall(text))
    yield from (line.strip() for line in code.splitlines() if re.search(r"Chat(OpenAI|Anthropic)\(", line))


def test_example_code_can_be_copied_for_the_models_of_today() -> None:
    """It passes no option that reasoning models refuse, and names no model that OpenAI or Anthropic has retired."""
    outdated = re.compile(r"\b(temperature|max_tokens)=|gpt-(3|4)|claude-3")
    paths = [*PAGES, *(ROOT / "examples").glob("*.py")]
    assert [line for path in paths for line in chat_models(path) if outdated.search(line)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_has_a_target(page: Path) -> None:
    """Each link points to a file of the repository, and to a heading of it if it names one."""
    assert [link for link in relative_links(page) if not has_target(page, link)] == []


def test_a_link_without_a_target_is_found(tmp_path: Path) -> None:
    """`has_target` reports a missing page and a missing heading; links inside of code blocks are not links."""
    page = tmp_path / "page.md"
    page.write_text(
        "# A *head*, here\n[a](page.md#a-head-here) [b](gone.md) [c](#gone)\n```\n[d](x.md)\n```\n"
    )
    found = [link for link in relative_links(page) if not has_target(page, link)]
    assert found == ["gone.md", "#gone"]


def test_the_table_of_contents_lists_every_page() -> None:
    """docs/README.md links each page of docs/ once, and the index of the decisions."""
    listed = list(relative_links(DOCS / "README.md"))
    pages = {page.name for page in DOCS.glob("*.md")} - {"README.md"}
    assert sorted(listed) == sorted({*pages, "../README.md", "decisions/README.md"})


def test_the_readme_links_the_documentation() -> None:
    """README.md links docs/concepts.md and the table of contents."""
    assert {"docs/README.md", "docs/concepts.md"} <= set(relative_links(ROOT / "README.md"))


def test_each_noun_is_a_table_or_a_view() -> None:
    """Each of the seven nouns in docs/concepts.md is the name of a table or of the view `tokens`."""
    nouns = [noun.lower() for noun in re.findall(r"^\*\*(\w+)\.\*\* ", CONCEPTS, re.MULTILINE)]
    assert nouns == ["conversation", "message", "run", "token", "frame", "segment", "gap"]
    tables = {*schema.metadata.tables, views.tokens.name}
    assert {f"{noun}s" for noun in nouns} <= tables


@pytest.mark.parametrize("page", ["concepts.md", "recording.md"])
def test_the_statuses_are_those_of_the_code(page: str) -> None:
    """The table of statuses lists every status of the code and no other."""
    listed = table((DOCS / page).read_text(encoding="utf-8"), "status")
    assert sorted(listed) == sorted(constants(rows, like="[a-z]+"))


def test_the_kinds_of_tokens_are_those_of_the_code() -> None:
    """The table of kinds lists every kind of the code and no other."""
    assert sorted(table(CONCEPTS, "kind")) == sorted(constants(deltas, like="[a-z_]+"))


def test_the_glossary_agrees_with_the_code() -> None:
    """The glossary names every status, view and wire format of the code, and each word has one line."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    lines = dict(re.findall(r"^\| ([a-z ]+) \| ([A-Z].*) \|$", page, re.MULTILINE))
    assert len(lines) == len(table(page, "word"))
    assert named_in(lines["status"]) == constants(rows, like="[a-z]+")
    assert named_in(lines["view"]) == set(views.definitions("sqlite"))
    assert named_in(lines["wire format"]) == set(DECODED)
    assert named_in(lines["kind"]) <= constants(deltas, like="[a-z_]+")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    """Paths of modules, tests and pages, written from the top of the repository, exist."""
    found = set(_PATH.findall(page.read_text(encoding="utf-8")))
    assert [name for name in found if not (ROOT / name).exists()] == []


def named_in(text: str) -> set[str]:
    """Return the texts between backquotes."""
    return set(re.findall("`([^`]+)`", text))


@pytest.mark.parametrize("name", ["flush_interval", "block_timeout"])
def test_the_times_are_the_defaults_of_the_code(name: str) -> None:
    """Where a page gives an option and its seconds in brackets, the seconds are the default."""
    default = getattr(Config(), name)
    for page in PAGES:
        for seconds in re.findall(rf"`{name}`\s+\(([\d.]+) s\)", prose(page)):
            assert float(seconds) == default, page
    assert f"`{name}` ({default:g} s)" in " ".join(CONCEPTS.split())


def test_every_option_is_in_the_table_of_options() -> None:
    """The table in docs/recording.md has each field of `Config`, and `url` and `conversation_id`."""
    text = (DOCS / "recording.md").read_text(encoding="utf-8")
    lines = [name.strip(" `") for cell in table(text, "option") for name in cell.split(",")]
    assert sorted(lines) == sorted(["url", "conversation_id", *(field.name for field in fields(Config))])


def test_the_site_has_every_page() -> None:
    """The navigation in docs/index.rst lists each page of docs/ and of the reference."""
    listed = set(re.findall(r"^   (/\S+)$", (DOCS / "index.rst").read_text(encoding="utf-8"), re.MULTILINE))
    pages = [*DOCS.glob("*.md"), *(DOCS / "reference").glob("*.rst")]
    assert {f"/{page.relative_to(ROOT).with_suffix('')}" for page in pages} <= listed
    assert [name for name in listed if not list(ROOT.glob(f"{name[1:]}.*"))] == []


def test_the_reference_has_every_public_module() -> None:
    """docs/reference/ has one page with `automodule` for each public module."""
    pages = [page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.rst")]
    shown = [name for page in pages for name in re.findall(r"^\.\. automodule:: (\S+)$", page, re.MULTILINE)]
    assert sorted(shown) == sorted(PUBLIC_MODULES)


@pytest.mark.network
@pytest.mark.timeout(900)
def test_the_site_has_every_public_name(tmp_path: Path) -> None:
    """`make docs` ends without a warning, and the site's inventory has each public name and its public methods."""
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
    """Yield the public names of all public modules, and the public methods of their classes."""
    for module_name in PUBLIC_MODULES:
        module = importlib.import_module(module_name)
        for name in public(module):
            thing = getattr(module, name)
            yield f"{module_name}.{name}"
            if getattr(thing, "__name__", None) == name:
                yield from (f"{module_name}.{part}" for part, _ in parts(name, thing))
