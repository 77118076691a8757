"""`AzureChatOpenAI`: OpenAI's chat models on Azure, over the official SDK's clients for Azure."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from recorder.errors import ConfigError
from recorder.models.create_options import CHAT_OPTIONS
from recorder.models.openai import BaseChatOpenAI, openai_clients

#: Environment variables in which the SDK looks for a credential if none is passed.
_CREDENTIALS = ("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN")


class AzureChatOpenAI(BaseChatOpenAI):
    """OpenAI's chat models on Azure. The arguments are those of LangChain's `AzureChatOpenAI`.

    `options` are those of the SDK's `create`. If the endpoint, the key or token, or the API's version is not passed,
    it is read from `AZURE_OPENAI_ENDPOINT`, `AZURE_OPENAI_API_KEY`, `AZURE_OPENAI_AD_TOKEN` or `OPENAI_API_VERSION`.
    Without a deployment, the model's name is used as the name of the deployment. The results of Azure's content
    filters are in `response_metadata["content_filter_results"]`. The other arguments are those of `ChatOpenAI`. Raises
    the SDK's exceptions, and `ConfigError` without a model and a deployment.
    """

    provider_name = "azure"

    def __init__(
        self,
        *,
        azure_deployment: str | None = None,
        deployment_name: str | None = None,
        azure_endpoint: str | None = None,
        api_version: str | None = None,
        openai_api_version: str | None = None,
        api_key: Any = None,
        openai_api_key: Any = None,
        azure_ad_token: Any = None,
        azure_ad_token_provider: Callable[[], str] | None = None,
        azure_ad_async_token_provider: Callable[[], Any] | None = None,
        model: str | None = None,
        model_name: str | None = None,
        model_version: str = "",
        base_url: str | None = None,
        openai_api_base: str | None = None,
        organization: str | None = None,
        openai_organization: str | None = None,
        timeout: Any = None,
        request_timeout: Any = None,
        max_retries: int | None = None,
        default_headers: Mapping[str, str] | None = None,
        default_query: Mapping[str, object] | None = None,
        http_client: Any = None,
        http_async_client: Any = None,
        streaming: bool = False,
        stream_usage: bool = True,
        stop_sequences: Sequence[str] | None = None,
        use_responses_api: bool | None = None,
        use_previous_response_id: bool = False,
        tiktoken_model_name: str | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        openai_api_type: str | None = None,  # LangChain's; ignored: only SDKs before 1.0 needed it
        verbose: bool = False,  # LangChain's; ignored
        callbacks: Any = None,
        tags: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        name: str | None = None,
        **options: Any,
    ) -> None:
        CHAT_OPTIONS.check("AzureChatOpenAI", options, AzureChatOpenAI.__init__)
        deployment = azure_deployment or deployment_name
        named = model or model_name
        if not (named or deployment):
            raise ConfigError(
                "AzureChatOpenAI needs a deployment; pass azure_deployment=, the name of the deployment in Azure"
            )
        token = azure_ad_token or azure_ad_token_provider or azure_ad_async_token_provider
        key = api_key or openai_api_key
        clients = openai_clients(
            ("AzureOpenAI", "AsyncAzureOpenAI"),
            azure_endpoint=azure_endpoint,
            azure_deployment=deployment,
            api_version=api_version or openai_api_version,
            api_key=None if token else key or _openai_key(),
            azure_ad_token=azure_ad_token,
            azure_ad_token_provider=azure_ad_token_provider,
            async_only=_only_async(azure_ad_async_token_provider),
            base_url=base_url or openai_api_base,
            organization=organization or openai_organization,
            timeout=timeout if timeout is not None else request_timeout,
            max_retries=max_retries,
            default_headers=default_headers,
            default_query=default_query,
            http_client=http_client,
            http_async_client=http_async_client,
        )
        super().__init__(
            clients, named or deployment or "", stream_usage=stream_usage, use_responses_api=use_responses_api,
            use_previous_response_id=use_previous_response_id, tiktoken_model_name=tiktoken_model_name,
            callbacks=callbacks, tags=tags, metadata=metadata, name=name, streaming=streaming,
            options={"stop": stop_sequences, **(model_kwargs or {}), **options},
        )  # fmt: skip
        self.deployment_name = deployment
        self.model_version = model_version

    def _body(self, messages: list[Any], options: dict[str, Any], *, stream: bool) -> dict[str, Any]:
        """The arguments of `create`. For Responses the body names the deployment, for the URL does not."""
        body = super()._body(messages, options, stream=stream)
        if "input" in body and self.deployment_name and not options.get("model"):
            body["model"] = self.deployment_name
        return body

    def _ls_params(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Adds `model_version` to the model's name, because Azure's responses do not have the version."""
        params = super()._ls_params(body)
        model, version = str(params["ls_model_name"]), self.model_version.lstrip("-")
        if version and version not in model and model == self.model_name:
            params["ls_model_name"] = f"{model}-{version}"
        return params


def _only_async(provider: Callable[[], Any] | None) -> dict[str, Any] | None:
    return {"azure_ad_token_provider": provider} if provider else None


def _openai_key() -> str | None:
    """The key in `OPENAI_API_KEY`, if there is no credential for Azure. LangChain has the same rule."""
    return None if any(map(os.environ.get, _CREDENTIALS)) else os.environ.get("OPENAI_API_KEY")
