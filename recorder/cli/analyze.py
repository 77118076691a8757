"""`recorder analyze`: evaluates what is stored."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

from recorder.cli import console
from recorder.cli.progress_bar import progress
from recorder.cli.replay import INTERRUPTED
from recorder.errors import ConfigError
from recorder.storage.dialects import masked
from recorder.upkeep.analysis_follower import AnalysisFollower
from recorder.upkeep.stored_analysis import StoredAnalysis


def run(url: str, id: str | None, names: list[str], follow: bool) -> int:
    """Analyze, and say what was done; the exit code."""
    analyzers = [_analyzer(name) for name in names]
    with StoredAnalysis(url, analyzers) as analysis:
        try:
            with progress("Analyzing", "messages") as on_progress:
                analysis.run(id, on_progress=on_progress)
            _print_done(analysis)
            if follow:
                _follow(analysis, url, id)
        except KeyboardInterrupt:
            console.echo("Stopped; what was evaluated is stored.", stderr=True)
            return INTERRUPTED
    return 1 if analysis.stats().failed else 0


def _follow(analysis: StoredAnalysis, url: str, id: str | None) -> None:
    found = analysis.texts.find(id) if id is not None else None
    if sys.stderr.isatty():
        console.echo(f"Following {masked(url)}; Ctrl-C ends.", stderr=True)
    AnalysisFollower(analysis, found).follow()
    analysis.flush()


def _print_done(analysis: StoredAnalysis) -> None:
    done, stats = analysis.done, analysis.stats()
    new = sum(each.annotations for each in stats.by_analyzer.values())
    console.echo(
        f"Read {console.plural(done.messages, 'message')}. Evaluations: {new:,} new, {done.stored:,} stored already."
    )
    for name, each in stats.by_analyzer.items():
        if each.failed:
            console.echo(
                f"{name} failed on {console.plural(each.failed, 'text')}: {each.last_error}", stderr=True
            )
        if each.skipped:
            console.echo(f"{name} skipped {console.plural(each.skipped, 'text')}.", stderr=True)


def _analyzer(name: str) -> Any:
    """A ready-made analyzer's name, or the object that "module:name" names. Raises `ConfigError`."""
    module, colon, attribute = name.partition(":")
    if not colon:
        return name
    sys.path.insert(0, os.getcwd())  # as `python -m` does
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"--with {name}: {error}; write it as module:function, in the folder of the module"
        ) from error
