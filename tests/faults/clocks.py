"""The wall clock jumps back and forth while a conversation goes on, but its order and durations stay right."""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo

import pytest

import recorder.core.clock
from recorder.chat_history_callback import ChatHistoryCallback
from recorder.replay import Replay
from tests.faults.campaign import Fault, Round
from tests.faults.models import Numbered, config_of, question
from tests.faults.producer import isolated
from tests.oracle import Acknowledged, Verdict, judge, sql

_TOKENS = 5


def plain(number: int, seq: int) -> str:
    """The text of a token, which is easy to read where turns are out of order."""
    return f"{number % 100}.{seq} "


class Jumping(datetime):
    """A fake for `datetime` whose clock is off by `shift`."""

    shift = timedelta()

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Jumping:
        moment = datetime.now(tz) + cls.shift
        return cls.fromtimestamp(moment.timestamp(), tz)


def jump(at: Round) -> Verdict:
    """Each turn of a conversation has another clock; the conversation is read and played in order."""
    numbers = [at.number(place) for place in range(at.chance.randrange(2, 6))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorder.core.clock, "datetime", Jumping)
        with ChatHistoryCallback(at.url, conversation_id="c") as history:
            model = Numbered(tokens=_TOKENS, text=plain, callbacks=[history])
            for number in numbers:
                for _ in model.stream(question(number), config=config_of(number)):
                    Jumping.shift = timedelta(seconds=at.chance.choice([-86_400, -3_600, -1, 0, 1, 3_600]))
                history.flush().wait(20)
        Jumping.shift = timedelta()
    verdict = judge(at.url, {number: Acknowledged(_TOKENS, "complete") for number in numbers}, text=plain)
    answers = ["".join(plain(number, seq) for seq in range(_TOKENS)) for number in numbers]
    expected = [text for pair in zip(map(question, numbers), answers, strict=True) for text in pair]
    with Replay(at.url) as replay:
        read = [message.content for message in replay.messages("c")]
        played = "".join(str(chunk.content) for chunk in replay.stream("c", speed=None))
    for name, found, wanted in (("messages", read, expected), ("stream", played, "".join(answers))):
        if found != wanted:
            verdict.breaches.append(f"Replay.{name} gives {found!r} and not {wanted!r}")
    if negative := sql(
        at.url, "SELECT run_id FROM run_stats WHERE time_to_first_token_ms < 0 OR duration_ms < 0"
    ):
        verdict.breaches.append(f"negative durations: {negative}")
    return verdict


FAULTS = [Fault("clock", "the clock jumps back and forth", isolated(jump))]
