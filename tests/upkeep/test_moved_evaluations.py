"""Evaluations of texts that `recorder redact` changes: they go with their text, and none is made a second time."""

from __future__ import annotations

from typing import Any

from recorder import ChatHistoryCallback
from recorder.messages import AIMessage, HumanMessage
from recorder.upkeep import StoredAnalysis
from recorder.upkeep.redact import redact
from tests.oracle import begin, finish, say, sql
from tests.redaction.leaks import pieces, secret

REPLY = f"Ask {secret('somebody')}. This is terrible. The rest is great!"
COUNT = "SELECT count(*) FROM annotations"


def test_an_analysis_after_the_redaction_finds_everything(database: str) -> None:
    """Of added messages, of replies that streamed, that did not, that came twice, and that were cut off."""
    with ChatHistoryCallback(database, conversation_id="c", analyze=["sentiment"]) as history:
        history.add_messages(f"I am {secret('me')}. I love this library. But the install failed twice.")
        for _ in range(2):
            run_id = begin(history, HumanMessage(f"What a bad day, {secret('you')}! It is great."))
            say(history, run_id, pieces(REPLY))
            finish(history, run_id, REPLY)
        cut = begin(history, HumanMessage("And now?"))
        say(history, cut, pieces(REPLY))
        history.on_llm_error(ValueError("cut"), run_id=cut)
        finish(
            history, begin(history, HumanMessage("Once more")), f"Wait, {secret('other')}. I love it.", REPLY
        )
    before = sql(database, COUNT)
    redact(database, ["email"])
    with StoredAnalysis(database, ["sentiment"]) as analysis:
        done = analysis.run()
    assert (sql(database, COUNT), [(done.stored,)]) == (before, before)


def test_the_place_of_a_sentence_is_that_in_the_redacted_text(database: str) -> None:
    """The sentence can be read there."""
    with ChatHistoryCallback(database, conversation_id="c", analyze=["sentiment"]) as history:
        history.add_messages(f"I am {secret('me')}. I love this library.")
    redact(database, ["email"])
    [(text,)] = sql(database, "SELECT content FROM messages")
    start = text.index("I love")
    [(data,)] = sql(database, "SELECT data FROM annotations WHERE name = 'sentiment.sentence'")
    assert f'"start":{start},"end":{len(text)}' in data


def test_a_sentence_that_a_match_joins_to_another_one_is_evaluated_no_more(database: str) -> None:
    """It is no sentence of the redacted text. What the application has said about the run stays."""
    text = "I love this. It is great! Bye."

    def joined(line: str) -> str:
        return line.replace("this. It", "[both]")

    with ChatHistoryCallback(database, conversation_id="c", analyze=["sentiment"]) as history:
        run_id = begin(history)
        say(history, run_id, pieces(text))
        finish(history, run_id, text)
        history.add_annotation(run_id, "quality", score=1.0, data={"version": "1", "start": 0, "end": 12})
    redact(database, [joined])
    assert _names(database) == ["quality", "sentiment"]


def test_two_messages_that_become_one_have_one_evaluation(database: str) -> None:
    """They differed in the address only."""
    with ChatHistoryCallback(database, conversation_id="c", analyze=["sentiment"]) as history:
        for name in ("one", "two"):
            begin(
                history,
                HumanMessage("Hi"),
                AIMessage("Yes?"),
                HumanMessage(f"I love {secret(name)} very much."),
            )
    redact(database, ["email"])
    found = "SELECT content, count(*) FROM messages WHERE content LIKE 'I love%' GROUP BY 1"
    assert sql(database, found) == [("I love [email] very much.", 1)]
    about = "JOIN messages m ON m.id = message_id WHERE content LIKE 'I love%'"
    names = sql(database, f"SELECT a.name FROM annotations a {about} ORDER BY a.name")
    assert names == [("sentiment",), ("sentiment.sentence",)]


def _names(url: str) -> list[Any]:
    return [name for (name,) in sql(url, "SELECT name FROM annotations ORDER BY name")]
