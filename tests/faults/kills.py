"""SIGKILL while runs stream: acknowledged tokens are stored, later ones are a prefix, and a new recorder goes on."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from recorder.chat_history_callback import ChatHistoryCallback
from tests.faults.campaign import POSTGRES, SQLITE, Fault, Round, place
from tests.faults.producer import Speaker, child, note, turns
from tests.oracle import Verdict, judge


def stream(report: Callable[[str], Any], url: str, first: int, seed: str) -> None:
    """Record until the process is killed."""
    chance = random.Random(seed)
    interval = chance.choice([0, 0.001, 0.01])
    speaker = Speaker(ChatHistoryCallback(url, flush_interval=interval), first, report)
    for _ in turns(speaker, chance):
        speaker.acknowledge()


def recover(url: str) -> None:
    """Open the next recorder, which marks the runs of dead processes as `interrupted`."""
    with ChatHistoryCallback(url) as history:
        for turn in range(2):  # the sweep comes between the two commits
            history.add_messages(f"turn {turn}", conversation_id="recovery")
            history.flush().wait(30)


def kill_repeatedly(at: Round) -> Verdict:
    """Three to six processes record one after another and are killed, some before they recorded anything."""
    for generation in range(at.chance.randrange(3, 7)):
        with child(stream, at.url, at.number(1000 * generation), f"{at.seed} {generation}") as victim:
            if at.chance.random() < 0.9:
                victim.read_until_reported()
            victim.read(at.chance.uniform(0, 0.3))
            victim.kill()
            note(at.ledger, victim.report)
    recover(at.url)
    return judge(at.url, at.ledger)


def kill_one_of_many(at: Round) -> Verdict:
    """Two to four processes record into one database at once, and are killed one after another."""
    places = range(at.chance.randrange(2, 5))
    with ExitStack() as stack:
        victims = [
            stack.enter_context(child(stream, at.url, at.number(10_000 * place), f"{at.seed} {place}"))
            for place in places
        ]
        for victim in victims:
            victim.read_until_reported()
        for victim in victims:
            victim.read(at.chance.uniform(0, 0.2))
            victim.kill()
            note(at.ledger, victim.report)
    recover(at.url)
    return judge(at.url, at.ledger)


def kill_while_made(at: Round) -> Verdict:
    """The database is empty, and processes are killed while they make its tables; the next recorder works."""
    database = SQLITE if at.is_sqlite else POSTGRES
    with place(database, empty=True) as (url, _):
        for generation in range(at.chance.randrange(2, 6)):
            with child(stream, url, at.number(1000 * generation), f"{at.seed} {generation}") as victim:
                victim.read(at.chance.uniform(0, 1))
                victim.kill()
                note(at.ledger, victim.report)
        recover(url)
        return judge(url, at.ledger)


FAULTS = [
    Fault("kill", "SIGKILL while streaming, restarted", kill_repeatedly),
    Fault("many", "SIGKILL of one of several processes", kill_one_of_many),
    Fault("make", "SIGKILL while the tables are made", kill_while_made),
]
