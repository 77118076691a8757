"""Conversations that the page is looked at with: tools, reasoning, branches, failed runs, several scripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.cli.demo import no_proxy
from recorder.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from recorder.models import ChatOpenAI
from recorder.testing import Answer, LoopbackProvider, openai_chat_frames, pieces_of, scripted, song_pieces

MODEL = "gpt-5.4-mini"
_SUPPORT = SystemMessage("You help customers of a shop for sparkling water. Be short and friendly.")
_REASONING = (
    "The customer wants the money back for order 1042. "
    "I need the order's date and state before I can say anything."
)
_REFUND = (
    "I found your order: two crates of sparkling water, delivered on 3 November, one of them with broken bottles.\n\n"
    "Because it arrived damaged, you get the full refund of $24.00. It is on its way to your card and takes three to "
    "five days. You need not send anything back."
)


def record_examples(history: ChatHistoryCallback) -> None:
    """Record them all, the one to be looked at first as the newest."""
    with no_proxy():
        _failed(history)
        _scripts(history)
        _branches(history)
        _song(history)
        _support(history)
    history.flush().wait(30)


def ask(history: ChatHistoryCallback, messages: Sequence[Any], *answers: Answer | str, **config: Any) -> Any:
    """Record a call of a model that answers with these, one after the other, and return its message."""
    with LoopbackProvider(scripted(*answers)) as provider:
        model = ChatOpenAI(
            model=MODEL, base_url=provider.base_url, api_key="any", streaming=True, callbacks=[history],
            max_retries=0,
        )  # fmt: skip
        return model.invoke(list(messages), config=config)


def answer(text: str, *, interval: float = 0.004, **fields: Any) -> Answer:
    """An answer that is streamed token by token."""
    return Answer(
        frames=openai_chat_frames(pieces_of(text), model=MODEL, **fields), delay=0.05, interval=interval
    )


def _support(history: ChatHistoryCallback) -> None:
    """Record reasoning, a call of a tool, its result and the answer."""
    question = HumanMessage("Half of the bottles of order 1042 arrived broken. Can I get a refund?")
    call = {"id": "call_7", "name": "find_order", "arguments": '{"order": 1042, "with_items": true}'}
    with history.conversation(
        "support-1042", "anna", title="Refund for order 1042", tags=["refund", "vip"],
        metadata={"channel": "web", "plan": "pro"},
    ):  # fmt: skip
        first = ask(
            history, [_SUPPORT, question], answer("", reasoning=pieces_of(_REASONING), tool_calls=[call])
        )
        found = ToolMessage(
            '{"order": 1042, "items": "2 crates", "total": 24.0, "damage": "7 of 24 bottles"}',
            tool_call_id="call_7",
        )
        last = ask(history, [_SUPPORT, question, first, found], answer(_REFUND))
    history.add_annotation(last.id.removeprefix("run-"), "sentiment", label="positive", score=0.72)


def _song(history: ChatHistoryCallback) -> None:
    """Record a long answer."""
    question = HumanMessage("Write me a song about sparkling water.")
    with history.conversation("song", "boris"):
        ask(history, [question], answer("".join(song_pieces()), interval=0.002))


def _branches(history: ChatHistoryCallback) -> None:
    """Record two answers to one question, and a question behind the second one."""
    question = HumanMessage("Name our new lemon water in one word.")
    with history.conversation("naming", "carla", title="A name for the lemon water"):
        ask(history, [question], answer("Zest."))
        reply = ask(history, [question], answer("Citronade."))
        ask(
            history, [question, AIMessage(reply.text), HumanMessage("Why?")], answer("It sounds like summer.")
        )


def _scripts(history: ChatHistoryCallback) -> None:
    """Record text from right to left, and in Chinese and Japanese."""
    with history.conversation("multilingual", "dalia", title="كم سعر المياه الغازية؟"):
        first = HumanMessage("كم سعر صندوق المياه الغازية؟")
        reply = ask(history, [first], answer("سعر الصندوق ١٢ دولارًا، والتوصيل مجاني."))
        second = HumanMessage("气泡水多少钱一箱?")
        ask(
            history,
            [first, AIMessage(reply.text), second],
            answer("一箱十二美元,免运费。炭酸水は一箱12ドルです。"),
        )


def _failed(history: ChatHistoryCallback) -> None:
    """Record a call that the provider refuses, one that is cut in the middle, and one that succeeds."""
    question = HumanMessage("Is the water from the spring carbonated by nature?")
    cut = Answer(frames=openai_chat_frames(pieces_of("Yes, the spring is carbo"), model=MODEL), cut_after=6)
    with history.conversation("retries", "anna"):
        for each in (Answer.error(429), cut):
            try:
                ask(history, [question], each)
            except Exception as error:
                print(f"recorded as failed: {type(error).__name__}")
        ask(history, [question], answer("Yes. Carbon dioxide from deep rock is dissolved in it."))
