"""A turn of a short and of a long conversation, by a client that sends a window of the history and new instructions."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from uuid import UUID

from benchmarks import ours
from benchmarks.harness import Measured, Settings, Side, best, compare, values
from benchmarks.peers import expect
from benchmarks.table import Row, each
from recorder.core.ids import new_id
from tests import postgres
from tests.oracle import sql

if TYPE_CHECKING:
    from recorder import ChatHistoryCallback

TITLE = "A turn at turn 20 and at turn 2,000, the last six messages sent along"
KINDS = ("sqlite", "postgres")
#: Messages that are sent along.
_WINDOW = 6
#: Conversations of each length, and the turns of each that are measured in a round.
_CONVERSATIONS, _TURNS, _ROUNDS = 5, 20, 7
_SHORT = 20
#: At most so much more at turn 2,000.
_GOAL = 1.1


def rows(settings: Settings) -> list[Row]:
    """On both databases."""
    arguments = {"long": settings.size(2_000, 200)}
    sides = {
        kind: Side("benchmarks.turns:measured", {"kind": kind, **arguments}, folder=True) for kind in KINDS
    }
    found = compare(sides, settings.rounds)
    return [row for kind in KINDS for row in _rows(kind, found[kind], arguments["long"])]


def _rows(kind: str, found: list[Measured], long: int) -> list[Row]:
    lines = []
    for what, unit in (("us", "us"), ("bytes", "B")):
        short, later = (best(found, f"{length}_{what}") for length in ("short", "long"))
        ratio = later / short
        before, after = (each(values(found, f"{length}_{what}"), ",.0f") for length in ("short", "long"))
        lines += [
            Row(f"a turn at turn {_SHORT}, {kind}", f"{short:,.0f} {unit}", before),
            Row(
                f"a turn at turn {long:,}, {kind}", f"{later:,.0f} {unit}", after, f"{ratio:.2f} x turn {_SHORT}",
                f"at most {_GOAL} x", ratio <= _GOAL,
            ),
        ]  # fmt: skip
    return lines


def measured(kind: str, long: int, folder: str) -> Measured:
    """The shortest time of a turn of several rounds, and the bytes of the rows that a turn stores."""
    url = ours.new_file(folder) if kind == "sqlite" else postgres.new_database()
    history = ours.open_history(url)
    short = [_Client(f"short {number}") for number in range(_CONVERSATIONS)]
    later = [_Client(f"long {number}") for number in range(_CONVERSATIONS)]
    _prepare(history, short, _SHORT)
    _prepare(history, later, long)
    times: dict[str, list[float]] = {"short": [], "long": []}
    for _ in range(_ROUNDS):
        for name, clients in (("short", short), ("long", later)):
            times[name].append(_say(history, clients, _TURNS))
    history.close().wait()
    [(stored,)] = sql(url, "SELECT count(*) FROM messages")
    expect(stored, 2 * sum(client.turns for client in (*short, *later)))
    found = {f"{name}_us": 1e6 * min(seconds) / (_CONVERSATIONS * _TURNS) for name, seconds in times.items()}
    found |= {f"{name}_bytes": _bytes_of_turn(url, name) for name in times}
    if kind == "postgres":
        postgres.drop(url)
    return found


def _prepare(history: ChatHistoryCallback, clients: list[_Client], turns: int) -> None:
    for _ in range(turns):
        for client in clients:
            client.say(history)
    history.flush().wait()


def _say(history: ChatHistoryCallback, clients: list[_Client], turns: int) -> float:
    """So many turns of each client, until they are committed (seconds). A client asks when its answer is stored."""
    began = time.perf_counter()
    for _ in range(turns):
        for client in clients:
            client.say(history)
        history.flush().wait()
    return time.perf_counter() - began


class _Client:
    """An application with one conversation."""

    def __init__(self, conversation_id: str) -> None:
        self._metadata = {"conversation_id": conversation_id}
        self._window: list[Any] = []
        self.turns = 0

    def say(self, history: ChatHistoryCallback) -> None:
        """A question and its answer."""
        from recorder.messages import AIMessage, ChatGeneration, HumanMessage, LLMResult, SystemMessage

        self.turns += 1
        question, answer = (
            HumanMessage(f"Question {self.turns:05}?"),
            AIMessage(f"Answer {self.turns:05}. " * 20),
        )
        run_id = UUID(new_id())
        instructions = SystemMessage(f"It is {self.turns:05}.")
        sent = [instructions, *self._window[-_WINDOW:], question]
        history.on_chat_model_start({}, [sent], run_id=run_id, metadata=self._metadata)
        history.on_llm_end(LLMResult([[ChatGeneration(answer)]]), run_id=run_id)
        self._window = [*self._window[-_WINDOW:], question, answer]


def _bytes_of_turn(url: str, name: str) -> float:
    """Characters of all columns of the rows that the last turns of these conversations stored, for one turn."""
    total = 0
    for number in range(_CONVERSATIONS):
        here = f"conversation_id = '{name} {number}'"
        for table, time_of, count in (
            ("runs", "started_at", 1),
            ("messages", "created_at", 2),
            ("context_messages", "created_at", 1),
        ):
            query = f"SELECT * FROM {table} WHERE {here} ORDER BY {time_of} DESC LIMIT {count * _TURNS}"
            total += sum(len(str(value)) for row in sql(url, query) for value in row if value is not None)
    return total / (_CONVERSATIONS * _TURNS)
