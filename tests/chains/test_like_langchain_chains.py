"""Prompts, chains and their events are those of LangChain's classes over the same provider.

The comparisons leave out these intended differences. LangChain's `LLMChain` streams its result as one dict, ours as
pieces. A chain's callbacks get the events of its model. Prompts and parsers make events, but no calls of handlers.
`ConversationChain` sends the history as messages, after LangChain's instructions, and the result has it as a list.
"""

from __future__ import annotations

import asyncio
import json
import warnings
from typing import Any

import pytest

from recorder import chains
from recorder.chains import ChatPromptTemplate, LLMChain, MessagesPlaceholder, PromptTemplate, StrOutputParser
from recorder.chains.conversation_chain import DEFAULT_INSTRUCTIONS
from recorder.testing import Answer, LoopbackProvider, openai_chat_body, openai_chat_frames
from tests.chatting import CALL_STYLES, PLAIN, CallStyle, name_of
from tests.models.test_like_langchain import VERSIONS, ours, theirs

core_prompts: Any = pytest.importorskip("langchain_core.prompts")
core_parsers: Any = pytest.importorskip("langchain_core.output_parsers")
classic: Any = pytest.importorskip("langchain_classic.chains")

pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainDeprecationWarning")
both = pytest.mark.parametrize("style", CALL_STYLES, ids=name_of)

WORDS = ["Hello", " there", "!"]
STREAMED = Answer(frames=openai_chat_frames(WORDS))
COMPLETE = Answer(body=openai_chat_body("".join(WORDS)))


# -- prompts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "template",
    [
        "",
        "plain",
        "{a}",
        "{a} {b} {a}",
        "{{a}} {b}",
        "{a!r:>9}",
        "{a",
        "a}",
        "{a.b}",
        "{a[0]}",
        "{0}",
        "{a:{b}}",
    ],
)
def test_the_same_templates_are_accepted_and_filled(template: str) -> None:
    """The variables and the text are the same; what LangChain refuses is refused."""

    def use(kind: Any) -> Any:
        prompt = kind.from_template(template)
        return prompt.input_variables, prompt.format(a="A", b="B", c="C"), prompt.partial(a=1).input_variables

    try:
        expected = use(core_prompts.PromptTemplate)
    except ValueError:
        with pytest.raises(ValueError, match="template"):
            use(PromptTemplate)
    else:
        assert use(PromptTemplate) == expected


def test_chat_prompts_make_the_same_messages() -> None:
    """Each form of a message, with values, partial values and an optional placeholder."""

    def use(kind: Any, place: Any) -> Any:
        given = [
            ("system", "{a}"),
            place("past"),
            ("human", "{b}"),
            ("ai", "{a}{c}"),
            ("placeholder", "{more}"),
            "{c}",
        ]
        prompt = kind.from_messages(given).partial(c="C")
        value = prompt.invoke({"a": "A", "b": "B", "past": [("human", "x"), ("ai", "y")]})
        messages = [(each.type, each.content) for each in value.to_messages()]
        return sorted(prompt.input_variables), messages, value.to_string()

    expected = use(core_prompts.ChatPromptTemplate, core_prompts.MessagesPlaceholder)
    assert use(ChatPromptTemplate, MessagesPlaceholder) == expected


# -- chains -----------------------------------------------------------------------------------------------------------

USES = {
    "invoke": lambda chain: chain.invoke({"x": "1", "more": 2}),
    "one value": lambda chain: chain.invoke("1"),
    "call": lambda chain: chain("1"),
    "only outputs": lambda chain: chain("1", return_only_outputs=True),
    "run": lambda chain: chain.run("1"),
    "run by name": lambda chain: chain.run(x="1"),
    "predict": lambda chain: chain.predict(x="1"),
    "batch": lambda chain: chain.batch([{"x": "1"}, {"x": "2"}]),
    "apply": lambda chain: chain.apply([{"x": "1"}, {"x": "2"}]),
    "stop": lambda chain: chain.invoke({"x": "1", "stop": ["s"]}),
    "ainvoke": lambda chain: asyncio.run(chain.ainvoke({"x": "1"})),
    "arun": lambda chain: asyncio.run(chain.arun("1")),
    "apredict": lambda chain: asyncio.run(chain.apredict(x="1")),
    "keys": lambda chain: (chain.input_keys, chain.output_keys),
    "missing": lambda chain: chain.invoke({}),
    "nothing": lambda chain: chain.run(),
    "two values": lambda chain: chain.run("1", "2"),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_an_llm_chain_returns_what_langchains_returns(use: Any) -> None:
    """Results, requests and the kind of errors are the same, for each way to call it."""
    options: dict[str, Any] = {"output_key": "song", "llm_kwargs": {"temperature": 0.5}}
    with LoopbackProvider(COMPLETE) as one, LoopbackProvider(COMPLETE) as other:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            prompt = core_prompts.PromptTemplate.from_template("Sing {x}")
            reference = classic.LLMChain(llm=theirs(one), prompt=prompt, **options)
            expected = _outcome(use, reference)
        found = _outcome(
            use, LLMChain(llm=ours(other), prompt=PromptTemplate.from_template("Sing {x}"), **options)
        )
        assert found == expected
        assert sorted(map(_body, other.requests)) == sorted(map(_body, one.requests))


def _outcome(use: Any, chain: Any) -> Any:
    """Return the result, or that a ValueError was raised."""
    try:
        return use(chain)
    except ValueError:
        return ValueError


def _body(request: Any) -> str:
    """Return the request as text. LangChain sends `stream: false` as well."""
    return json.dumps({key: value for key, value in request["body"].items() if value}, sort_keys=True)


def test_a_conversation_has_langchains_instructions_and_keys() -> None:
    """The default prompt of LangChain begins with the same sentences."""
    from langchain_classic.chains.conversation.prompt import DEFAULT_TEMPLATE

    assert DEFAULT_TEMPLATE.startswith(DEFAULT_INSTRUCTIONS + "\n\nCurrent conversation:\n{history}")
    fields = classic.ConversationChain.model_fields
    assert (fields["input_key"].default, fields["output_key"].default) == ("input", "response")
    for name in (
        "ConversationBufferMemory",
        "ConversationBufferWindowMemory",
        "ConversationTokenBufferMemory",
    ):
        memory = getattr(__import__("langchain_classic.memory", fromlist=[name]), name).model_fields
        mine = getattr(chains, name)()
        for key in ("memory_key", "k", "max_token_limit"):
            if key in memory:
                assert getattr(mine, key) == memory[key].default


@both
def test_a_sequence_gives_the_same_chunks(style: CallStyle) -> None:
    """`prompt | model | StrOutputParser()` streams the same texts."""
    with LoopbackProvider(STREAMED) as provider:
        found = style.stream(PromptTemplate.from_template("{x}") | ours(provider) | StrOutputParser(), "1")
        reference = (
            core_prompts.PromptTemplate.from_template("{x}")
            | theirs(provider)
            | core_parsers.StrOutputParser()
        )
        expected = [str(text) for text in reference.stream({"x": "1"})]
    assert [text for text in found if text] == [text for text in expected if text]


# -- events -----------------------------------------------------------------------------------------------------------


def events_of(chain: Any, **options: Any) -> list[dict[str, Any]]:
    """Return the events of a chain as both libraries must have them, with numbers in place of ids."""

    async def main() -> list[Any]:
        return [event async for event in chain.astream_events({"x": "1"}, version="v2", **options)]

    found = asyncio.run(main())
    ids = list(dict.fromkeys(id for event in found for id in (*event["parent_ids"], event["run_id"])))
    return [_plain(event, ids) for event in found if not _is_empty(event)]


def _is_empty(event: dict[str, Any]) -> bool:
    """Whether an event is a chunk without text: LangChain has one for each event of the provider."""
    chunk = event["data"].get("chunk", "text")
    return not (chunk if isinstance(chunk, str | dict) else chunk.content) or chunk == {"text": ""}


def _plain(event: dict[str, Any], ids: list[str]) -> dict[str, Any]:
    return {
        **{key: event[key] for key in ("event", "name", "tags")},
        "run": ids.index(event["run_id"]),
        "parents": [ids.index(parent) for parent in event["parent_ids"]],
        "metadata": {key: value for key, value in event["metadata"].items() if key not in VERSIONS},
        "data": {key: _seen(value) for key, value in event["data"].items()},
    }


def _seen(value: Any) -> Any:
    """Return the text of messages and of prompt values, and other values as they are."""
    if isinstance(value, dict):
        return {key: _seen(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_seen(each) for each in value]
    if hasattr(value, "to_string"):
        return type(value).__name__, value.to_string()
    return (type(value).__name__, value.content) if hasattr(value, "content") else value


FILTERS: dict[str, dict[str, Any]] = {
    "all": {},
    "types": {"include_types": ["chat_model"]},
    "names": {"include_names": ["StrOutputParser", "RunnableSequence"]},
    "tags": {"include_tags": ["seq:step:1"]},
    "without": {"exclude_types": ["chat_model", "parser"]},
    "without names": {"exclude_names": ["RunnableSequence"], "exclude_tags": ["seq:step:3"]},
}


@pytest.mark.parametrize("options", FILTERS.values(), ids=FILTERS)
def test_the_events_of_a_sequence_are_langchains(options: dict[str, Any]) -> None:
    """Names, order, data, tags, metadata and parents of all events; the filters choose the same ones."""
    with LoopbackProvider(STREAMED) as provider:
        found = events_of(
            PromptTemplate.from_template("Sing {x}") | ours(provider) | StrOutputParser(), **options
        )
        prompt, parser = core_prompts.PromptTemplate.from_template("Sing {x}"), core_parsers.StrOutputParser()
        expected = events_of(prompt | theirs(provider) | parser, **options)
    if options:  # in a filtered list LangChain shows the input of the chain as that of the first run
        found, expected = (
            [{**each, "data": list(each["data"])[:1]} for each in events] for events in (found, expected)
        )
    assert found == expected


def test_the_events_of_a_function_are_langchains() -> None:
    """A function behind the model has a run of the type chain. A parser before it makes no stream events."""
    with LoopbackProvider(STREAMED) as provider:

        def loud(text: str) -> str:
            return text.upper()

        found = events_of(PromptTemplate.from_template("{x}") | ours(provider) | StrOutputParser() | loud)
        prompt, parser = core_prompts.PromptTemplate.from_template("{x}"), core_parsers.StrOutputParser()
        expected = events_of(prompt | theirs(provider) | parser | loud)
    kinds = [
        {(each["event"], each["name"]) for each in events if each["event"] != "on_parser_stream"}
        for events in (found, expected)
    ]
    assert kinds[0] == kinds[1]
    assert found[-1]["data"] == expected[-1]["data"]


def test_the_events_of_an_llm_chain_have_langchains_starts_and_ends() -> None:
    """Ours has a stream event of the chain for each piece, which LangChain's does not stream."""
    with LoopbackProvider(STREAMED) as provider:
        found = events_of(LLMChain(llm=ours(provider), prompt=PromptTemplate.from_template("Sing {x}")))
        prompt = core_prompts.PromptTemplate.from_template("Sing {x}")
        expected = events_of(classic.LLMChain(llm=theirs(provider), prompt=prompt))

    def without_streams(events: list[dict[str, Any]]) -> list[Any]:
        seen = [event for event in events if event["event"] != "on_chain_stream"]
        return [
            {**event, "data": str(event["data"]).replace("AIMessageChunk", "AIMessage")} for event in seen
        ]

    assert without_streams(found) == without_streams(expected)
    pieces = [event["data"]["chunk"] for event in found if event["event"] == "on_chain_stream"]
    assert pieces == [{"text": word} for word in WORDS]


def test_one_chain_in_another_has_all_parents() -> None:
    """`parent_ids` are the runs around a run, the outermost first."""
    with LoopbackProvider(STREAMED) as provider:
        inner = LLMChain(llm=ours(provider), prompt=PromptTemplate.from_template("Sing {x}"))
        found = events_of(PromptTemplate.from_template("{x}") | (lambda value: value.text) | inner)
    model = next(event for event in found if event["event"] == "on_chat_model_start")
    names = {event["run"]: event["name"] for event in found}
    assert [names[parent] for parent in model["parents"]] == ["RunnableSequence", "LLMChain"]


@both
def test_handlers_of_langchains_class_get_the_chain(style: CallStyle) -> None:
    """A handler that subclasses LangChain's base class; `ignore_chain` switches the events off."""
    Handler: Any = pytest.importorskip("langchain_core.callbacks").BaseCallbackHandler

    class Names(Handler):  # type: ignore[misc]
        def __init__(self) -> None:
            self.seen: list[Any] = []

        def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> None:
            self.seen.append((kwargs["name"], inputs))

        def on_chain_end(self, outputs: Any, **kwargs: Any) -> None:
            self.seen.append(outputs)

    class Deaf(Names):
        ignore_chain = True

    names, deaf = Names(), Deaf()
    with LoopbackProvider(COMPLETE if style is PLAIN else STREAMED) as provider:
        chain = LLMChain(
            llm=ours(provider, streaming=style is not PLAIN), prompt=PromptTemplate.from_template("{x}")
        )
        style.invoke(chain, {"x": "1"}, {"callbacks": [names, deaf]})
    assert (names.seen, deaf.seen) == ([("LLMChain", {"x": "1"}), {"text": "Hello there!"}], [])
