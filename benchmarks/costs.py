"""What costs and estimates add: to sealing a run, once to a process, and to the application's thread."""

from __future__ import annotations

import threading
import time
import uuid
from typing import Any

from benchmarks.harness import Measured, Settings, Side, best, compare, values
from benchmarks.peers import expect
from benchmarks.table import Row, each

TITLE = "Costs and estimates (microseconds of processor time)"
_USAGE = {
    "prompt_tokens": 1_200,
    "completion_tokens": 300,
    "total_tokens": 1_500,
    "prompt_tokens_details": {"cached_tokens": 1_024},
}
_PARAGRAPH = "Where is my order? I have been waiting for it since Monday, and nobody answers. "


def rows(settings: Settings) -> list[Row]:
    """The writer's work for each run, and the thread that counts."""
    runs = settings.size(5_000, 500)
    sides = {
        "with": Side("benchmarks.costs:sealed", {"runs": runs, "model": "gpt-4o"}, folder=True),
        "unknown": Side("benchmarks.costs:sealed", {"runs": runs, "model": "a-model-of-nobody"}, folder=True),
        "without": Side("benchmarks.costs:sealed", {"runs": runs, "model": ""}, folder=True),
        "import": Side("benchmarks.costs:imported", {}),
        "rule": Side("benchmarks.costs:counted", {"megabytes": settings.size(20, 2)}),
        "silent": Side("benchmarks.costs:sealed", {"runs": runs, "model": "", "silent": True}, folder=True),
        "threads": Side("benchmarks.costs:threads", {"runs": settings.size(400, 40)}, folder=True),
    }
    found = compare(sides, settings.rounds)
    without = best(found["without"], "microseconds")
    return [
        *_sealed(found, without),
        _row("the first price of a process: the import of genai-prices (ms)", found["import"], "ms", ",.0f"),
        _row("a megabyte by the rule of thumb", found["rule"], "microseconds", ",.0f"),
        Row(
            "estimates that were made on the application's thread",
            f"{max(values(found['threads'], 'here')):,.0f}",
            each(values(found["threads"], "here"), ",.0f"),
            target="0",
            met=max(values(found["threads"], "here")) == 0,
        ),
    ]


def _sealed(found: dict[str, list[Measured]], without: float) -> list[Row]:
    names = {
        "without": "a run of one token, from its start to its commit, without a model's name",
        "with": "the same of a model with a price",
        "unknown": "the same of a model without one",
        "silent": "a run whose usage is not reported, and estimated by the rule of thumb",
    }
    return [
        _row(
            what,
            found[key],
            "microseconds",
            ",.0f",
            f"{best(found[key], 'microseconds') - without:+,.0f} us" if key != "without" else "",
        )
        for key, what in names.items()
    ]


def _row(what: str, found: list[Measured], name: str, form: str, ratio: str = "") -> Row:
    return Row(what, format(best(found, name), form), each(values(found, name), form), ratio)


def sealed(runs: int, model: str, folder: str, silent: bool = False) -> Measured:
    """Record runs with a reported usage, or without, all in the queue before the writer commits them."""
    from recorder import ChatHistoryCallback
    from tests.oracle import result

    output = {} if silent else {"token_usage": _USAGE}
    metadata = {"ls_provider": "openai", "ls_model_name": model} if model else {}
    with ChatHistoryCallback(f"sqlite:///{folder}/a.db") as history:
        _record(history, metadata, result("Hello", output=output))  # imports the list of prices
        history.flush().wait(60)
        began = time.process_time()
        for _ in range(runs):
            _record(history, metadata, result("Hello", output=output))
        history.flush().wait(60)
        taken_time = time.process_time() - began
    return {"microseconds": taken_time / runs * 1e6}


def _record(history: Any, metadata: dict[str, str], end: Any) -> None:
    run_id = uuid.uuid4()
    history.on_chat_model_start({}, [["Hi"]], run_id=run_id, metadata=metadata)
    history.on_llm_new_token("Hello", run_id=run_id)
    history.on_llm_end(end, run_id=run_id)


def imported() -> Measured:
    """Find the first price. `openai` is imported before, as in an application; pydantic and httpx2 come with it."""
    import openai  # noqa: F401

    from recorder.core.clock import now
    from recorder.costs import price_list

    began = time.process_time()
    provider = price_list.provider_of("openai", None)
    price_list.price_of(provider or "", "gpt-4o", now(), input_tokens=1)
    return {"ms": (time.process_time() - began) * 1e3}


def counted(megabytes: int) -> Measured:
    """Count English text, half of it with a character that is not ASCII."""
    from recorder.costs.token_counts import rule_of_thumb

    plain = _PARAGRAPH * (2**20 // len(_PARAGRAPH))
    texts = [plain, plain + "é"] * (megabytes // 2)
    began = time.process_time()
    for text in texts:
        rule_of_thumb(text)
    return {"microseconds": (time.process_time() - began) / megabytes * 1e6}


def threads(runs: int, folder: str) -> Measured:
    """Record runs without a usage; how many of them are estimated on the thread of the application."""
    from recorder import ChatHistoryCallback
    from recorder.costs.sealed_estimates import SealedEstimates
    from tests.oracle import result

    names: list[str] = []
    set_usage = SealedEstimates.set_usage

    def noted(estimates: SealedEstimates, parts: Any) -> None:
        names.extend(threading.current_thread().name for each in parts if each.seal is not None)
        set_usage(estimates, parts)

    SealedEstimates.set_usage = noted  # type: ignore[method-assign]
    with ChatHistoryCallback(f"sqlite:///{folder}/a.db") as history:
        for _ in range(runs):
            _record(history, {}, result("Hello"))
        history.flush().wait(60)
        expect(history.stats().estimated_runs, runs)
    return {"here": names.count(threading.main_thread().name)}
