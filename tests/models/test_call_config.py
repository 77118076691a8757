"""The `config` and the input of a call are parsed, and the results of several runs are combined."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

from recorder.errors import ConfigError
from recorder.messages import AIMessage, ChatGeneration, LLMResult, RunInfo
from recorder.models.call_config import (
    combine_results,
    config_per_input,
    gather_all,
    merge_tags,
    metadata_of,
    parent_of,
    returning_errors,
    run_id_of,
)
from recorder.wire.request_hash import input_hash


def test_each_input_gets_a_config() -> None:
    """One config is used for all inputs, or each has its own; a shared run id belongs to the first input."""
    assert config_per_input(None, 2) == [{}, {}]
    assert config_per_input({"tags": ["t"], "run_id": 1}, 3) == [
        {"tags": ["t"], "run_id": 1},
        {"tags": ["t"]},
        {"tags": ["t"]},
    ]
    assert config_per_input([{"tags": ["a"]}, None], 2) == [{"tags": ["a"]}, {}]
    assert config_per_input({"tags": ["t"]}, 0) == []


def test_configs_do_not_share_a_dict_with_the_caller() -> None:
    """Changing a returned config does not change the caller's."""
    mine: dict[str, Any] = {"tags": ["t"]}
    config_per_input(mine, 1)[0]["more"] = 1
    assert mine == {"tags": ["t"]}


def test_too_few_configs_are_refused() -> None:
    """The error names both numbers."""
    with pytest.raises(ConfigError, match="got 1 configs for 2 inputs"):
        config_per_input([{}], 2)


def test_an_error_is_returned_instead_of_raised() -> None:
    """`returning_errors` returns exceptions, but raises `KeyboardInterrupt` and the like."""

    def work(error: BaseException | None) -> str:
        if error:
            raise error
        return "done"

    failure = ValueError("no")
    assert returning_errors(work)(None) == "done"
    assert returning_errors(work)(failure) is failure
    with pytest.raises(KeyboardInterrupt):
        returning_errors(work)(KeyboardInterrupt())


def test_a_run_id_may_be_a_uuid_or_its_text() -> None:
    """Without one, a new id that sorts by time is made; other text is refused."""
    given = uuid4()
    assert run_id_of(given) is given
    assert run_id_of(str(given)) == given
    first, second = run_id_of(None), run_id_of(None)
    assert isinstance(first, UUID)
    assert first < second
    with pytest.raises(ConfigError, match="'7' is not a UUID"):
        run_id_of("7")


def test_the_input_hash_depends_on_the_request_only() -> None:
    """`stream`, timeouts, headers and the order of keys do not change it, and lone surrogates are allowed."""
    body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "\ud83d é"}]}
    same = {
        "stream": True,
        "messages": body["messages"],
        "timeout": 3,
        "model": "m",
        "extra_headers": {"a": "b"},
    }
    assert input_hash(body) == input_hash(same)
    assert input_hash(body) != input_hash({**body, "seed": 1})
    assert len(input_hash(body)) == 64


def result(text: str, **usage: Any) -> LLMResult:
    """Return the result of one run."""
    output = {"token_usage": usage, "model_name": "m", "id": text}
    return LLMResult([[ChatGeneration(AIMessage(text))]], output, run=[RunInfo(text)])


def test_results_are_combined() -> None:
    """Counts are added at any depth; other keys remain only if there is one result."""
    one = result("a", total_tokens=1, details={"cached": 1}, note="x", none=None)
    two = result("b", total_tokens=2, details={"cached": 2}, ok=True)
    both = combine_results([one, two])
    assert [choices[0].text for choices in both.generations] == ["a", "b"]
    assert both.llm_output == {
        "token_usage": {"total_tokens": 3, "details": {"cached": 3}, "note": "x", "none": None, "ok": True},
        "model_name": "m",
    }
    assert both.run == [RunInfo("a"), RunInfo("b")]
    assert combine_results([one]).llm_output == {**(one.llm_output or {})}
    assert combine_results([]).generations == []


def test_tags_are_merged_without_duplicates() -> None:
    """The order of the arguments is kept."""
    assert merge_tags(["b", "a"], None, ["a", "c"]) == ["b", "a", "c"]


def test_scalars_of_configurable_become_metadata() -> None:
    """LangGraph puts the thread id there; explicit metadata override it."""
    config = {
        "configurable": {"thread_id": "t", "session_id": 7, "__pregel": "x", "client": object(), "n": 1},
        "metadata": {"n": 2},
    }
    assert metadata_of(config) == {"thread_id": "t", "session_id": 7, "n": 2}
    assert metadata_of({"configurable": None, "metadata": None}) == {}


def test_the_parent_run_comes_from_the_config_or_the_callback_manager() -> None:
    """`parent_run_id` in the config overrides that of LangChain's callback manager."""

    class Manager:
        parent_run_id = uuid4()

    given = uuid4()
    assert parent_of({}) is None
    assert parent_of({"callbacks": []}) is None
    assert parent_of({"callbacks": Manager()}) == Manager.parent_run_id
    assert parent_of({"callbacks": Manager(), "parent_run_id": str(given)}) == given


def test_coroutines_are_gathered_in_order() -> None:
    """Results have the order of the coroutines; after an error the others are cancelled."""
    ended: list[str] = []

    async def work(name: str, *, waits: bool = False, fails: bool = False) -> str:
        try:
            await (asyncio.Event().wait() if waits else asyncio.sleep(0))
            if fails:
                raise ValueError(name)
            return name
        finally:
            ended.append(name)

    async def main() -> None:
        assert await gather_all([work("a"), work("b")]) == ["a", "b"]
        first, second = await gather_all([work("c", fails=True), work("d")], return_exceptions=True)
        assert (str(first), second) == ("c", "d")
        with pytest.raises(ValueError, match="f"):
            await gather_all([work("e", waits=True), work("f", fails=True)])
        assert ended == ["a", "b", "c", "d", "f", "e"]

    asyncio.run(main())
