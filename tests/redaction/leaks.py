"""Texts with a secret that every way of recording is given, and a search for it in everything that a database holds."""

from __future__ import annotations

from pathlib import Path

from recorder.storage import schema
from tests.oracle import sql

#: Every secret is an address of this host, so that one search finds all.
HOST = "leak.example"


def secret(place: str) -> str:
    """Return a secret that names the place where it is put."""
    return f"{place}@{HOST}"


def pieces(text: str, size: int = 3) -> list[str]:
    """Return the text cut into pieces of so many characters."""
    return [text[start : start + size] for start in range(0, len(text), size)]


def escaped(text: str) -> str:
    """Return the text as JSON escapes write it."""
    return "".join(f"\\u{ord(each):04x}" for each in text)


def leaks(url: str) -> list[str]:
    """Return the tables, and the files of SQLite, in which a secret stands in any spelling."""
    found = []
    for name, table in schema.metadata.tables.items():
        texts = [
            str(row)
            for row in sql(
                url, f"SELECT {', '.join(f'CAST({each} AS text)' for each in _texts(table))} FROM {name}"
            )
        ]
        found += [f"{name}: {text[:2000]}" for text in texts if _is_in(text)]
    if url.startswith("sqlite"):
        path = Path(url.removeprefix("sqlite:///"))
        found += [
            each.name
            for each in path.parent.glob(path.name + "*")
            if _is_in(each.read_bytes().decode("latin-1"))
        ]
    return found


def _texts(table: object) -> list[str]:
    return [f'"{column.name}"' for column in table.columns if column.name != "data" or table.name != "frames"]  # type: ignore[attr-defined]


def _is_in(text: str) -> bool:
    return "leak.ex" in text or "@leak" in text or "\\u0040" in text or "%40leak" in text
