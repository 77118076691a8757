"""`recorder stats --cost` prints what the runs cost, and `--fill` prices what was stored before."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from recorder.cli import console
from recorder.cli.app import app
from recorder.costs import price_list
from tests.costs.test_fill import FORGET, recorded
from tests.oracle import sql
from tests.stores import execute

pytest.importorskip("genai_prices")


def stats(url: str, *options: str, code: int = 0) -> str:
    """Run the command and return what it prints."""
    found = CliRunner().invoke(app, ["stats", "--cost", "--url", url, *options], env={"COLUMNS": None})
    assert found.exit_code == code, found.output
    return found.output


def test_costs_are_printed_by_model_user_and_day(database: str) -> None:
    """With the totals, and how many runs have no price or an estimated usage."""
    recorded(database, 2)
    lines = [line.split("\t") for line in stats(database).splitlines()]
    model, user, day = (next(line for line in lines if line[0] == name) for name in ("model", "user", "day"))
    assert model[1:] == user[1:] == day[1:] == ["runs", "unpriced", "estimated", "input", "output", "cost"]
    row = next(line for line in lines if line[0] == "gpt-4o")
    assert row[1:4] == ["4", "0", "2"]
    assert lines[-1][0].endswith(" for 4 runs, 2 with estimated usage.")


def test_json_has_every_row_and_the_total(database: str) -> None:
    """The total is the sum of each group."""
    recorded(database, 2)
    found = json.loads(stats(database, "--json"))
    assert found["total"]["runs"] == 4
    for group in ("model", "user", "day"):
        assert sum(row["cost"] for row in found[group]) == pytest.approx(found["total"]["cost"])


def test_fill_prices_what_was_stored_before(database: str) -> None:
    """It says what it did, and a second time that there was nothing to do."""
    recorded(database)
    execute(database, FORGET)
    assert "2 of them without a price" in stats(database)
    first = stats(database, "--fill").splitlines()[0]
    assert first.startswith(
        "Runs without usage or without a cost: 2. Usage estimated: 0. Priced by reported usage: 2."
    )
    assert json.loads(stats(database, "--fill", "--json"))["filled"]["examined"] == 0
    assert sql(database, "SELECT count(*) FROM runs WHERE cost IS NULL") == [(0,)]


def test_an_empty_database_has_no_costs(database: str) -> None:
    """One sentence, and sums in JSON."""
    assert stats(database) == "no cost known for 0 runs.\n"
    assert json.loads(stats(database, "--json"))["total"]["unpriced_runs"] == 0


def test_without_the_library_the_command_to_install_it_is_printed(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Costs that were stored are still shown; filling needs the library."""
    recorded(database)
    execute(database, FORGET)
    monkeypatch.setattr(price_list, "is_installed", lambda: False)
    hint = "Prices need genai-prices, which is not installed; run: pip install 'genai-prices>=0.2.3'"
    assert stats(database).splitlines()[-1] == hint
    assert hint in stats(database, "--fill", code=1)


def test_a_file_that_is_missing_is_not_made(tmp_path: Any) -> None:
    """Neither by reading nor by filling."""
    for option in ("--json", "--fill"):
        assert "There is no file" in stats(f"sqlite:///{tmp_path / 'none.db'}", option, code=1)
    assert list(tmp_path.iterdir()) == []


def test_a_table_that_is_a_little_too_wide_has_smaller_gaps(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the table of models stays a table in 80 columns."""
    monkeypatch.setenv("COLUMNS", "24")
    console.print_rows([{"model": "gpt-5.4-mini", "runs": 1, "cost": 2}])
    assert capsys.readouterr().out.splitlines()[0].rstrip() == "model         runs  cost"
