"""Databases for one test: the same tables as those of the migrations, and every row of an export."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

from recorder.export import export
from recorder.export.format import read
from recorder.testing.scratch_database import count_rows, create, fill
from tests.export.test_format import EVERYTHING
from tests.oracle import new_url, run_python
from tests.storage.test_migrate import schema_of

#: Makes a database of a template and reads it, and prints whether alembic was imported.
_WITHOUT_ALEMBIC = """
import sys
from pathlib import Path
from recorder.export import export
from recorder.testing.scratch_database import create, fill
create(Path("another.db"))
fill(Path("another.db"), Path("copy.db"), [])
export("sqlite:///copy.db", "copy.jsonl")
print("alembic" in sys.modules)
"""


def test_the_tables_are_those_of_the_migrations(tmp_path: Path) -> None:
    """Opening such a file finds the newest schema, so that alembic is not imported."""
    new_url(tmp_path, "migrated.db")
    create(tmp_path / "template.db")
    assert schema_of(tmp_path / "template.db") == schema_of(tmp_path / "migrated.db")
    done = run_python(f"import os; os.chdir({str(tmp_path)!r})" + _WITHOUT_ALEMBIC)
    assert (done.stderr, done.stdout) == ("", "False\n")


def test_every_row_is_stored(tmp_path: Path) -> None:
    """What is exported again are the rows that were given."""
    create(tmp_path / "template.db")
    fill(tmp_path / "template.db", tmp_path / "copy.db", EVERYTHING)
    assert count_rows(tmp_path / "copy.db") == len(EVERYTHING)
    assert count_rows(tmp_path / "template.db") == count_rows(tmp_path / "missing.db") == 0
    export(f"sqlite:///{tmp_path / 'copy.db'}", file := StringIO())
    assert sorted(map(repr, read(file.getvalue().splitlines())[1])) == sorted(map(repr, EVERYTHING))
