"""Every statement of `docs/sql.md` gives the rows shown below it, on SQLite and on Postgres."""

from __future__ import annotations

import math
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from tests import postgres
from tests.oracle import ROOT, new_url, sql
from tests.shop import record_shop, run_id

DOCUMENT = ROOT / "docs" / "sql.md"
BLOCK = re.compile(
    r"^### (?P<title>.+?)$|^```(?P<kind>sql|text)(?: (?P<only>\w+))?\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """One statement of the document. Two statements for the same thing, one for each database, share the rows below."""

    title: str
    #: sqlite, postgres, or None for both.
    only: str | None
    statement: str
    #: The block below it: names of columns, then rows; empty where there is none.
    shown: str

    @property
    def is_of_one(self) -> bool:
        """Whether it reads one conversation or run, and not a stretch of time or all of them."""
        return re.search(r"conversation_id = '|\bid = '0|run_id = '0", self.statement) is not None


def recipes() -> list[Recipe]:
    """The statements of the document, in order."""
    title = ""
    found: list[Recipe] = []
    waiting: list[tuple[str, str | None, str]] = []
    for block in BLOCK.finditer(DOCUMENT.read_text(encoding="utf-8")):
        if block["title"]:
            title = block["title"]
        elif block["kind"] == "sql":
            waiting.append((title, block["only"], block["text"]))
        else:
            found += [Recipe(*each, shown=block["text"]) for each in waiting]
            waiting = []
    return found + [Recipe(*each, shown="") for each in waiting]


RECIPES = recipes()


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The recording that the document queries, on each database; on Postgres with the time zone UTC."""
    if request.param == "sqlite":
        url = new_url(tmp_path_factory.mktemp("shop"))
        record_shop(url)
        yield url
        return
    url = postgres.new_database()
    record_shop(url)
    in_utc = make_url(url).update_query_dict({"timezone": "UTC"})
    yield in_utc.render_as_string(hide_password=False)
    postgres.drop(url)


def kind_of(url: str) -> str:
    """The name of the database as the blocks of the document have it."""
    return "sqlite" if url.startswith("sqlite") else "postgres"


def answer(url: str, title: str) -> list[Any]:
    """The rows of the first recipe under a heading."""
    fit = [each for each in RECIPES if each.title == title and each.only in (None, kind_of(url))]
    return sql(url, fit[0].statement)


# -- all recipes ----------------------------------------------------------------------------------------------


def cells(line: str) -> list[str]:
    """The cells of a shown row; `-` is NULL."""
    return re.split(r"\s{2,}", line.rstrip())


def same(shown: str, found: Any) -> bool:
    """Whether a shown cell equals a value: numbers after rounding, texts without white space around them."""
    if found is None:
        return shown == "-"
    if isinstance(found, int | float):
        return math.isclose(float(shown), found, rel_tol=1e-5)
    return shown == str(found).strip()


def padded(line: str, columns: int) -> list[str]:
    """The cells of a line, with empty ones at its end."""
    found = cells(line)
    return found + [""] * (columns - len(found))


@pytest.mark.parametrize(
    "recipe", RECIPES, ids=lambda recipe: f"{recipe.title}{'' if recipe.only is None else ' ' + recipe.only}"
)
def test_a_recipe_returns_the_rows_that_are_shown(shop: str, recipe: Recipe) -> None:
    """All rows are compared, in order, on every database that the block is for."""
    if recipe.only not in (None, kind_of(shop)):
        return
    names, *rows = recipe.shown.splitlines()
    found = sql(shop, recipe.statement)
    assert found != []
    assert len(found) == len(rows), found
    for row, line in zip(found, rows, strict=True):
        assert len(cells(names)) == len(row)
        shown = padded(line, len(row))
        assert all(map(same, shown, row)), f"{shown}\n{row}"


def test_every_recipe_is_for_both_databases() -> None:
    """A statement for one database has one for the other under the same heading, and rows are shown for all."""
    assert len(RECIPES) > 20
    assert [each.title for each in RECIPES if not each.shown] == []
    marked = [(each.title, each.only) for each in RECIPES if each.only]
    assert {only for _, only in marked} == {"sqlite", "postgres"}
    assert marked[1::2] == [(title, "postgres") for title, _ in marked[::2]]
    assert {only for _, only in marked[::2]} == {"sqlite"}


def test_a_recipe_returns_the_columns_that_are_shown(shop: str) -> None:
    """The first line of a shown block has their names."""
    if kind_of(shop) == "postgres":
        return
    with closing(sqlite3.connect(shop.removeprefix("sqlite:///"))) as connection:
        for recipe in RECIPES:
            if recipe.only != "postgres":
                found = connection.execute(recipe.statement).description
                assert cells(recipe.shown.splitlines()[0]) == [name for name, *_ in found]


# -- figures that are calculated by hand ----------------------------------------------------------------------


def test_percentiles_and_speeds_by_model(shop: str) -> None:
    """Of 200, 250, 300 and 400 ms the 2nd and the 4th; 4 token distances in 55 ms, 3 in 1240, 2 in 40, 3 in 60."""
    speeds = (4 / 0.055, 3 / 1.24, 2 / 0.04, 3 / 0.06)
    found = {model: figures for model, *figures in answer(shop, "By model")}
    assert found["gpt-4o-mini-2024-07-18"] == [4, 250, 400, round(sum(speeds) / 4)]
    assert found["deepseek-reasoner"] == [2, 300, 500, round((3 / 1.02 + 3 / 0.1) / 2)]


def test_the_longest_pause_of_a_run(shop: str) -> None:
    """It lasts from 270 to 1470 ms, after the second token."""
    assert answer(shop, "Where a run stalled")[0] == (1200, 1, "is lost. ", "I can ")


def test_the_cost_by_user_and_model(shop: str) -> None:
    """Prices are in dollars for a million tokens: input, input from a cache, input into a cache, output."""
    found = {
        (user, model): (runs, cost)
        for user, model, runs, cost in answer(shop, "Cost, with a price table of your own")
    }
    mini = (5200 - 3200) * 0.15 + 3200 * 0.075 + 440 * 0.60
    claude = (25000 - 22000 - 2000) * 3 + 22000 * 0.30 + 2000 * 3.75 + 160 * 15
    assert found == {
        ("ada", "gpt-4o-mini"): (3, pytest.approx(mini / 1e6)),
        ("ada", "deepseek-reasoner"): (2, None),
        ("ben", "claude-sonnet-4-5"): (2, pytest.approx(claude / 1e6)),
    }


def test_usage_is_counted_for_every_provider(shop: str) -> None:
    """Three providers have different names for tokens from a cache; runs without usage count as runs."""
    days = [(str(day), *rest) for day, *rest in answer(shop, "Usage by day and model")]
    assert days == [
        ("2026-11-20", "gpt-4o-mini", 4, 1200 + 1800 + 2200, 180 + 120 + 140, 1280 + 1920),
        ("2026-11-21", "claude-sonnet-4-5", 4, 2 * 12500, 2 * 80, 10000 + 12000),
        ("2026-11-21", "deepseek-reasoner", 3, 1000 + 2000, 300 + 100, 400 + 1000),
    ]


def test_a_gap_is_found_and_nothing_else_is_missing(shop: str) -> None:
    """Of six tokens the third and the fourth found no room."""
    [(run, seq, count, _, before, after)] = answer(shop, "What is missing")
    assert (run, seq, count, before, after) == (run_id(7), 2, 2, "is longer, ", "so blue ")
    assert (run_id(7), 4, 4, 2, 0) in answer(shop, "That nothing else is")


def test_missing_tokens_without_a_gap_are_found(tmp_path: Path) -> None:
    """Another program deleted the gap row or segments, so the numbers do not add up."""
    url = new_url(tmp_path)
    record_shop(url)
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("DELETE FROM gaps")
        connection.execute("DELETE FROM segments WHERE run_id = ?", (run_id(5),))
    found = answer(url, "That nothing else is")
    assert (run_id(7), 4, 4, 0, 2) in found
    assert (run_id(5), 4, 0, 0, 0) in found


def test_the_newest_branch_and_the_messages_of_a_request(shop: str) -> None:
    """Each is one path: to the newest message, and to the last message of the request."""
    newest = answer(shop, "Its newest branch only")
    assert [position for position, _, _ in newest] == list(range(7))
    assert newest[-1][2] == "Done, the money is on its way."
    messages = answer(shop, "The messages of a request")
    assert [role for _, role, _ in messages] == ["user", "assistant", "tool", "tool"]


# -- tables that a recipe reads from end to end ---------------------------------------------------------------


def read_from_end_to_end(connection: sqlite3.Connection, statement: str) -> set[str]:
    """Tables that SQLite walks from their beginning or end, or an index of theirs, by its own program.

    The query plan would have aliases, and inside of a view nothing says of which table. The index of open runs is left
    out, because few runs are open at a time.
    """
    of_pages = "SELECT rootpage, tbl_name FROM sqlite_master WHERE rootpage > 0 AND name <> 'runs_streaming'"
    tables = dict(connection.execute(of_pages))
    program = connection.execute(f"EXPLAIN {statement}").fetchall()
    opened = {p1: tables[p2] for _, code, p1, p2, *_ in program if code == "OpenRead" and p2 in tables}
    return {opened[p1] for _, code, p1, *_ in program if code in ("Rewind", "Last") and p1 in opened}


@pytest.mark.parametrize("title", dict.fromkeys(each.title for each in RECIPES))
def test_the_document_names_every_table_that_a_recipe_reads_from_end_to_end(
    title: str, tmp_path: Path
) -> None:
    """A recipe for one conversation, one run or a stretch of time reads none."""
    mine = [each for each in RECIPES if each.title == title and each.only != "postgres"]
    documented = set(re.findall(r"Reads all\sof `(\w+)`", section_of(title)))
    with closing(sqlite3.connect(new_url(tmp_path).removeprefix("sqlite:///"))) as connection:
        assert set().union(*(read_from_end_to_end(connection, each.statement) for each in mine)) <= documented
    assert not (documented and mine[0].is_of_one)


def section_of(title: str) -> str:
    """The text under a heading, up to the next heading."""
    _, _, below = DOCUMENT.read_text(encoding="utf-8").partition(f"### {title}\n")
    return below.partition("\n#")[0]


def test_reading_a_table_from_end_to_end_is_noticed(tmp_path: Path) -> None:
    """It is noticed in a plain query, in an index and inside of a view."""
    with closing(sqlite3.connect(new_url(tmp_path).removeprefix("sqlite:///"))) as connection:
        assert read_from_end_to_end(connection, "SELECT * FROM segments") == {"segments"}
        assert read_from_end_to_end(connection, "SELECT count(*) FROM tokens") == {"segments"}
        assert read_from_end_to_end(connection, "SELECT DISTINCT input_hash FROM runs") == {"runs"}
        assert "messages" in read_from_end_to_end(connection, "SELECT * FROM transcripts WHERE run_id = 'r'")
        assert read_from_end_to_end(connection, "SELECT * FROM tokens WHERE run_id = 'r'") == set()
