"""The options of the SDKs' `create` methods, which the models take as arguments. Any other argument is refused.

The lists save the import of an SDK. An option that is not in a list may be of a newer SDK, so before an argument is
refused, the signature of the installed SDK's method is read.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from typing import Any

from recorder.errors import ConfigError

#: Options of every request, in both SDKs.
_EVERY_REQUEST = "stream extra_headers extra_query extra_body timeout"
_CHAT_COMPLETIONS = """
    audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens modalities
    moderation n parallel_tool_calls prediction presence_penalty prompt_cache_key prompt_cache_options
    prompt_cache_retention reasoning_effort response_format safety_identifier seed service_tier stop store
    stream_options temperature tool_choice tools top_logprobs top_p user verbosity web_search_options
"""
_RESPONSES = """
    access_programs background background_options context_management conversation image include instructions
    max_output_tokens max_tool_calls moderation parallel_tool_calls previous_response_id prompt prompt_cache_key
    prompt_cache_options prompt_cache_retention reasoning safety_identifier service_tier store stream_options
    temperature text tool_choice tools top_logprobs top_p truncation user
"""
_COMPLETIONS = """
    best_of echo frequency_penalty logit_bias logprobs max_tokens n presence_penalty seed stop stream_options suffix
    temperature top_p user
"""
#: The last line is not in the newest SDK: options of older models, and LangChain's names.
_MESSAGES = """
    cache_control container diagnostics inference_geo max_tokens output_config service_tier speed stop_sequences system
    thinking tool_choice tools user_profile_id workspace_id
    billing_policy betas compaction context_management fallback_credit_token fallbacks mcp_servers thread
    temperature top_k top_p stop effort reasoning_effort
"""


def _names(*texts: str) -> frozenset[str]:
    return frozenset(name for text in texts for name in text.split())


@dataclass(frozen=True, slots=True)
class CreateOptions:
    """The options that one model may send."""

    known: frozenset[str]
    #: The classes whose method `create` has the options: the module and the name of each.
    resources: tuple[tuple[str, str], ...]

    def check(self, model: str, given: Iterable[str], constructor: Callable[..., Any]) -> None:
        """Raise `ConfigError` for an argument that is neither of the model nor of the SDK."""
        for name in given:
            if name not in self.known and name not in self.in_sdk():
                raise ConfigError(_refusal(model, name, self.known | _parameters(constructor)))

    def in_sdk(self) -> frozenset[str]:
        """The options that the installed SDK has."""
        return frozenset().union(*(_sdk_parameters(*resource) for resource in self.resources))


CHAT_OPTIONS = CreateOptions(
    _names(_EVERY_REQUEST, _CHAT_COMPLETIONS, _RESPONSES),
    (
        ("openai.resources.chat.completions", "Completions"),
        ("openai.resources.responses", "Responses"),
    ),
)
COMPLETION_OPTIONS = CreateOptions(
    _names(_EVERY_REQUEST, _COMPLETIONS), (("openai.resources.completions", "Completions"),)
)
MESSAGES_OPTIONS = CreateOptions(
    _names(_EVERY_REQUEST, _MESSAGES),
    (("anthropic.resources.messages", "Messages"), ("anthropic.resources.beta.messages", "Messages")),
)


@cache
def _sdk_parameters(module: str, name: str) -> frozenset[str]:
    """The parameters of a class's `create`. None, if another version of the SDK has no such class."""
    try:
        create = getattr(import_module(module), name).create
    except (ImportError, AttributeError):
        return frozenset()
    return _parameters(create)


def _parameters(function: Callable[..., Any]) -> frozenset[str]:
    parameters: Mapping[str, inspect.Parameter] = inspect.signature(function).parameters
    named = (name for name, each in parameters.items() if each.kind is not each.VAR_KEYWORD)
    return frozenset(named) - {"self"}


def _refusal(model: str, name: str, known: frozenset[str]) -> str:
    nearest = get_close_matches(name, sorted(known), 1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
    return (
        f"{model} has no argument {name!r}{hint} Pass model_kwargs={{{name!r}: ...}} to give it to the SDK's create "
        f"all the same, or extra_body={{{name!r}: ...}} for a field of the request that the SDK does not know"
    )
