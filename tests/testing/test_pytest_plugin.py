"""The pytest plugin: a test suite records its model calls once and later sends no request.

Most suites run in this process, because a new one takes seconds to import pytest and the SDK.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import recorder.testing.plugin
import recorder.testing.text_recording  # noqa: F401
from recorder import ChatHistoryCallback
from recorder.export import export, import_
from recorder.models import ChatOpenAI
from recorder.replay import Replay
from recorder.storage.dialects import into_one_file
from recorder.testing import LoopbackProvider
from tests.oracle import ROOT, new_url, sql

pytest_plugins = ["pytester"]

SUITE = """
import os
import pytest
from recorder.models import ChatOpenAI
from recorder.replay import NotRecorded

URL = os.environ["PROVIDER"]

def real():
    return ChatOpenAI(model="gpt-4o", base_url=URL, api_key="any", max_retries=0)

def test_invoke(recorded_model):
    chat = recorded_model(real())
    assert chat.invoke("Hi").content.startswith("answer")
    assert "".join(chunk.text for chunk in chat.stream("Hi")).startswith("answer")

@pytest.mark.parametrize("text", ["plain", "with/odd: characters"])
def test_each(recorded_model, text):
    assert recorded_model(real()).invoke(text).content.startswith("answer")

class TestClass:
    def test_sdk(self, recorded_model, recording):
        import openai

        recorded_model(real()).invoke("Hi")

    def test_nothing(self, recorded_model):
        pass
"""


@pytest.fixture
def provider() -> Iterator[LoopbackProvider]:
    """Yield a provider that answers "answer 1", "answer 2", ..."""
    count = iter(range(1, 1000))
    with LoopbackProvider(lambda body, path: f"answer {next(count)}") as provider:
        yield provider


@pytest.fixture(scope="module", autouse=True)
def imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Import what suites import. Otherwise each would import it again, because pytester removes it at a suite's end."""
    url = f"sqlite:///{tmp_path_factory.mktemp('imported') / 'history.db'}"
    with LoopbackProvider("Hello") as provider, Replay(url) as replay:
        model = ChatOpenAI("gpt-4o", base_url=provider.base_url, api_key="any")
        replay.model(model, mode="once").invoke("Hi")


@pytest.fixture
def suite(pytester: pytest.Pytester, provider: LoopbackProvider, monkeypatch: pytest.MonkeyPatch) -> Suite:
    """Return an empty test suite with a provider."""
    monkeypatch.setenv("PROVIDER", provider.base_url)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return Suite(pytester, provider)


class Suite:
    """Tests in a folder of their own, which another pytest runs."""

    def __init__(self, pytester: pytest.Pytester, provider: LoopbackProvider) -> None:
        self.pytester = pytester
        self.provider = provider

    def run(self, *options: str, apart: bool = False) -> tuple[pytest.RunResult, int]:
        """Run the tests, `apart` in another process; return pytest's result and the number of requests."""
        before = len(self.provider.requests)
        # The plugin is imported already, so that pytest cannot rewrite its asserts; it has none.
        common = (
            "-p",
            "recorder.testing.plugin",
            "-p",
            "no:cacheprovider",
            "--strict-markers",
            "-W",
            "error",
        )
        if apart:
            result = self.pytester.runpytest_subprocess(*common, *options, timeout=60)
        else:
            tolerated = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
            result = self.pytester.runpytest_inprocess(*common, *tolerated, *options)
        return result, len(self.provider.requests) - before

    @property
    def files(self) -> dict[str, str]:
        """Return the hashes of all files in the folders of recordings."""
        root = self.pytester.path
        return {
            str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(root.rglob("recordings/**/*"))
            if path.is_file()
        }


def test_a_suite_records_once(suite: Suite) -> None:
    """The second run sends no request, changes no file, and needs no provider."""
    suite.pytester.makepyfile(test_suite=SUITE)
    result, requests = suite.run()
    result.assert_outcomes(passed=5)
    assert requests == 5
    files = suite.files
    names = [Path(name).name.partition("-")[0] for name in files]
    assert {str(Path(name).parent) for name in files} == {"recordings/test_suite"}
    assert sorted(names) == [
        "TestClass.test_sdk.jsonl", "test_each[plain].jsonl", "test_each[with_odd_characters]", "test_invoke.jsonl"
    ]  # fmt: skip
    for mode in ("--record-mode=once", "--record-mode=none", "--record-mode=new_episodes"):
        result, requests = suite.run(mode)
        result.assert_outcomes(passed=5)
        assert requests == 0
        assert suite.files == files
    suite.provider.stop()
    suite.run(apart=True)[0].assert_outcomes(passed=5)


def test_a_request_that_is_not_recorded_fails_the_test(suite: Suite) -> None:
    """The error shows the difference; `new_episodes` records the request."""
    suite.pytester.makepyfile(test_suite=SUITE)
    suite.run()
    suite.pytester.makepyfile(test_suite=SUITE.replace('invoke("Hi").content', 'invoke("Hi there").content'))
    result, requests = suite.run()
    result.assert_outcomes(passed=4, failed=1)
    assert requests == 0
    result.stdout.fnmatch_lines(
        ['*-      "text": "Hi"', '*+      "text": "Hi there"', "*pytest --record-mode=new_episodes*"]
    )
    result, requests = suite.run("--record-mode=new_episodes")
    result.assert_outcomes(passed=5)
    assert requests == 1
    result, requests = suite.run("--record-mode=none")
    result.assert_outcomes(passed=5)
    assert requests == 0


def test_mode_none_records_nothing(suite: Suite) -> None:
    """No request is sent, no file is written, and the error names the file."""
    suite.pytester.makepyfile(test_suite=SUITE)
    result, requests = suite.run("--record-mode=none")
    result.assert_outcomes(passed=1, failed=4)
    assert (requests, suite.files) == (0, {})
    result.stdout.fnmatch_lines(
        [
            "*NotRecorded: No recorded run answers this request: nothing is recorded in */test_invoke.jsonl yet.*"
        ]
    )
    assert not Path("recordings").exists()


def test_mode_all_records_again(suite: Suite) -> None:
    """Later runs replay the new answers."""
    body = SUITE.partition("@pytest.mark")[0].replace(
        '.startswith("answer")', ' in os.environ["EXPECTED"].split(",")'
    )
    suite.pytester.makepyfile(test_suite=body)
    for mode, expected, count in (("once", "answer 1,answer 2", 2), ("all", "answer 3,answer 4", 2),
                                  ("once", "answer 3,answer 4", 0)):  # fmt: skip
        os.environ["EXPECTED"] = expected
        result, requests = suite.run(f"--record-mode={mode}")
        result.assert_outcomes(passed=1)
        assert requests == count
    del os.environ["EXPECTED"]


@pytest.mark.parametrize("name", ["shared.jsonl", "shared.jsonl.gz", "shared.db"])
def test_the_marker_sets_path_rules_and_mode(suite: Suite, name: str) -> None:
    """Tests may share a file and ignore options; the command line overrides a test's mode."""
    suite.pytester.makepyfile(
        test_marked="""
        import os
        import pytest
        import random
        from recorder.models import ChatOpenAI
        from recorder.replay import NotRecorded

        pytestmark = pytest.mark.recorded(path="recordings/{name}", ignore=("seed",))

        def real():
            return ChatOpenAI(model="gpt-4o", base_url=os.environ["PROVIDER"], api_key="any", max_retries=0)

        def test_one(recorded_model):
            recorded_model(real()).invoke("Hi", seed=random.randrange(10**9))

        def test_two(recorded_model):
            recorded_model(real()).invoke("Ho", seed=random.randrange(10**9))

        @pytest.mark.recorded(mode="none")
        def test_three(recorded_model):
            with pytest.raises(NotRecorded):
                recorded_model(real()).invoke("He")
        """.replace("{name}", name)
    )
    result, requests = suite.run()
    result.assert_outcomes(passed=3)
    assert requests == 2
    assert list(suite.files) == [f"recordings/{name}"]
    beginning = Path(f"recordings/{name}").read_bytes()[:15]
    assert (beginning == b"SQLite format 3") == name.endswith(".db")
    result, requests = suite.run()
    result.assert_outcomes(passed=3)
    assert requests == 0
    result, requests = suite.run("--record-mode=new_episodes")
    result.assert_outcomes(passed=2, failed=1)
    assert requests == 1


def test_an_unknown_mode_is_refused(suite: Suite) -> None:
    """This holds for the command line and for the marker."""
    suite.pytester.makepyfile(
        test_marked="""
        import pytest

        @pytest.mark.recorded(mode="sometimes")
        def test_one(recorded_model):
            pass
        """
    )
    suite.run()[0].stdout.fnmatch_lines(["*is 'sometimes'; choose one of none, once, new_episodes, all*"])
    result, _ = suite.run("--record-mode=sometimes")
    result.stderr.fnmatch_lines(["*--record-mode: invalid choice: 'sometimes'*"])


def test_the_recording_fixture_answers_an_sdk(suite: Suite) -> None:
    """Its HTTP client replays what the model recorded."""
    suite.pytester.makepyfile(
        test_sdk="""
        import os
        import openai
        import pytest
        from recorder.models import ChatOpenAI

        pytestmark = pytest.mark.recorded(path="one.jsonl")

        def test_model(recorded_model):
            url = os.environ["PROVIDER"]
            recorded_model(ChatOpenAI(model="gpt-4o", base_url=url, api_key="any")).invoke("Hi")

        def test_sdk(recording):
            sdk = openai.OpenAI(api_key="any", http_client=recording.http_client())
            answer = sdk.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hi"}])
            assert answer.choices[0].message.content == "answer 1"
        """
    )
    result, requests = suite.run()
    result.assert_outcomes(passed=2)
    assert requests == 1


ONE = """
import os
from recorder.models import ChatOpenAI

def test_one(recorded_model):
    model = ChatOpenAI(model="gpt-4o", base_url=os.environ["PROVIDER"], api_key="sk-a-key-of-mine-12345678")
    for question in os.environ.get("QUESTIONS", "Hi").split(","):
        assert "".join(chunk.text for chunk in recorded_model(model).stream(question)).startswith("answer")
"""
FILE = Path("recordings/test_one/test_one.jsonl")
OLDER = FILE.with_suffix(".db")


def lines_of(path: Path) -> list[str]:
    """Return the lines of a text recording without the first and the last one, which say how and how much."""
    return path.read_text().splitlines()[1:-1]


def test_a_recording_is_text_for_a_review(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the question, the answer, the usage and the frames, and nothing of the machine or the key."""
    monkeypatch.setenv("QUESTIONS", "What is it?")
    suite.pytester.makepyfile(test_one=ONE)
    suite.run()
    text = FILE.read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row[2]["content"] for row in rows[1:] if row[1] == "message"] == ["What is it?", "answer 1"]
    [run] = [row[2] for row in rows[1:] if row[1] == "run"]
    assert run["usage"]["completion_tokens"] == run["output_tokens"] > 0
    assert [row[2] for row in rows[1:] if row[1] == "text"] == ["answer", " ", "1"]
    frames = [row[2] for row in rows[1:] if row[1] == "frame"]
    assert frames[0].startswith("data: {")
    assert frames[-1] == "data: [DONE]\n\n"
    assert rows[0]["source"] == "pytest"
    for private in ("sk-a-key", platform.node(), str(os.getpid()), str(suite.pytester.path), "producer"):
        assert f'"{private}' not in text


def test_what_is_recorded_later_changes_no_other_line(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    """`new_episodes` adds lines to a text file."""
    suite.pytester.makepyfile(test_one=ONE)
    suite.run()
    before = lines_of(FILE)
    monkeypatch.setenv("QUESTIONS", "Hi,Ho")
    assert suite.run("--record-mode=new_episodes")[1] == 1
    after = lines_of(FILE)
    assert after[: len(before)] == before
    assert len(after) > len(before)
    text = FILE.read_bytes()
    assert suite.run("--record-mode=new_episodes")[1] == 0
    assert FILE.read_bytes() == text


def test_a_broken_file_is_named_with_its_line(suite: Suite) -> None:
    """The error says what to do, and `all` does not read the file."""
    suite.pytester.makepyfile(test_one=ONE)
    suite.run()
    lines = FILE.read_text().splitlines(keepends=True)
    FILE.write_text("".join([*lines[:2], "<<<<<<< HEAD\n", *lines[2:]]))
    result, _ = suite.run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [f"{FILE}: Line 3 of the export is damaged (not JSON*version control*--record-mode=all"]
    )
    suite.run("--record-mode=all")[0].assert_outcomes(passed=1)
    suite.run("--record-mode=none")[0].assert_outcomes(passed=1)


def test_the_database_of_an_older_version_is_replayed(suite: Suite) -> None:
    """It stays as it is until the test is recorded again; then a text file takes its place."""
    suite.pytester.makepyfile(test_one=ONE)
    suite.run()
    import_(new_url(FILE.parent, OLDER.name), FILE)
    into_one_file(OLDER)
    FILE.unlink()
    before = suite.files
    assert list(before) == [str(OLDER)]
    for mode in ("once", "none", "new_episodes"):
        result, requests = suite.run(f"--record-mode={mode}")
        result.assert_outcomes(passed=1)
        assert (requests, suite.files) == (0, before)
    assert suite.run("--record-mode=all")[1] == 1
    assert list(suite.files) == [str(FILE)]


def test_a_database_beside_the_file_of_a_marker_is_left_alone(suite: Suite) -> None:
    """Only the file that an older version made for a test is replaced."""
    marked = "import pytest\npytestmark = pytest.mark.recorded(path='mine.jsonl')\n"
    suite.pytester.makepyfile(test_one=marked + ONE)
    Path("mine.db").write_bytes(b"mine")
    suite.run("--record-mode=all")[0].assert_outcomes(passed=1)
    assert Path("mine.db").read_bytes() == b"mine"
    assert Path("mine.jsonl").exists()


def test_an_export_is_a_recording(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of an application becomes a test; what is added leaves out the processes that recorded."""
    suite.pytester.makepyfile(test_one=ONE)
    url = new_url(suite.pytester.path)
    with ChatHistoryCallback(url) as history:
        ChatOpenAI("gpt-4o", base_url=suite.provider.base_url, api_key="any", callbacks=[history]).invoke(
            "Hi"
        )
    FILE.parent.mkdir(parents=True)
    export(url, FILE)
    assert suite.run("--record-mode=none")[1] == 0
    assert "producer" in FILE.read_text()
    monkeypatch.setenv("QUESTIONS", "Hi,Ho")
    assert suite.run("--record-mode=new_episodes")[1] == 1
    assert "producer" not in FILE.read_text()


def test_what_the_test_records_itself_is_kept(suite: Suite) -> None:
    """A callback on the recording's database adds to the file when the mode records, and never else."""
    suite.pytester.makepyfile(
        test_one="""
        import os
        from recorder import ChatHistoryCallback
        from recorder.models import ChatOpenAI

        def test_one(recording):
            with ChatHistoryCallback(recording.url) as history:
                model = ChatOpenAI("gpt-4o", base_url=os.environ["PROVIDER"], api_key="any", callbacks=[history])
                model.invoke("Hi")
        """
    )
    for mode, runs in (("once", 1), ("once", 1), ("new_episodes", 2), ("none", 2)):
        suite.run(f"--record-mode={mode}")[0].assert_outcomes(passed=1)
        assert FILE.read_text().count('"run",') == runs


SHARED = """
import os
import pytest
from recorder.models import ChatOpenAI

pytestmark = pytest.mark.recorded(path="shared.jsonl")

@pytest.mark.parametrize("text", ["Hi", "Ho"])
def test_shared(recorded_model, text):
    model = recorded_model(ChatOpenAI(model="gpt-4o", base_url=os.environ["PROVIDER"], api_key="any"))
    if "MEETING" in os.environ:  # opening a pipe waits until the other end is opened
        os.close(os.open(os.environ["MEETING"], os.O_RDONLY if text == "Hi" else os.O_WRONLY))
    answer = model.invoke([("system", "Be kind."), ("user", text)], {"metadata": {"conversation_id": "c"}})
    assert answer.content.startswith("answer")
"""


def test_two_processes_record_into_one_file(
    suite: Suite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Both begin before one has recorded, even into one conversation, and both are in the file."""
    suite.pytester.makepyfile(test_shared=SHARED)
    os.mkfifo(tmp_path / "meeting")
    with monkeypatch.context() as patch:
        patch.setenv("MEETING", str(tmp_path / "meeting"))
        result, requests = suite.run("-p", "xdist", "-n", "2", apart=True)
    result.assert_outcomes(passed=2)
    assert requests == 2
    result, requests = suite.run("--record-mode=none")
    result.assert_outcomes(passed=2)
    assert requests == 0
    import_(url := new_url(tmp_path), "shared.jsonl")
    assert sql(url, "SELECT count(*), count(DISTINCT conversation_id) FROM runs") == [(2, 1)]
    assert sql(url, "SELECT content FROM messages WHERE role = 'user' ORDER BY content") == [("Hi",), ("Ho",)]


def test_an_unused_plugin_imports_nothing_heavy() -> None:
    """Every pytest imports the plugin where recorder is installed."""
    heavy = (
        "aiosqlite",
        "anthropic",
        "h11",
        "openai",
        "orjson",
        "sqlalchemy",
        "recorder.replay",
        "recorder.models",
    )
    code = f"import sys, recorder.testing.plugin; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
