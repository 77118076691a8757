"""Credentials are recognised by their names, and nothing else is taken for one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from pydantic import BaseModel, SecretStr

from recorder.redaction.credentials import (
    MaskedValue,
    is_secret,
    is_secret_name,
    mask_urls,
    secrets_in,
    secrets_of_request,
    secrets_of_urls,
    without_secrets,
)

SECRET_NAMES = """
    api_key api-key apiKey APIKEY x-api-key X-API-Key openai_api_key OPENAI_API_KEY openaiApiKey api_keys accountKey
    Ocp-Apim-Subscription-Key x-functions-key x-goog-api-key private_key secret_key aws_secret_access_key
    shared_access_key scram_client_key OPENAI_API_KEY_2 api_key_base64 authorization Authorization
    authorization_token Proxy-Authorization token access_token accessToken auth_token x-auth-token azure_ad_token
    azureAdToken id_token refresh_token aws_session_token hf_token HF_TOKEN GITHUB_TOKEN bearer_token access_tokens
    password PASSWORD passwd db_password sslpassword passphrase pwd passwords secret secrets client_secret
    clientSecret credentials google_credentials cookie set-cookie jwt basic_auth auth bearer headers extra_headers
    default_headers
"""

OTHER_NAMES = """
    max_tokens token_count tokens prompt_tokens completion_tokens max_completion_tokens max_output_tokens
    budget_tokens ls_max_tokens thinking_budget_tokens input_tokens total_tokens cached_tokens stop_token eos_token
    pad_token image_token token_usage stop_token_ids add_special_tokens next_page_token logit_bias key keys keyword
    monkey hockey prompt_cache_key cache_key idempotency_key primary_key public_key sort_key author authors
    authority authenticated secretary tokenizer tokenizer_name thread_id user_id session_id conversation_id
    ls_provider top_k passwordless encoding_format service_tier safety_identifier api_key_id secret_name
    header_format token_type
"""


@pytest.mark.parametrize("name", SECRET_NAMES.split())
def test_a_name_of_a_credential(name: str) -> None:
    """The name may have any case and any separators."""
    assert is_secret_name(name)


@pytest.mark.parametrize("name", [*OTHER_NAMES.split(), "", "-", "x" * 1_000, "ключ"])
def test_a_name_that_is_not_of_a_credential(name: str) -> None:
    """Many parameters of language models have `key` or `token` in their names."""
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("api_key", "x", True), ("api_key", 17, True), ("api_key", ["a"], True), ("api_key", lambda: "x", True),
        ("api_key", None, False), ("api_key", "", False), ("auth", True, False), ("token", 17, False),
        ("max_input_token", 17, False), (3, "x", False), ("name", "x", False),
    ],
)  # fmt: skip
def test_a_value_of_a_credential(name: Any, value: Any, found: bool) -> None:
    """A boolean and a number of tokens are no credentials."""
    assert is_secret(name, value) is found


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql://me:pass@host/db", "postgresql://me:***@host/db"),
        ("see http://me:p%40ss@proxy:8080 and go", "see http://me:***@proxy:8080 and go"),
        ("'https://host/v1?api_key=x1&page=2'", "'https://host/v1?api_key=***&page=2'"),
        ("https://host/?key=x1&sig=x2&X-Amz-Signature=x3&code=x4&q=x5",
         "https://host/?key=***&sig=***&X-Amz-Signature=***&code=***&q=x5"),
        ("https://host/a?b=c#token=d", "https://host/a?b=c#token=d"),
        ("http://host:8080/users/@me", "http://host:8080/users/@me"),
        ("a = b ? c : d", "a = b ? c : d"),
        ("me@host.example", "me@host.example"),
        ("", ""),
    ],
)  # fmt: skip
def test_passwords_and_keys_of_urls_in_a_text_are_masked(text: str, masked: str) -> None:
    """The rest of the text is not changed."""
    assert mask_urls(text) == masked


def test_secrets_of_urls_are_returned_quoted_and_unquoted() -> None:
    """A provider may repeat them in either form."""
    found = secrets_of_urls("https://me:p%40ss@host/?key=a%2Bb&page=2")
    assert set(found) == {"p%40ss", "a%2Bb", "p@ss", "a+b"}


class Server(BaseModel):
    """A pydantic model that is part of a request."""

    name: str
    authorization_token: str
    shown: SecretStr


def test_a_value_with_the_name_of_a_credential_is_dropped() -> None:
    """It may be deep in lists and objects; its place and its texts are returned."""
    value = {
        "model": "m",
        "max_tokens": 5,
        "mcp_servers": [{"name": "x", "authorization_token": "t-1"}],
        "extra_body": {"deep": ({"client-secret": "t-2"},), "credentials": {"aws": ["t-3"], "kind": "t-4"}},
        "server": Server(name="y", authorization_token="t-5", shown=SecretStr("t-6")),
        "headers": {"Authorization": "Bearer t-7", "Accept": "application/json"},
        "url": "https://me:t-8@host/?page=2",
    }
    found: list[MaskedValue] = []
    assert without_secrets(value, "request", found) == {
        "model": "m",
        "max_tokens": 5,
        "mcp_servers": [{"name": "x"}],
        "extra_body": {"deep": [{}]},
        "server": {"name": "y", "shown": "**********"},
        "url": "https://me:***@host/?page=2",
    }
    assert {each.place: set(each.texts) for each in found} == {
        "request.mcp_servers.0.authorization_token": {"t-1"},
        "request.extra_body.deep.0.client-secret": {"t-2"},
        "request.extra_body.credentials": {"t-3", "t-4"},
        "request.server.authorization_token": {"t-5"},
        "request.headers": {"t-7"},
        "request.url": {"t-8"},
    }


def test_a_value_without_credentials_is_not_copied() -> None:
    """The same object is returned."""
    values: tuple[Any, ...] = ({"max_tokens": 5, "tools": [{"name": "x"}]}, {}, [], "text", None, 3)
    for value in values:
        found: list[MaskedValue] = []
        assert without_secrets(value, "request", found) is value
        assert found == []


def test_arguments_of_tools_are_no_credentials() -> None:
    """The description of a tool that takes a password is not changed."""
    schema = {"type": "object", "properties": {"password": {"type": "string"}, "token": {"type": "string"}}}
    value = {"tools": [{"function": {"name": "login", "parameters": {**schema, "required": ["password"]}}}]}
    assert without_secrets(value, "request", []) is value
    nested = {"properties": {"a": {"password": "t-1"}}, "$defs": {"token": {"type": "string"}}}
    assert without_secrets(nested, "x", []) == {
        "properties": {"a": {}},
        "$defs": {"token": {"type": "string"}},
    }


def test_a_circular_value_is_returned_unchanged() -> None:
    """It cannot be written as JSON, so it is never stored."""
    circle: dict[str, Any] = {"api_key": "t-1"}
    circle["self"] = circle
    assert without_secrets(circle, "x", []) is circle


def test_the_secret_of_a_header_is_returned_without_its_scheme() -> None:
    """Of user and password it is the password, too; providers repeat only these."""
    assert list(secrets_in("Authorization", "Bearer t-1")) == ["t-1"]
    assert list(secrets_in("Authorization", "Basic bWU6cGFzcw==")) == ["bWU6cGFzcw==", "pass"]
    assert list(secrets_in("Authorization", "Basic ???")) == ["???"]
    assert list(secrets_in("api_key", "t 1")) == ["t 1"]
    assert list(secrets_in("api_key", 17)) == []


def test_the_credentials_of_a_sent_request_are_those_of_its_headers_and_url() -> None:
    """Other headers are not among them."""
    request = httpx2.Request(
        "POST",
        "https://me:p%40ss@host/?api-key=k-1&page=2",
        headers={"Authorization": "Bearer k-2", "X-Api-Key": "k-3", "Accept": "application/json"},
    )
    assert {"k-1", "k-2", "k-3", "p@ss"} <= set(secrets_of_request(request))
    assert "application/json" not in secrets_of_request(request)
    with pytest.raises(AttributeError):
        secrets_of_request(SimpleNamespace())
