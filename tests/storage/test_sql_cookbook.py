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
    """One statement; two ways to write the same thing share the rows shown."""

    title: str
    #: sqlite, postgres, or None for both.
    only: str | None
    statement: str
    #: What stands below it: names of columns, then rows; empty where nothing does.
    shown: str

    @property
    def is_of_one(self) -> bool:
        """Whether it asks for one conversation or run, and not for a stretch of time or everything."""
        return re.search(r"conversation_id = '|\bid = '0|run_id = '0", self.statement) is not None


def recipes() -> list[Recipe]:
    """The document's, in order."""
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
    """The recording that the document asks, on each database; on Postgres the days are UTC's."""
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
    """sqlite or postgres, as the document's blocks are marked."""
    return "sqlite" if url.startswith("sqlite") else "postgres"


def answer(url: str, title: str) -> list[Any]:
    """What the first recipe under a heading finds."""
    fit = [each for each in RECIPES if each.title == title and each.only in (None, kind_of(url))]
    return sql(url, fit[0].statement)


# -- all of them ----------------------------------------------------------------------------------------------


def cells(line: str) -> list[str]:
    """A shown row, taken apart; `-` is NULL."""
    return re.split(r"\s{2,}", line.rstrip())


def same(shown: str, found: Any) -> bool:
    """Whether a cell is what was found: a number as it is rounded, text without blanks around it."""
    if found is None:
        return shown == "-"
    if isinstance(found, int | float):
        return math.isclose(float(shown), found, rel_tol=1e-5)
    return shown == str(found).strip()


def padded(line: str, columns: int) -> list[str]:
    """The cells of a line; an empty one at its end does not show."""
    found = cells(line)
    return found + [""] * (columns - len(found))


@pytest.mark.parametrize(
    "recipe", RECIPES, ids=lambda recipe: f"{recipe.title}{'' if recipe.only is None else ' ' + recipe.only}"
)
def test_a_recipe_gives_what_is_shown(shop: str, recipe: Recipe) -> None:
    """Every row, in order, on every database that the block is for."""
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


def test_every_recipe_is_for_both() -> None:
    """What is written for one database is written for the other, under the same heading; rows are shown for all."""
    assert len(RECIPES) > 20
    assert [each.title for each in RECIPES if not each.shown] == []
    marked = [(each.title, each.only) for each in RECIPES if each.only]
    assert {only for _, only in marked} == {"sqlite", "postgres"}
    assert marked[1::2] == [(title, "postgres") for title, _ in marked[::2]]
    assert {only for _, only in marked[::2]} == {"sqlite"}


def test_column_names_are_those_shown(shop: str) -> None:
    """As a tool prints them above the rows."""
    if kind_of(shop) == "postgres":
        return
    with closing(sqlite3.connect(shop.removeprefix("sqlite:///"))) as connection:
        for recipe in RECIPES:
            if recipe.only != "postgres":
                found = connection.execute(recipe.statement).description
                assert cells(recipe.shown.splitlines()[0]) == [name for name, *_ in found]


# -- the figures, worked out by hand --------------------------------------------------------------------------


def test_waiting_for_the_first_token(shop: str) -> None:
    """Of 200, 250, 300 and 400 ms the 2nd and the 4th; 4 tokens gaps in 55 ms, 3 in 1240, 2 in 40, 3 in 60."""
    speeds = (4 / 0.055, 3 / 1.24, 2 / 0.04, 3 / 0.06)
    found = {model: figures for model, *figures in answer(shop, "By model")}
    assert found["gpt-4o-mini-2024-07-18"] == [4, 250, 400, round(sum(speeds) / 4)]
    assert found["deepseek-reasoner"] == [2, 300, 500, round((3 / 1.02 + 3 / 0.1) / 2)]


def test_the_longest_silence(shop: str) -> None:
    """From 270 to 1470 ms, after the second token."""
    assert answer(shop, "Where a run stalled")[0] == (1200, 1, "is lost. ", "I can ")


def test_what_it_cost(shop: str) -> None:
    """Dollars for a million: what came fresh, out of a cache, into one, and what was written."""
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


def test_usage_is_counted_whoever_says_it(shop: str) -> None:
    """Three providers' words for what came from a cache; runs without a count are runs."""
    days = [(str(day), *rest) for day, *rest in answer(shop, "Usage by day and model")]
    assert days == [
        ("2026-11-20", "gpt-4o-mini", 4, 1200 + 1800 + 2200, 180 + 120 + 140, 1280 + 1920),
        ("2026-11-21", "claude-sonnet-4-5", 4, 2 * 12500, 2 * 80, 10000 + 12000),
        ("2026-11-21", "deepseek-reasoner", 3, 1000 + 2000, 300 + 100, 400 + 1000),
    ]


def test_a_hole_is_named_and_nothing_else_is_missing(shop: str) -> None:
    """Of six tokens the third and the fourth found no room."""
    [(run, seq, count, _, before, after)] = answer(shop, "What is missing")
    assert (run, seq, count, before, after) == (run_id(7), 2, 2, "is longer, ", "so blue ")
    assert (run_id(7), 4, 4, 2, 0) in answer(shop, "That nothing else is")


def test_a_hole_that_nobody_named_shows(tmp_path: Path) -> None:
    """Someone deletes the row that says so, or tokens: the numbers do not add up."""
    url = new_url(tmp_path)
    record_shop(url)
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("DELETE FROM gaps")
        connection.execute("DELETE FROM segments WHERE run_id = ?", (run_id(5),))
    found = answer(url, "That nothing else is")
    assert (run_id(7), 4, 4, 0, 2) in found
    assert (run_id(5), 4, 0, 0, 0) in found


def test_the_newest_branch_and_what_was_asked(shop: str) -> None:
    """One path each: to the answer that came last, and to the message before the run."""
    newest = answer(shop, "Its newest branch only")
    assert [position for position, _, _ in newest] == list(range(8))
    assert newest[-1][2] == "Done, the money is on its way."
    messages = answer(shop, "The messages of a request")
    assert [role for _, role, _ in messages] == ["system", "user", "assistant", "tool", "tool"]


# -- what a recipe reads --------------------------------------------------------------------------------------


def read_from_end_to_end(connection: sqlite3.Connection, statement: str) -> set[str]:
    """Tables that SQLite walks from their beginning or end, or an index of theirs, by its own program.

    The query plan would name aliases, and inside of a view nobody knows whose. The index of open runs does not count:
    it is as short as they are few.
    """
    of_pages = "SELECT rootpage, tbl_name FROM sqlite_master WHERE rootpage > 0 AND name <> 'runs_streaming'"
    tables = dict(connection.execute(of_pages))
    program = connection.execute(f"EXPLAIN {statement}").fetchall()
    opened = {p1: tables[p2] for _, code, p1, p2, *_ in program if code == "OpenRead" and p2 in tables}
    return {opened[p1] for _, code, p1, *_ in program if code in ("Rewind", "Last") and p1 in opened}


@pytest.mark.parametrize("title", dict.fromkeys(each.title for each in RECIPES))
def test_the_cost_of_a_recipe_is_told(title: str, tmp_path: Path) -> None:
    """One conversation, one run or a stretch of time is read alone; what reads all of a table says which."""
    mine = [each for each in RECIPES if each.title == title and each.only != "postgres"]
    documented = set(re.findall(r"Reads all\sof `(\w+)`", told_of(title)))
    with closing(sqlite3.connect(new_url(tmp_path).removeprefix("sqlite:///"))) as connection:
        assert set().union(*(read_from_end_to_end(connection, each.statement) for each in mine)) <= documented
    assert not (documented and mine[0].is_of_one)


def told_of(title: str) -> str:
    """What stands under a heading, up to the next."""
    _, _, below = DOCUMENT.read_text(encoding="utf-8").partition(f"### {title}\n")
    return below.partition("\n#")[0]


def test_a_whole_table_is_noticed(tmp_path: Path) -> None:
    """The check above would see it: in a plain query, in an index, inside of a view."""
    with closing(sqlite3.connect(new_url(tmp_path).removeprefix("sqlite:///"))) as connection:
        assert read_from_end_to_end(connection, "SELECT * FROM segments") == {"segments"}
        assert read_from_end_to_end(connection, "SELECT count(*) FROM tokens") == {"segments"}
        assert read_from_end_to_end(connection, "SELECT DISTINCT input_hash FROM runs") == {"runs"}
        assert "messages" in read_from_end_to_end(connection, "SELECT * FROM transcripts WHERE run_id = 'r'")
        assert read_from_end_to_end(connection, "SELECT * FROM tokens WHERE run_id = 'r'") == set()
