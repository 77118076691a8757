"""The pytest plugin: a suite of its own records its model calls once, and then never makes a request again."""

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
    """Answers "answer 1", "answer 2", ..."""
    count = iter(range(1, 1000))
    with LoopbackProvider(lambda body, path: f"answer {next(count)}") as provider:
        yield provider


@pytest.fixture
def suite(pytester: pytest.Pytester, provider: LoopbackProvider, monkeypatch: pytest.MonkeyPatch) -> Suite:
    """An empty suite beside a provider."""
    monkeypatch.setenv("PROVIDER", provider.base_url)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return Suite(pytester, provider)


class Suite:
    """Tests in a folder of their own, run by a pytest of their own."""

    def __init__(self, pytester: pytest.Pytester, provider: LoopbackProvider) -> None:
        self.pytester = pytester
        self.provider = provider

    def run(self, *options: str) -> tuple[pytest.RunResult, int]:
        """Run them; what came of it, and how many requests were made."""
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
        """The recordings and their hashes, with all that lies beside them."""
        root = self.pytester.path
        return {
            str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(root.rglob("recordings/**/*"))
            if path.is_file()
        }


def test_a_suite_records_once(suite: Suite) -> None:
    """The second run makes no request, changes no file, and needs no provider."""
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


def test_what_is_missing(suite: Suite) -> None:
    """Is an error that shows the difference, until `new_episodes` adds it."""
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


def test_nothing_is_recorded_in_mode_none(suite: Suite) -> None:
    """As on a build server: no request, no file, and an error that names the file."""
    suite.pytester.makepyfile(test_suite=SUITE)
    result, requests = suite.run("--record-mode=none")
    result.assert_outcomes(passed=1, failed=4)
    assert (requests, suite.files) == (0, {})
    result.stdout.fnmatch_lines(
        ["*NotRecorded: No recorded run answers this request: nothing is recorded in *"]
    )


def test_all_records_anew(suite: Suite) -> None:
    """And what is replayed then is new."""
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


def test_the_marker(suite: Suite) -> None:
    """A file that tests share, what may differ, and a mode for one test; the command line has the last word."""
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


def test_a_mode_that_is_none_is_refused(suite: Suite) -> None:
    """By the command line and by the marker."""
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


def test_an_sdk_over_the_recording(suite: Suite) -> None:
    """The `recording` fixture plays into a genuine client what the model recorded."""
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


def test_a_pytest_that_does_not_use_it_loads_nothing_heavy() -> None:
    """The plugin is imported with every pytest where recorder is installed."""
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
