"""The ways in which a call of LangChain's models ends, and the table of docs/langchain.md with what is recorded then.

`python -m tests.integrations.langchain.ends` makes each call, and writes the table anew.
"""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from inspect import isasyncgenfunction
from pathlib import Path
from typing import Any, NamedTuple

from recorder.integrations.langchain import ChatHistoryCallback
from recorder.testing import Answer, LoopbackProvider
from tests.calls import called
from tests.integrations.langchain.ways import (
    LEFT,
    MODELS,
    STREAMED,
    TEXT,
    WAYS,
    Way,
    async_model_of,
    error_of,
    frames_of,
    model_of,
    second_time_lucky,
)
from tests.oracle import ROOT, new_url, sql

PAGE = ROOT / "docs" / "langchain.md"


class End(NamedTuple):
    """How a call ends."""

    #: What the provider answers to this model.
    answer: Callable[[str], Any]
    #: The ways that can end so.
    ways: list[Way] = WAYS
    #: The reader leaves after so many pieces.
    pieces: int | None = None


ENDS = {
    "the answer is there": End(lambda model: TEXT),
    "an error status": End(lambda model: error_of(model, 400)),
    "the second attempt": End(second_time_lucky),
    "the connection breaks": End(lambda model: Answer(frames=frames_of(model), cut_after=5), STREAMED),
    "no last event": End(lambda model: Answer(frames=frames_of(model)[:4]), STREAMED),
    "the reader leaves": End(lambda model: Answer(frames=frames_of(model), interval=0.01), LEFT, pieces=1),
}


def cells() -> Iterator[tuple[str, Way, str]]:
    """Yield each model, way and end that occurs."""
    return ((model, way, end) for way in WAYS for end in ENDS if way in ENDS[end].ways for model in MODELS)


def status_of(model: str, way: Way, end: str, folder: Path) -> str:
    """Make the call with the handler, and return the status of its run in the database."""
    url, (answer, _, pieces) = new_url(folder), ENDS[end]
    open_model = async_model_of if isasyncgenfunction(way) else model_of
    with ChatHistoryCallback(url) as history, LoopbackProvider(answer(model)) as provider:
        called(way, partial(open_model, model, provider.url, callbacks=[history]), pieces)
    query = (
        "SELECT run.status FROM runs AS run LEFT JOIN runs AS parent ON parent.id = run.parent_run_id "
        "WHERE run.operation = 'chat' AND (parent.operation IS NULL OR parent.operation <> 'chat')"
    )
    [(status,)] = sql(url, query)
    return str(status)


def table(found: dict[tuple[str, Way, str], str]) -> str:
    """Return the table of these statuses: a row for each way, a column for each end."""
    lines = [f"| way of calling | {' | '.join(ENDS)} |", "|---" * (len(ENDS) + 1) + "|"]
    for way in WAYS:
        row = [_cell({model: found.get((model, way, end), "-") for model in MODELS}) for end in ENDS]
        lines.append(f"| {(way.__doc__ or '').removesuffix('.')} | {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def _cell(statuses: dict[str, str]) -> str:
    """One status, or that of each model where they differ."""
    if len(set(statuses.values())) == 1:
        return statuses[MODELS[0]]
    return ", ".join(f"{model}: {status}" for model, status in statuses.items())


def shown() -> dict[tuple[str, str], str]:
    """Return the cells of the page: way and end -> text."""
    [rows] = re.findall(
        r"^\| way of calling .*\n\|---.*\n((?:\|.*\n)+)", PAGE.read_text(encoding="utf-8"), re.M
    )
    split = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows.splitlines()]
    return {(row[0], end): text.strip("| ") for row in split for end, text in zip(ENDS, row[1:], strict=True)}


def main() -> None:
    """Write the table."""
    warnings.simplefilter("ignore")
    found = {}
    for model, way, end in cells():
        with tempfile.TemporaryDirectory() as folder:
            found[model, way, end] = status_of(model, way, end, Path(folder))
    page = PAGE.read_text(encoding="utf-8")
    new = re.sub(r"^\| way of calling .*\n(?:\|.*\n)+", lambda _: table(found), page, flags=re.M)
    PAGE.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
