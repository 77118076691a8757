"""The page: its first paint in Debian's Chromium, the time to its list, and what its files weigh."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from uuid import UUID

from benchmarks import ours
from benchmarks.harness import Measured, Settings, Side, best, compare, values
from benchmarks.table import Row, each, missing
from recorder.core.ids import new_id
from recorder.server.page_files import page_files
from tests.server.browser import MISSING, PROGRAM, apart, launched, opened
from tests.server.serving import serving_processes

TITLE = "The page (a new session each time, nothing in the browser's cache)"
#: How many conversations there are, and how often the page is opened.
_CONVERSATIONS, _OPENED = 500, 15

_PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"


def rows(settings: Settings) -> list[Row]:
    """The server, the browser and the measurement, each in a process of its own."""
    size = sum(len(file.body) for file in page_files().by_name.values())
    weight = Row("all files", f"{size / 1e3:.1f} KB", "", "", "under 100 KB", size < 100_000)
    if PROGRAM is None:
        return [weight, missing("first paint", MISSING)]
    side = Side("benchmarks.page:painted", {"count": settings.size(_OPENED, 3)}, folder=True)
    found = compare({"page": side}, settings.rounds)["page"]
    paint, listed = best(found, "paint_ms"), best(found, "listed_ms")
    return [
        weight,
        Row("first paint, median", f"{paint:.0f} ms",
            each(values(found, "paint_ms"), ",.0f"), "", "under 300 ms", paint < 300),
        Row(f"the first page of {_CONVERSATIONS} conversations is listed, median", f"{listed:.0f} ms",
            each(values(found, "listed_ms"), ",.0f")),
    ]  # fmt: skip


def painted(folder: str, count: int) -> Measured:
    """The median time from the navigation to the first paint, and to the list."""
    url = f"sqlite:///{Path(folder) / 'history.db'}"
    apart(_record, url)
    paints, listed = [], []
    with serving_processes(url, 1) as [(_, address)], launched() as browser:
        for _ in range(count + 1):  # what the first one needs is loaded from the disk
            with opened(browser, address) as page:
                page.wait_for_selector(".rows a")
                listed.append(page.evaluate("performance.now()"))
                paints.append(page.evaluate(_PAINT))
    return {"paint_ms": median(paints[1:]), "listed_ms": median(listed[1:])}


def _record(url: str) -> None:
    history = ours.open_history(url)
    for number in range(_CONVERSATIONS):
        with history.conversation(f"conversation-{number}"):
            ours.start(history, run_id := UUID(new_id()))
            ours.end(history, run_id, "Hello")
    history.close().wait()
