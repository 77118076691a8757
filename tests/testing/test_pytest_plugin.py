"""The pytest plugin: a test suite records its model calls once and later sends no request."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from recorder.testing import LoopbackProvider
from tests.oracle import ROOT

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

    def run(self, *options: str) -> tuple[pytest.RunResult, int]:
        """Run the tests; return pytest's result and the number of requests that were sent."""
        before = len(self.provider.requests)
        result = self.pytester.runpytest_subprocess(
            "-p",
            "recorder.testing.plugin",
            "-p",
            "no:cacheprovider",
            "-W",
            "error",
            "--strict-markers",
            *options,
        )
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
        "TestClass.test_sdk.db", "test_each[plain].db", "test_each[with_odd_characters]", "test_invoke.db"
    ]  # fmt: skip
    for mode in ("--record-mode=once", "--record-mode=none", "--record-mode=new_episodes"):
        result, requests = suite.run(mode)
        result.assert_outcomes(passed=5)
        assert requests == 0
        assert suite.files == files
    suite.provider.stop()
    suite.run()[0].assert_outcomes(passed=5)


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
        ["*NotRecorded: No recorded run answers this request: nothing is recorded in *"]
    )


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


def test_the_marker_sets_path_rules_and_mode(suite: Suite) -> None:
    """Tests may share a file and ignore options; the command line overrides a test's mode."""
    suite.pytester.makepyfile(
        test_marked="""
        import os
        import pytest
        from recorder.models import ChatOpenAI
        from recorder.replay import NotRecorded

        pytestmark = pytest.mark.recorded(path="recordings/shared.db", ignore=("seed",))

        def real():
            return ChatOpenAI(model="gpt-4o", base_url=os.environ["PROVIDER"], api_key="any", max_retries=0)

        def test_one(recorded_model):
            recorded_model(real()).invoke("Hi", seed=os.getpid())

        def test_two(recorded_model):
            recorded_model(real()).invoke("Ho", seed=os.getpid())

        @pytest.mark.recorded(mode="none")
        def test_three(recorded_model):
            with pytest.raises(NotRecorded):
                recorded_model(real()).invoke("He")
        """
    )
    result, requests = suite.run()
    result.assert_outcomes(passed=3)
    assert requests == 2
    assert list(suite.files) == ["recordings/shared.db"]
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

        pytestmark = pytest.mark.recorded(path="one.db")

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
