"""`ChatPromptTemplate` and its parts: messages with variables, and a place for a list of messages."""

from __future__ import annotations

from typing import Any

import pytest

from recorder.chains import (
    AIMessagePromptTemplate,
    ChatPromptTemplate,
    HumanMessagePromptTemplate,
    MessagesPlaceholder,
    PromptTemplate,
    SystemMessagePromptTemplate,
)
from recorder.errors import ConfigError
from recorder.messages import AIMessage, HumanMessage, SystemMessage

PAST = [HumanMessage("Hi"), AIMessage("Hello")]


def test_each_form_of_a_message_is_read() -> None:
    """Texts, pairs, dicts, messages, message classes and templates of messages."""
    prompt = ChatPromptTemplate.from_messages(
        [
            ("system", "You are {name}."),
            SystemMessage("{no variable}"),
            MessagesPlaceholder("past"),
            ("ai", "Ready, {name}."),
            {"role": "user", "content": "{a}"},
            (HumanMessage, "{a}"),
            (HumanMessagePromptTemplate, "{a}"),
            AIMessagePromptTemplate.from_template("{b}"),
            SystemMessagePromptTemplate(PromptTemplate.from_template("{b}", partial_variables={"b": "B"})),
            ("placeholder", "{more}"),
            "{b}!",
        ]
    )
    assert prompt.input_variables == ["a", "b", "name", "past"]
    assert prompt.format_messages(a="A", b="b", name="Bob", past=PAST) == [
        SystemMessage("You are Bob."),
        SystemMessage("{no variable}"),
        *PAST,
        AIMessage("Ready, Bob."),
        *[HumanMessage("A")] * 3,
        AIMessage("b"),
        SystemMessage("b"),
        HumanMessage("b!"),
    ]


def test_a_prompt_grows() -> None:
    """`append`, `extend` and `+` add messages, and their variables."""
    prompt = ChatPromptTemplate.from_template("{a}")
    prompt.append(("ai", "{b}"))
    prompt.extend(["{c}"])
    longer = prompt + ("system", "{d}") + ChatPromptTemplate(["{e}"]) + "f"
    assert (prompt.input_variables, longer.input_variables) == (["a", "b", "c"], ["a", "b", "c", "d", "e"])
    assert (len(longer), longer[0].input_variables) == (6, ["a"])
    known = longer.partial(a=1, b=2, c=3, d=4)
    assert known.invoke("E").to_string() == "Human: 1\nAI: 2\nHuman: 3\nSystem: 4\nHuman: E\nHuman: f"


def test_a_placeholder_is_optional_or_bounded() -> None:
    """An optional list may be missing; `n_messages` takes the last ones; an empty history is no message."""
    assert ChatPromptTemplate([MessagesPlaceholder("past", optional=True)]).format_messages() == []
    assert ChatPromptTemplate([MessagesPlaceholder("past")]).format_messages(past=[]) == []
    bounded = ChatPromptTemplate([MessagesPlaceholder("past", n_messages=1)])
    assert bounded.format_messages(past=[("human", "a"), {"role": "assistant", "content": "b"}]) == [
        AIMessage("b")
    ]


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: ChatPromptTemplate("text"), "takes a list of messages, not str"),
        (lambda: ChatPromptTemplate([3]), "cannot read a message"),
        (lambda: ChatPromptTemplate([("human", "{a.b}")]), "attributes, indexes"),
        (lambda: ChatPromptTemplate([("placeholder", "past")]), "is no variable"),
        (lambda: MessagesPlaceholder("past", n_messages=0), "n_messages is 0"),
        (lambda: ChatPromptTemplate([MessagesPlaceholder("past")]).invoke({}), "lacks a value for 'past'"),
        (lambda: ChatPromptTemplate([MessagesPlaceholder("past")]).invoke("text"), "past is a place for a list"),
        (lambda: ChatPromptTemplate(["{a}"], template_format="mustache"), "'f-string' only"),
    ],
    ids=["text", "number", "attribute", "placeholder", "n_messages", "missing", "no list", "mustache"],
)  # fmt: skip
def test_bad_use_is_a_clear_error(make: Any, error: str) -> None:
    """Each error says what was passed and what to pass."""
    with pytest.raises(ConfigError, match=error):
        make()
