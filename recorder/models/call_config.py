"""Reads the `config` and the input of a call, and combines the results of several runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import uuid_utils.compat

from recorder.callbacks import handlers_from
from recorder.errors import ConfigError
from recorder.messages import Generation, LLMResult
from recorder.redaction.credentials import is_secret

#: The keys of a config whose values are added to those of another one.
_ADDED_UP = ("callbacks", "tags", "metadata", "configurable")


def config_per_input(config: Any, count: int) -> list[dict[str, Any]]:
    """A config for each input, from a list of configs or from one for all. A shared `run_id` is the first input's."""
    if isinstance(config, (list, tuple)):
        if len(config) != count:
            raise ConfigError(
                f"got {len(config)} configs for {count} inputs; pass one, or one for each input"
            )
        return [dict(each or {}) for each in config]
    shared = dict(config or {})
    first = dict(shared)
    shared.pop("run_id", None)
    return [first, *([shared] * (count - 1))][:count]


def merge_configs(base: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a call: `given` merged into `base`. Callbacks and tags are added; other keys override."""
    merged = {**base, **{key: value for key, value in given.items() if value is not None}}
    for key in _ADDED_UP:
        if base.get(key) and not given.get(key):  # an empty list adds nothing, and removes nothing
            merged[key] = base[key]
    for key in ("metadata", "configurable"):
        if base.get(key) and given.get(key):
            merged[key] = {**base[key], **given[key]}
    if base.get("tags") and given.get("tags"):
        merged["tags"] = merge_tags(base["tags"], given["tags"])
    if base.get("callbacks") and given.get("callbacks"):
        merged["callbacks"] = [*handlers_from(base["callbacks"]), *handlers_from(given["callbacks"])]
        if (parent := parent_of(given)) is not None:  # a manager of callbacks names the parent
            merged["parent_run_id"] = parent
    return merged


def returning_errors(work: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, but it returns its error instead of raising it."""

    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return work(*args, **kwargs)
        except Exception as error:
            return error

    return run


async def gather_all(
    work: Iterable[Coroutine[Any, Any, Any]], *, return_exceptions: bool = False
) -> list[Any]:
    """The results in order. After an error the other coroutines are cancelled, because their results are not used."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return await asyncio.gather(*tasks, return_exceptions=return_exceptions)
    finally:
        unfinished = [task for task in tasks if not task.done()]
        for task in unfinished:
            task.cancel()
        if unfinished:
            await asyncio.wait(unfinished)


def merge_tags(*tags: Iterable[str] | None) -> list[str]:
    """All tags in order, without duplicates."""
    return list(dict.fromkeys(tag for each in tags for tag in each or ()))


def metadata_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata and the scalar values of `configurable`, where LangGraph has the thread's id. No credentials."""
    plain = {
        key: value
        for key, value in (config.get("configurable") or {}).items()
        if isinstance(value, (str, int, float)) and not key.startswith("__") and not is_secret(key, value)
    }
    return {**plain, **(config.get("metadata") or {})}


def secrets_of(config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Names and values of the credentials in `configurable`, which `metadata_of` leaves out."""
    return [each for each in (config.get("configurable") or {}).items() if is_secret(*each)]


def parent_of(config: Mapping[str, Any]) -> Any:
    """The id of the parent run: `parent_run_id`, or that of LangChain's callback manager. None without a parent."""
    parent = config.get("parent_run_id") or getattr(config.get("callbacks"), "parent_run_id", None)
    return run_id_of(parent) if parent is not None else None


def run_id_of(given: Any) -> UUID:
    """The caller's run id, or a new one. Raises `ConfigError` if it is not a UUID."""
    if given is None:
        return uuid_utils.compat.uuid7()
    try:
        return given if isinstance(given, UUID) else UUID(str(given))
    except ValueError as error:
        raise ConfigError(f"run_id {given!r} is not a UUID; pass uuid.uuid4(), or leave it out") from error


def combine_results(results: Sequence[LLMResult]) -> LLMResult:
    """One result of several runs, with the sum of their usages."""
    generations: list[list[Generation]] = [choices for result in results for choices in result.generations]
    outputs = [result.llm_output or {} for result in results]
    output: dict[str, Any] = dict(outputs[0]) if len(outputs) == 1 else {}
    output["token_usage"] = _sum_of([each.get("token_usage") or {} for each in outputs])
    output["model_name"] = next((each["model_name"] for each in outputs if each.get("model_name")), None)
    return LLMResult(generations, output, run=[info for result in results for info in result.run or ()])


def _sum_of(usages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    total: dict[str, Any] = {}
    for usage in usages:
        for key, value in usage.items():
            if isinstance(value, Mapping):
                total[key] = _sum_of([total.get(key) or {}, value])
            elif isinstance(value, (int, float)) and not isinstance(value, bool):
                total[key] = total.get(key, 0) + value
            else:
                total.setdefault(key, value)
    return total
