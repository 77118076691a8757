"""A pytest plugin: a test's model calls are recorded once, into a file beside the test, and replayed for ever.

    def test_capital(recorded_model):
        chat = recorded_model(ChatOpenAI(model="gpt-4o-mini", temperature=0))
        assert "Paris" in chat.invoke("What is the capital of France?").content

The first run asks the model; commit `recordings/` and no later one does. `pytest --record-mode=none` never asks,
`new_episodes` adds what is missing, `all` records anew. `@pytest.mark.recorded(mode=..., path=..., ignore=...)` says it
for one test or, as `pytestmark`, for a module. Nothing heavy is loaded until a test uses a fixture.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from recorder.replay import Replay

#: vcrpy's; `recorder.models.replayed` knows what they mean.
MODES = ("none", "once", "new_episodes", "all")
_MARKER = (
    "recorded(mode=None, path=None, **options): how the test's model calls are recorded and replayed: a mode of "
    "--record-mode, a file relative to the test's, and options of recorder.replay.Replay.model"
)
#: Characters of a test's name that a file's may have, on every system; and how many.
_PLAIN, _LONGEST = re.compile(r"[^\w\-\[\].=]+"), 120

_found = pytest.StashKey[dict[Path, bool]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--record-mode`, the same as pytest-recording's, which is asked where it is installed."""
    if entry_points(group="pytest11", name="recording"):
        return
    parser.getgroup("recorder").addoption(
        "--record-mode",
        choices=MODES,
        help="how recorded_model treats model calls: none only replays, once records into new files only (the "
        "default), new_episodes adds what is missing, all records anew",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Say what the marker is."""
    config.addinivalue_line("markers", _MARKER)
    config.stash[_found] = {}


@pytest.fixture
def recording(request: pytest.FixtureRequest) -> Iterator[Replay]:
    """The test's recording: `Replay` of its file, `recording.http_client()` for an SDK's client."""
    from recorder.replay import Replay
    from recorder.storage.dialects import into_one_file

    path, mode = _path_of(request.node), _mode_of(request)
    if mode != "none":
        path.parent.mkdir(parents=True, exist_ok=True)
    with Replay(f"sqlite:///{path}") as replay:
        yield replay
    into_one_file(path)


@pytest.fixture
def recorded_model(request: pytest.FixtureRequest, recording: Replay) -> Callable[..., Any]:
    """Called with a model: one like it that answers from the test's recording, and records as `--record-mode` says."""
    marked = {key: value for key, value in _marked(request.node).items() if key not in ("mode", "path")}
    mode = _mode_of(request)

    def model(like: Any = None, **options: Any) -> Any:
        return recording.model(like, **{"mode": mode if like is not None else "none", **marked, **options})

    return model


def _mode_of(request: pytest.FixtureRequest) -> str:
    """The mode, as it is for this file in this run of pytest."""
    mode = request.config.getoption("record_mode", None) or _marked(request.node).get("mode") or "once"
    mode = {"rewrite": "all"}.get(mode, mode)  # pytest-recording's word
    if mode not in MODES:
        raise pytest.UsageError(
            f"The mode of {request.node.nodeid} is {mode!r}; choose one of {', '.join(MODES)}"
        )
    path, found = _path_of(request.node), request.config.stash[_found]
    if path not in found:
        if mode == "all":
            path.unlink(missing_ok=True)
        found[path] = path.exists()
    # Several tests may share a file: it is as new for the last as for the first.
    return ("none" if found[path] else "new_episodes") if mode == "once" else mode


def _path_of(node: Any) -> Path:
    """The file of a test: `recordings/<module>/<test>.db` beside it, or as it is marked."""
    if (named := _marked(node).get("path")) is not None:
        return Path(node.path.parent, named)
    words = node.nodeid.split("::")[1:]
    return Path(node.path.parent, "recordings", node.path.stem, f"{_file_name('.'.join(words))}.db")


def _file_name(name: str) -> str:
    """The name of a test as that of a file; still another one for each test."""
    plain = _PLAIN.sub("_", name)[:_LONGEST]
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _marked(node: Any) -> dict[str, Any]:
    """What the markers say, the closest first."""
    said: dict[str, Any] = {}
    for marker in node.iter_markers("recorded"):
        said = {**marker.kwargs, **said}
    return said
