"""The public names of LangChain's two chat models, and which of them recorder's models have.

`python -m tests.langchain_surface` writes the tables of docs/like-langchain.md anew.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from recorder.models import ChatAnthropic, ChatOpenAI
from recorder.models.create_options import CHAT_OPTIONS, MESSAGES_OPTIONS, CreateOptions

PAGE = Path(__file__).resolve().parents[1] / "docs" / "like-langchain.md"

#: Names that are there under another one.
ELSEWHERE = {
    "generate_prompt": "`generate` takes messages in any form",
    "agenerate_prompt": "`agenerate` takes messages in any form",
    "map": "`batch`",
    "batch_as_completed": "`batch`, or threads of your own",
    "abatch_as_completed": "`abatch`, or `asyncio.as_completed`",
    "get_name": "the attribute `name`",
    "with_listeners": "`with_config(callbacks=[...])`",
    "with_alisteners": "`with_config(callbacks=[...])`",
    "stream_events": "`astream_events`, and callbacks in synchronous code",
    "openai_proxy": "`http_client`, which has a proxy",
    "anthropic_proxy": "`http_client`, which has a proxy",
    "http_socket_options": "`http_client`, which has the options of its sockets",
    "stream_chunk_timeout": "`timeout`, which counts for each piece of a stream, too",
    "custom_get_token_ids": "`tiktoken_model_name`, or a function of your own",
    "disabled_params": "leave the option out: nothing is sent that you do not pass",
    "cache": "`Replay.model` answers from recordings",
    "rate_limiter": "`max_retries`, `with_retry` and `max_concurrency`",
    "disable_streaming": "`invoke`, or `streaming=False`",
    "include_response_headers": "`recorder.attach` and the hooks of `http_client` see the headers",
    "reuse_last_container": "pass `container=` with its id",
}
_CHAINS = "[chains.md](chains.md): `recorder.chains` has prompts, parsers and functions as steps"
_SCHEMAS = "a description of chains for LangGraph and LangServe"
_SERIAL = "LangChain's form of stored models; recorder stores the request of each run"
_PYDANTIC = "an internal method of LangChain's Pydantic classes"
_CLIENT = "the SDK's clients are made for each event loop, and are not public"
#: Why a name is not there.
REASONS = {
    name: reason
    for reason, names in (
        (_CHAINS, "as_tool assign atransform pick pipe transform"),
        (_SCHEMAS, "InputType OutputType config_schema config_specs get_config_jsonschema get_graph"),
        (
            _SCHEMAS,
            "get_input_jsonschema get_input_schema get_output_jsonschema get_output_schema get_prompts",
        ),
        (_SCHEMAS, "input_schema output_schema with_types"),
        (_SERIAL, "get_lc_namespace is_lc_serializable lc_attributes lc_id lc_secrets to_json"),
        (_SERIAL, "to_json_not_implemented"),
        (_PYDANTIC, "asdict build_extra set_default_max_tokens set_verbose validate_environment"),
        (_PYDANTIC, "validate_temperature"),
        (_CLIENT, "async_client client root_async_client root_client"),
        ("LangChain's older form of `astream_events`", "astream_log"),
        ("choose the model in your own code", "configurable_alternatives"),
        ("`bind` and the options of each call change a request", "configurable_fields"),
        ("Anthropic publishes no vocabulary; `get_num_tokens` asks its API", "get_token_ids"),
        ("the content has one form, which docs/models.md describes", "output_version"),
        ("recorder has no list of what models can do", "profile"),
    )
    for name in names.split()
}


def names_of(model: Any) -> list[str]:
    """Return the public names of a class of LangChain, without those of Pydantic."""
    import pydantic

    return sorted(
        name
        for name in {*dir(model), *model.model_fields}
        if not name.startswith(("_", "model_")) or name in ("model_name", "model_kwargs")
        if not hasattr(pydantic.BaseModel, name)
    )


def kind_in(name: str, model: Any, options: CreateOptions) -> str | None:
    """Return what a name is in a class of ours: a method, an attribute, an argument or an option; None if it is not."""
    found = inspect.getattr_static(model, name, None)
    if callable(found):
        return "method"
    if name in inspect.signature(model.__init__).parameters:
        return "argument"
    if name in options.known:
        return "option"
    return "attribute" if found is not None else None


def rows(theirs: Any, ours: Any, options: CreateOptions) -> Iterator[tuple[str, str, str]]:
    """Yield each name of LangChain's class, what it is in ours or `no`, and the reason if it is not there."""
    for name in names_of(theirs):
        kind = kind_in(name, ours, options)
        reason = "" if kind else ELSEWHERE.get(name) or REASONS.get(name) or ""
        yield name, kind or "no", reason


def tables() -> dict[str, tuple[Any, Any, CreateOptions]]:
    """Return the arguments of `rows` for each table of the page."""
    from langchain_anthropic import ChatAnthropic as TheirAnthropic
    from langchain_openai import ChatOpenAI as TheirOpenAI

    return {
        "ChatOpenAI": (TheirOpenAI, ChatOpenAI, CHAT_OPTIONS),
        "ChatAnthropic": (TheirAnthropic, ChatAnthropic, MESSAGES_OPTIONS),
    }


def table(name: str) -> str:
    """Return the table of one class."""
    lines = [f"| {cell} | {kind} | {reason} |" for cell, kind, reason in rows(*tables()[name])]
    lines = [re.sub(r"^\| (\w+) ", r"| `\1` ", line).replace("|  |", "| |") for line in lines]
    return (
        "\n".join([f"| name in `{name}` | here | in its place, or why not |", "|---|---|---|", *lines]) + "\n"
    )


def replaced(page: str, change: Callable[[str], str] = table) -> str:
    """Return the page with new tables."""
    for name in tables():
        pattern = rf"^\| name in `{name}` .*\n(?:\|.*\n)+"
        page = re.sub(pattern, lambda _, name=name: change(name), page, flags=re.MULTILINE)  # type: ignore[misc]
    return page


if __name__ == "__main__":
    PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
