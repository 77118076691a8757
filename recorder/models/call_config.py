"""What callers pass to a chat model, sorted out, and the results of several runs put together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import uuid_utils.compat

from recorder.errors import ConfigError
from recorder.messages import BaseMessage, Generation, HumanMessage, LLMResult, messages_from
from recorder.redaction.credentials import is_secret


def config_per_input(config: Any, count: int) -> list[dict[str, Any]]:
    """One config an input: a list of them, or the same for all, where a `run_id` can only be the first's."""
    if isinstance(config, (list, tuple)):
        if len(config) != count:
            raise ConfigError(f"{len(config)} configs came for {count} inputs; pass one, or one for each")
        return [dict(each or {}) for each in config]
    shared = dict(config or {})
    first = dict(shared)
    shared.pop("run_id", None)
    return [first, *([shared] * (count - 1))][:count]


def returning_errors(work: Callable[..., Any]) -> Callable[..., Any]:
    """The same work, with its error as the result in place of raising it."""

    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return work(*args, **kwargs)
        except Exception as error:
            return error

    return run


async def gather_all(
    work: Iterable[Coroutine[Any, Any, Any]], *, return_exceptions: bool = False
) -> list[Any]:
    """The results in order. After an error the others are cancelled, for nobody will see their results."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return await asyncio.gather(*tasks, return_exceptions=return_exceptions)
    finally:
        left = [task for task in tasks if not task.done()]
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)


def readable_messages(input: Any) -> list[BaseMessage]:
    """The messages of an input of which not all can be read; what cannot be is text."""
    found: list[BaseMessage] = []
    for item in input if isinstance(input, (list, tuple)) else [input]:
        try:
            found += messages_from(item)
        except Exception:
            found.append(HumanMessage(repr(item)))
    return found


def merge_tags(*tags: Iterable[str] | None) -> list[str]:
    """All tags in order, each once."""
    return list(dict.fromkeys(tag for some in tags for tag in some or ()))


def metadata_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata, and the plain values of `configurable`: there LangGraph and its users have the thread's id."""
    plain = {
        key: value
        for key, value in (config.get("configurable") or {}).items()
        if isinstance(value, (str, int, float)) and not key.startswith("__") and not is_secret(key, value)
    }
    return {**plain, **(config.get("metadata") or {})}


def secrets_of(config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Names and values that `metadata_of` leaves out of `configurable`, for they are credentials."""
    return [each for each in (config.get("configurable") or {}).items() if is_secret(*each)]


def parent_of(config: Mapping[str, Any]) -> Any:
    """The run that this one belongs to; LangChain's callback managers know theirs."""
    parent = config.get("parent_run_id") or getattr(config.get("callbacks"), "parent_run_id", None)
    return run_id_of(parent) if parent is not None else None


def run_id_of(given: Any) -> UUID:
    """The caller's run id, or a new one. Raises `ConfigError` for what is no UUID."""
    if given is None:
        return uuid_utils.compat.uuid7()
    try:
        return given if isinstance(given, UUID) else UUID(str(given))
    except ValueError as error:
        raise ConfigError(f"run_id {given!r} is no UUID; pass uuid.uuid4(), or leave it out") from error


def combine_results(results: Sequence[LLMResult]) -> LLMResult:
    """One result of several runs, with their token counts added up."""
    generations: list[list[Generation]] = [choices for result in results for choices in result.generations]
    outputs = [result.llm_output or {} for result in results]
    output: dict[str, Any] = dict(outputs[0]) if len(outputs) == 1 else {}
    output["token_usage"] = _added([each.get("token_usage") or {} for each in outputs])
    output["model_name"] = next((each["model_name"] for each in outputs if each.get("model_name")), None)
    return LLMResult(generations, output, run=[info for result in results for info in result.run or ()])


def _added(usages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    total: dict[str, Any] = {}
    for usage in usages:
        for key, value in usage.items():
            if isinstance(value, Mapping):
                total[key] = _added([total.get(key) or {}, value])
            elif isinstance(value, (int, float)) and not isinstance(value, bool):
                total[key] = total.get(key, 0) + value
            else:
                total.setdefault(key, value)
    return total
