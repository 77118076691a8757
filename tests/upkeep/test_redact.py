"""`recorder redact`: what it leaves of a database that is recorded already, and when it is stopped or disturbed."""

from __future__ import annotations

import json
import random
import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from recorder import ChatHistoryCallback
from recorder.errors import ConfigError
from recorder.export import export, import_
from recorder.models import ChatOpenAI, SimpleChatModel
from recorder.replay import NotRecorded, Replay
from recorder.testing import LoopbackProvider
from recorder.upkeep import redact as module
from recorder.upkeep.redact import redact
from tests.oracle import new_url, sql
from tests.redaction import test_redacted_recordings as recordings
from tests.redaction.leaks import leaks, pieces, secret

PATTERNS = recordings.REDACT


@pytest.fixture(scope="module")
def provider() -> Iterator[LoopbackProvider]:
    """Yield a provider whose answers have secrets."""
    with LoopbackProvider(lambda body, path: recordings.answer(body, path.partition("?")[0])) as provider:
        yield provider


class Echo(SimpleChatModel):
    """Answers with the secret of the question."""

    def _stream(self, messages: list[Any], **options: Any) -> Iterator[str]:
        yield from pieces(f"You wrote {messages[-1].text}.")


def chat(
    history: ChatHistoryCallback, turns: int, *, branches: float = 0.0, before: Sequence[Any] = ()
) -> list[Any]:
    """Hold a conversation with a secret in each turn, and annotate it; after this share of turns a branch begins.

    Returns all that was sent and answered, which goes on as `before`.
    """
    chance = random.Random(7)
    model = Echo(callbacks=[history])
    with history.conversation("c1", title=f"Of {secret('title')}", metadata={"who": secret("who")}):
        sent: list[Any] = [*before] or [("system", f"Be kind to {secret('system')}")]
        for turn in range(turns):
            question = ("user", f"Turn {turn}: I am {secret(f'turn{turn}')}")
            reply = model.invoke([*sent, question])
            history.add_feedback(str(reply.id), comment=f"by {secret('comment')}")
            if chance.random() >= branches:
                sent += [question, reply]
    return sent


def contents(url: str) -> dict[str, Any]:
    """Return what does not depend on times and ids of runs."""
    return {
        "messages": sql(
            url, "SELECT id, parent_id, position, role, content, parts, content_hash FROM messages ORDER BY id"
        ),
        "context": sql(url, "SELECT id, role, content, parts FROM context_messages ORDER BY id"),
        "runs": sql(
            url, "SELECT prompt_message_id, response_message_id, instructions, input, request, token_count FROM runs "
            "ORDER BY started_at, id",
        ),
        "conversations": sql(url, "SELECT id, title, metadata, tags FROM conversations"),
        "annotations": sql(url, "SELECT name, data FROM annotations ORDER BY id"),
    }  # fmt: skip


def texts(url: str) -> list[list[str]]:
    """Return the texts of the tokens of each run, however many rows they were stored in."""
    rows = sql(
        url,
        "SELECT s.run_id, s.deltas FROM segments AS s JOIN runs AS r ON r.id = s.run_id "
        "ORDER BY r.started_at, s.run_id, s.seq",
    )
    found: dict[str, list[str]] = {}
    for run_id, deltas in rows:
        found.setdefault(run_id, []).extend(item[1] for item in json.loads(deltas))
    return list(found.values())


@pytest.mark.matrix
@pytest.mark.parametrize("way", recordings.WAYS, ids=lambda way: way.__name__)
def test_no_secret_is_left(
    way: Callable[[str, Any], None], provider: LoopbackProvider, database: str
) -> None:
    """Whatever was recorded: no column has a secret, no byte of the file, and a second time does nothing."""
    with ChatHistoryCallback(database) as history:
        way(provider.url, history)
    assert leaks(database) != []
    done = redact(database, PATTERNS)
    assert leaks(database) == []
    assert (done.left_out, done.is_overwritten, bool(done.counts)) == (0, True, True)
    assert sql(database, "SELECT count(*) FROM runs WHERE redaction IS NULL") == [(0,)]
    again = redact(database, PATTERNS)
    assert (again.counts, again.runs, again.messages, again.frames) == ({}, 0, 0, 0)


def test_it_leaves_what_a_recorder_that_redacts_would_have_stored(tmp_path: Path) -> None:
    """The same conversation, recorded with `redact` and redacted later, is the same; ids and hashes too."""
    before, after = new_url(tmp_path, "before.db"), new_url(tmp_path, "after.db")
    with ChatHistoryCallback(before, redact=PATTERNS) as history:
        chat(history, 12, branches=0.3)
    with ChatHistoryCallback(after, capture="tokens") as history:
        chat(history, 12, branches=0.3)
    redact(after, PATTERNS)
    assert contents(after) == contents(before)
    assert texts(after) == texts(before)


def test_a_conversation_goes_on(database: str) -> None:
    """A recorder that redacts stores the next turn below the last one, though the client sends the first texts."""
    with ChatHistoryCallback(database) as history:
        sent = chat(history, 3)
    redact(database, PATTERNS)
    with ChatHistoryCallback(database, redact=PATTERNS) as history:
        chat(history, 1, before=sent)
    assert sql(database, "SELECT count(*), max(position) FROM messages") == [(8, 7)]
    assert leaks(database) == []
    with Replay(database) as replay:
        assert [message.text for message in replay.messages("c1")][2] == "You wrote Turn 0: I am [email]."


def test_a_dry_run_changes_nothing(tmp_path: Path) -> None:
    """It counts what would be replaced."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url) as history:
        chat(history, 3)
    before = contents(url)
    done = redact(url, PATTERNS, dry_run=True)
    assert contents(url) == before
    assert done == redact(url, PATTERNS)


def test_a_run_that_streams_is_left_out(database: str) -> None:
    """Its conversation as well; when it has ended, the next call redacts them."""
    with ChatHistoryCallback(database) as history:
        stream = Echo(callbacks=[history]).stream(f"I am {secret('open')}")
        next(stream)
        history.flush().wait()
        done = redact(database, PATTERNS)
        assert (done.left_out, done.messages) == (2, 0)
        list(stream)
    redact(database, PATTERNS)
    assert leaks(database) == []


class Stop(BaseException):
    """A kill."""


@pytest.mark.parametrize("statement", range(0, 30, 4))
def test_a_stop_in_the_middle_leaves_a_consistent_database(
    statement: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it stops, all links lead somewhere, all hashes fit, and the next call does the rest."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url) as history:
        chat(history, 4)
    left = iter(range(statement))

    async def execute(self: Any, connection: Any, statements: Any) -> None:
        for each in statements:
            if next(left, None) is None:
                raise Stop
            await connection.execute(each)

    monkeypatch.setattr(module._Redacting, "_execute", execute)
    with pytest.raises(Stop):
        redact(url, PATTERNS)
    assert broken_links(url) == []
    monkeypatch.undo()
    redact(url, PATTERNS)
    assert (leaks(url), broken_links(url)) == ([], [])
    export(url, tmp_path / "export.jsonl")  # reads all rows, and checks their hashes
    import_(new_url(tmp_path, "copy.db"), tmp_path / "export.jsonl")


def broken_links(url: str) -> list[Any]:
    """Return the ids that name a message which is not stored."""
    there = {
        id for (id,) in [*sql(url, "SELECT id FROM messages"), *sql(url, "SELECT id FROM context_messages")]
    }
    named = sql(
        url,
        "SELECT parent_id, NULL, NULL FROM messages UNION ALL "
        "SELECT prompt_message_id, response_message_id, instructions FROM runs",
    )
    ids = [
        id
        for parent, reply, instructions in named
        for id in (parent, reply, *json.loads(instructions or "[]"))
        if id
    ]
    return [id for id in ids if id not in there]


def test_messages_that_differed_in_the_secret_only_become_one(database: str) -> None:
    """Two branches that are the same after it are one branch."""
    with ChatHistoryCallback(database) as history, history.conversation("c1"):
        model = Echo(callbacks=[history])
        first = ("user", "Hi"), model.invoke("Hi")
        for name in ("one", "two"):
            model.invoke([*first, ("user", f"I am {secret(name)}")])
    before = sql(database, "SELECT count(*) FROM messages")
    redact(database, PATTERNS)
    assert (before, sql(database, "SELECT count(*) FROM messages")) == ([(6,)], [(4,)])
    assert (leaks(database), broken_links(database)) == ([], [])


def test_it_runs_beside_a_recorder(database: str) -> None:
    """Conversations grow while they are redacted; in the end all links lead somewhere, and no secret is left."""
    with ChatHistoryCallback(database) as history:
        model = Echo(callbacks=[history])

        def talk(conversation_id: str) -> None:
            sent: list[Any] = []
            with history.conversation(conversation_id):
                for turn in range(10):
                    question = ("user", f"Turn {turn} {secret(f'turn{turn}')}")
                    sent += [question, model.invoke([*sent, question])]

        threads = [threading.Thread(target=talk, args=(name,)) for name in ("c1", "c2")]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            redact(database, PATTERNS)
    redact(database, PATTERNS)
    assert (leaks(database), broken_links(database)) == ([], [])


def test_a_link_that_a_recorder_stored_meanwhile_is_found(tmp_path: Path) -> None:
    """A message below an id that is gone goes below the message that stands there now; so does the prompt of a run."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url) as history:
        chat(history, 3)
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        gone = str(uuid.uuid4())
        connection.execute("UPDATE messages SET parent_id = ? WHERE position = 4", [gone])
        prompt = "SELECT parent_id FROM messages WHERE position = 3"
        connection.execute(
            f"UPDATE runs SET prompt_message_id = ? WHERE prompt_message_id = ({prompt})", [str(uuid.uuid4())]
        )
    assert len(broken_links(url)) == 2
    redact(url, PATTERNS)
    assert (leaks(url), broken_links(url)) == ([], [])
    with Replay(url) as replay:
        assert len(replay.messages("c1")) == 7


def test_a_replay_names_what_finds_a_redacted_run(provider: LoopbackProvider, tmp_path: Path) -> None:
    """The hash of its request is gone, so the messages are compared."""
    url, question = new_url(tmp_path), f"I am {secret('replayed')}"
    with ChatHistoryCallback(url) as history:
        model = ChatOpenAI("m", base_url=provider.base_url, api_key="any", callbacks=[history])
        model.invoke(question)
    redact(url, PATTERNS)
    with Replay(url, redact=PATTERNS) as replay:
        with pytest.raises(NotRecorded, match=r"has no hash; match_on=\('messages',\) finds it"):
            replay.model(model).invoke(question)
        answer = replay.model(model, match_on=("messages",)).invoke(question)
    assert answer.content == "Write to [email], please."


def test_it_goes_page_by_page(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing between two pages is left out."""
    monkeypatch.setattr(module, "_PAGE", 2)
    with ChatHistoryCallback(database) as history:
        chat(history, 5)
    done = redact(database, PATTERNS)
    assert (done.runs, done.annotations, done.conversations) == (5, 5, 1)
    assert leaks(database) == []


def test_no_pattern_is_an_error(tmp_path: Path) -> None:
    """There is nothing to look for."""
    with pytest.raises(ConfigError, match="at least one"):
        redact(new_url(tmp_path), [])
