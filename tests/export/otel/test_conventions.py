"""One table has the names of all versions of the conventions."""

from __future__ import annotations

from pathlib import Path

import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.semconv.schemas import Schemas

from recorder.errors import ConfigError
from recorder.export.otel.conventions import DEFAULT, PROVIDERS, VERSIONS, check_content, conventions_of
from tests.test_docs import DOCS, table

#: The names of OpenTelemetry's own package, which has those of all versions before "genai-0.1".
RELEASED = {
    value
    for module in (gen_ai_attributes, gen_ai_metrics)
    for name, value in vars(module).items()
    if name.isupper() and isinstance(value, str)
}


#: The versions that this package knows; older ones of it lack the names of later versions.
KNOWN = [each for each in VERSIONS if f"V{each.replace('.', '_')}_0" in Schemas.__members__]


@pytest.mark.parametrize("version", KNOWN)
def test_the_names_are_those_of_opentelemetrys_package(version: str) -> None:
    """Each attribute and metric of a released version is a constant there; the name of the event is none."""
    names = {name for name in conventions_of(version).names.values() if name.startswith("gen_ai.")}
    assert names - RELEASED <= {"gen_ai.evaluation.result"}


def test_the_providers_are_those_of_opentelemetrys_package() -> None:
    """Words of recorder and LangChain are translated into the words of the conventions."""
    known = {each.value for each in gen_ai_attributes.GenAiProviderNameValues}
    assert set(PROVIDERS.values()) - known == {"moonshot_ai"}  # younger than that package


def test_a_later_version_renames_adds_and_drops() -> None:
    """The provider got another name in 1.37; the newest version counts tokens with counters."""
    first, second, last = (conventions_of(version).names for version in ("1.36", "1.37", "genai-0.1"))
    assert (first["provider"], second["provider"]) == ("gen_ai.system", "gen_ai.provider.name")
    assert "content.input" not in first
    assert "metric.usage" not in last
    assert last["metric.usage.input"] == "gen_ai.client.inference.usage.input_tokens"


def test_values_without_a_name_are_left_out() -> None:
    """None is left out, too."""
    values = {"provider": "openai", "request.model": None, "content.input": "[]"}
    assert conventions_of("1.36").named(values) == {"gen_ai.system": "openai"}


def test_an_unknown_version_is_refused() -> None:
    """The error lists the versions."""
    with pytest.raises(ConfigError, match=r"conventions is '1\.99'; choose one of 1\.36, 1\.37"):
        conventions_of("1.99")
    with pytest.raises(ConfigError, match=r"choose 1\.37 or later"):
        check_content(conventions_of("1.36"))


def test_the_page_lists_every_version() -> None:
    """docs/opentelemetry.md says what is different in each, and which one is the default."""
    page = (Path(DOCS) / "opentelemetry.md").read_text(encoding="utf-8")
    assert table(page, "version") == list(VERSIONS)
    assert f"| `{DEFAULT}` | the default" in page
