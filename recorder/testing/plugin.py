"""A pytest plugin that records a test's model calls once, into a file beside the test, and replays them afterwards.

    def test_capital(recorded_model):
        chat = recorded_model(ChatOpenAI(model="gpt-5.4-mini"))
        assert "Paris" in chat.invoke("What is the capital of France?").content

The first run calls the model and records the answers. When `recordings/` is committed, later runs only replay. A
recording is a text file, an export (docs/export.md), so that a review sees what changed; a path that ends otherwise
than in `.jsonl` or `.jsonl.gz` is a SQLite file.
`pytest --record-mode=none` never calls the model, `new_episodes` records requests that are not in the file, and `all`
records everything again. `@pytest.mark.recorded(mode=..., path=..., ignore=...)` sets this for one test or, as
`pytestmark`, for a module. SDKs and databases are imported only when a test uses a fixture.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from recorder.testing.first_use import FirstUse

if TYPE_CHECKING:
    from recorder.replay import Replay
    from recorder.testing.text_recording import Lock, TextRecordings

#: The names are vcrpy's; `recorder.models.replayed_model` implements them.
MODES = ("none", "once", "new_episodes", "all")
_MARKER = (
    "recorded(mode=None, path=None, **options): how the test's model calls are recorded and replayed: a mode of "
    "--record-mode, a file relative to the test's, and options of recorder.replay.Replay.model"
)
#: The characters of a test's name that not every system allows in a file name; and the longest file name.
_FORBIDDEN, _LONGEST = re.compile(r"[^\w\-\[\].=]+"), 120

#: The endings of a recording that is text; and of the SQLite file in which older versions recorded a test.
_TEXT, _OLDER = (".jsonl", ".jsonl.gz"), ".db"

#: Whether each recording existed when the first test of this run used it.
_existed_key = pytest.StashKey[dict[Path, bool]]()
_recordings_key = pytest.StashKey["TextRecordings"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--record-mode`, unless pytest-recording is installed: that plugin adds the same option."""
    if entry_points(group="pytest11", name="recording"):
        return
    parser.getgroup("recorder").addoption(
        "--record-mode",
        choices=MODES,
        help="how recorded_model handles model calls: none only replays; once (the default) records if the test has "
        "no file yet; new_episodes records requests that are not in the file; all records everything again",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", _MARKER)
    config.stash[_existed_key] = {}


@pytest.fixture
def recording(request: pytest.FixtureRequest) -> Iterator[Replay]:
    """The `Replay` of the test's file; `recording.http_client()` gives an HTTP client for an SDK."""
    path, mode = _path_of(request), _mode_of(request)
    if path.name.endswith(_TEXT):
        lock = None if mode == "none" else _first_use(request, path).lock
        opened = _replay_text(_recordings(request), path, lock)
    else:
        opened = _replay_database(path, mode)
    with opened as replay:
        yield replay


@contextmanager
def _replay_database(path: Path, mode: str) -> Iterator[Replay]:
    from recorder.replay import Replay
    from recorder.storage.dialects import into_one_file

    if mode != "none":
        path.parent.mkdir(parents=True, exist_ok=True)
    with Replay(f"sqlite:///{path}") as replay:
        yield replay
    into_one_file(path)


@contextmanager
def _replay_text(recordings: TextRecordings, path: Path, lock: Lock | None) -> Iterator[Replay]:
    from recorder.errors import RecorderError

    with ExitStack() as stack:
        try:
            replay = stack.enter_context(recordings.replay(path, lock))
        except RecorderError as error:
            problem = str(error)
        else:
            yield replay
            return
    pytest.fail(problem, pytrace=False)


def _recordings(request: pytest.FixtureRequest) -> TextRecordings:
    """The text recordings of this process, with a folder for temporary databases."""
    from recorder.testing.text_recording import TextRecordings

    stash = request.config.stash
    if _recordings_key not in stash:
        factory = request.getfixturevalue("tmp_path_factory")
        stash[_recordings_key] = TextRecordings(factory.mktemp("recordings"))
    return stash[_recordings_key]


@pytest.fixture
def recorded_model(request: pytest.FixtureRequest, recording: Replay) -> Callable[..., Any]:
    """A function that takes a model. It returns one like it that replays the test's recording.

    `--record-mode` decides whether it records requests that are not in the file.
    """
    marked = {key: value for key, value in _marked(request.node).items() if key not in ("mode", "path")}
    mode = _mode_of(request)

    def model(like: Any = None, **options: Any) -> Any:
        return recording.model(like, **{"mode": mode if like is not None else "none", **marked, **options})

    return model


def _mode_of(request: pytest.FixtureRequest) -> str:
    """The mode for the test's file; "once" becomes "none" or "new_episodes"."""
    mode, path, existed = _wanted_mode(request), _path_of(request), request.config.stash[_existed_key]
    # Tests that share a file are treated alike: only what existed before the first of them counts.
    if path not in existed:
        forget = partial(_forget, _paths(request.node)) if mode == "all" else None
        existed[path] = _first_use(request, path).existed(forget)
    return ("none" if existed[path] else "new_episodes") if mode == "once" else mode


def _wanted_mode(request: pytest.FixtureRequest) -> str:
    """The mode of the command line, or of the test's marker, or the default."""
    mode = request.config.getoption("record_mode", None) or _marked(request.node).get("mode") or "once"
    mode = {"rewrite": "all"}.get(mode, mode)  # pytest-recording's name
    if mode not in MODES:
        raise pytest.UsageError(
            f"The record mode of {request.node.nodeid} is {mode!r}; choose one of {', '.join(MODES)}"
        )
    return str(mode)


def _path_of(request: pytest.FixtureRequest) -> Path:
    """The file of a test. That of an older version is used until the test is recorded again."""
    path, older = _paths(request.node)
    if older is None or path.exists() or not older.exists() or _wanted_mode(request) == "all":
        return path
    return older


def _paths(node: Any) -> tuple[Path, Path | None]:
    """The path of the test's marker; or `recordings/<module>/<test>.jsonl` beside the test, and the older file."""
    if (named := _marked(node).get("path")) is not None:
        return Path(node.path.parent, named), None
    name = _file_name(".".join(node.nodeid.split("::")[1:]))
    folder = Path(node.path.parent, "recordings", node.path.stem)
    return folder / f"{name}{_TEXT[0]}", folder / f"{name}{_OLDER}"


def _forget(paths: tuple[Path | None, ...]) -> None:
    for path in paths:
        if path is not None:
            path.unlink(missing_ok=True)


def _first_use(request: pytest.FixtureRequest, path: Path) -> FirstUse:
    """The first use of a recording, in a folder that all processes of pytest-xdist share."""
    folder: Path = request.getfixturevalue("tmp_path_factory").getbasetemp()
    return FirstUse(
        (folder.parent if hasattr(request.config, "workerinput") else folder) / "recordings-used", path
    )


def _file_name(name: str) -> str:
    """A file name from the name of a test. A name that had to be changed gets a hash, so that it stays unique."""
    plain = _FORBIDDEN.sub("_", name)[:_LONGEST]
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _marked(node: Any) -> dict[str, Any]:
    """The arguments of the test's markers; a closer marker replaces an outer one."""
    options: dict[str, Any] = {}
    for marker in node.iter_markers("recorded"):
        options = {**marker.kwargs, **options}
    return options
