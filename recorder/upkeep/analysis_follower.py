"""Follows a database that another process records into, and analyzes what comes."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta

from recorder.analysis.stored_texts import OpenEnd, StoredTexts
from recorder.core.clock import now
from recorder.storage.id_lookup import Found
from recorder.upkeep.stored_analysis import StoredAnalysis

#: Messages are looked for again for so long: a transaction may be committed later than its messages are dated.
_WINDOW = timedelta(seconds=60)


class AnalysisFollower:
    """Each `look` analyzes what was committed since the one before."""

    def __init__(self, analysis: StoredAnalysis, found: Found | None = None) -> None:
        self._analysis = analysis
        self._texts: StoredTexts = analysis.texts
        self._found = found
        self._since = now()
        # The messages of the window, by id; the open runs, by id, with the number of their next token.
        self._seen: set[str] = set()
        self._open: dict[str, tuple[OpenEnd, int]] = {}

    @property
    def is_over(self) -> bool:
        """Whether what is followed is one run that has ended."""
        return self._found is not None and self._found.kind == "run" and not self._open

    def look(self) -> None:
        """Analyze what is new, and hand the results to the recorder."""
        moment = now()
        streaming = {run.id: run for run in self._texts.open_runs(self._found)}
        for id, run in streaming.items():
            _, seq = self._open.get(id, (run, 0))
            self._open[id] = run, self._analysis.put_run(run, seq)
        for id in self._open.keys() - streaming.keys():
            run, seq = self._open.pop(id)
            self._analysis.put_run(run._replace(is_open=False), seq)
        self._look_for_messages()
        self._since = moment

    def follow(self) -> None:
        """Look after each commit. Returns only after the run that is followed has ended."""
        with closing(self._texts.after_commits()) as commits:
            for _ in commits:
                self.look()
                if self.is_over:
                    return

    def _look_for_messages(self) -> None:
        seen: set[str] = set()
        for page in self._texts.messages(self._found, since=self._since - _WINDOW):
            self._analysis.put_messages([each for each in page if each.row.id not in self._seen])
            seen |= {each.row.id for each in page}
        self._seen = seen
