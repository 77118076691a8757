"""The public names of `recorder.replay`, each with its module. `recorder.core.lazy_imports` reads them."""

from recorder.replay.errors import Interrupted as Interrupted
from recorder.replay.errors import ReplayedError as ReplayedError
from recorder.replay.http.not_recorded import NotRecorded as NotRecorded
from recorder.replay.replay import Replay as Replay
from recorder.storage.search.hits import SearchHit as SearchHit
from recorder.storage.search.hits import SnippetPiece as SnippetPiece
from recorder.storage.search.search import SearchPage as SearchPage
