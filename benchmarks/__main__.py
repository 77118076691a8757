"""`python -m benchmarks [section ...]`: measure, and print the table."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import traceback

from benchmarks.harness import Settings, machine, tell
from benchmarks.table import printed
from benchmarks.workload import Neighbours

#: A section is a module with TITLE and rows(settings).
SECTIONS = (
    "imports",
    "commit",
    "postgres",
    "messages",
    "turns",
    "streams",
    "claude",
    "attach",
    "langchain",
    "chains",
    "paced",
    "saturated",
    "stalled",
    "redaction",
    "replay",
    "listing",
    "search",
    "otel",
    "analyzers",
    "costs",
    "serve",
    "page",
    "proxy",
)
#: Only when asked for by name.
EXTRA = ("profile",)


def main() -> None:
    """Every section, or those that were named."""
    options = _options()
    settings = Settings(rounds=1 if options.quick else options.rounds, quick=options.quick, seed=options.seed)
    began = time.monotonic()
    print(f"Measured on {machine()}.")
    print(f"Best of {settings.rounds} runs by turns, each in its own process; seed {settings.seed}.\n")
    failed = [name for name in options.sections or SECTIONS if not _section(name, settings)]
    tell(f"{time.monotonic() - began:.0f} s in all")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def _section(name: str, settings: Settings) -> bool:
    """Measure and print one; a failure is printed, and the other sections are still measured."""
    section = importlib.import_module(f"benchmarks.{name}")
    tell(f"{section.TITLE} ...")
    neighbours = Neighbours()
    try:
        rows = section.rows(settings)
    except Exception:
        tell(traceback.format_exc())
        return False
    print(printed(section.TITLE, rows))
    print(f"Other processes took {neighbours.share():.0%} of the machine meanwhile.\n", flush=True)
    return True


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    names = ", ".join((*SECTIONS, *EXTRA))
    parser.add_argument(
        "sections", nargs="*", metavar="section", help=f"{names}; all but the last by default"
    )
    parser.add_argument("--quick", action="store_true", help="one short run of each, under a minute")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side (default 3)")
    parser.add_argument("--seed", type=int, default=7, help="of the words that are streamed (default 7)")
    options = parser.parse_args()
    if unknown := set(options.sections) - {*SECTIONS, *EXTRA}:
        parser.error(f"there is no section {', '.join(sorted(unknown))}; choose of {names}")
    return options


if __name__ == "__main__":
    main()
