"""`recorder chat`: a conversation in the terminal, every token of it recorded while it comes.

Answers go to stdout and all else to stderr, so that into a pipe only the answers are written.
"""

from __future__ import annotations

import asyncio
import io
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any

from rich.console import Console
from rich.text import Text

from recorder.cli import console, queries
from recorder.cli.branches import Row, newest_path
from recorder.cli.console import notice
from recorder.cli.providers import LOOPBACK, Choice, answering, choose
from recorder.config import default_url
from recorder.core.clock import now
from recorder.core.printable import printable, printable_line
from recorder.errors import ConfigError
from recorder.history import ChatHistoryCallback
from recorder.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage
from recorder.storage.dialects import masked
from recorder.storage.reader import message_from

#: What a shell reports for a program that Ctrl-C ended.
INTERRUPTED = 130
EXIT = "/exit"
#: How many of the messages so far are shown when a conversation goes on.
_SHOWN = 6
#: Finish reasons, in the providers' words, of an answer that is whole.
_WHOLE = frozenset(("stop", "end_turn", "stop_sequence", None))
#: Longest message of an error (characters).
_LONGEST_ERROR = 500


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line asks for; None where it says nothing."""

    url: str
    prompt: str | None = None
    conversation: str | None = None
    provider: str | None = None
    model: str | None = None
    system: str | None = None


def run(wish: Wish) -> int:
    """Talk until there is nothing more to say; the exit code. Raises `RecorderError` for what cannot be."""
    choice = choose(wish.provider, wish.model)
    past = _begun(wish) if wish.conversation is None else _so_far(wish)
    with (
        ChatHistoryCallback(wish.url, conversation_id=past.conversation, strict=True) as history,
        answering(choice, [history]) as model,
        asyncio.Runner() as runner,
    ):
        talk = Talk(model, runner, past.said)
        _introduce(choice, wish.url)
        if wish.conversation is not None:
            _recall(past)
        code = talk.go_on(wish.prompt)
    if talk.turns:
        notice(console.styled("Continue with:"), console.styled(f"  {_command(wish, past.conversation)}"))
    return code


class Talk:
    """What was said, and how it goes on."""

    def __init__(self, model: Any, runner: asyncio.Runner, said: Sequence[BaseMessage]) -> None:
        self._model = model
        self._runner = runner
        self._said = list(said)
        self._typed = sys.stdin.isatty()
        self._failed = False
        #: Questions that were asked.
        self.turns = 0

    def go_on(self, prompt: str | None) -> int:
        """One turn after the other until the end of the input; the exit code."""
        try:
            if prompt is not None:
                self._echo(prompt)
                self._turn(prompt)
            for line in self._typed_lines() if self._typed else self._piped_lines():
                if line.strip() == EXIT:
                    break
                if line.strip():
                    self._turn(line)
        except KeyboardInterrupt:
            return INTERRUPTED
        return 1 if self._failed and not self._typed else 0

    def _typed_lines(self) -> Iterator[str]:
        _edit_with(self._said)
        while True:
            try:
                yield input("> ")
            except EOFError:
                print()
                return
            except KeyboardInterrupt:
                print()
                notice(console.styled(f"Ctrl-D or {EXIT} ends.", "dim"))

    def _piped_lines(self) -> Iterator[str]:
        for line in sys.stdin:
            self._echo(line.rstrip("\r\n"))
            yield line.rstrip("\r\n")

    def _echo(self, line: str) -> None:
        """Show what nobody typed here."""
        if sys.stdout.isatty() and line.strip():
            console.echo(f"> {line}")

    def _turn(self, line: str) -> None:
        """Ask, show the answer as it comes, and remember both; an answer of nothing takes its question back."""
        self.turns += 1
        question, answer = HumanMessage(line), Answer()
        try:
            # Ctrl-C cancels the answer where it waits; while nothing runs, it is the terminal's.
            self._runner.run(self._answered([*self._said, question], answer))
        except KeyboardInterrupt:
            answer.end("Stopped; what came is kept." if answer.chunks else "Stopped.")
            if not self._typed:
                raise
        except BrokenPipeError:
            raise
        except Exception as error:
            self._failed = True
            answer.end(why(error), style="red")
        else:
            answer.end(None)
        if (reply := answer.message()) is not None:
            self._said += [question, reply]

    async def _answered(self, messages: list[BaseMessage], answer: Answer) -> None:
        async with aclosing(self._model.astream(messages)) as chunks:
            async for chunk in chunks:
                answer.add(chunk)
        answer.whole = True


@dataclass(slots=True)
class Answer:
    """An answer while it comes, on the screen and as a message."""

    chunks: list[AIMessageChunk] = field(default_factory=list)
    whole: bool = False
    _screen: Console = field(default_factory=console.console)
    #: What the cursor stands behind: nothing, a thought, or text; and whether a line is begun.
    _last: str = ""
    _open: bool = False

    def add(self, chunk: AIMessageChunk) -> None:
        """Show what a chunk says."""
        self.chunks.append(chunk)
        if thought := _thought_of(chunk):
            self._show("thought", thought)
        if text := chunk.text or chunk.additional_kwargs.get("refusal"):
            self._show("text", text)

    def end(self, note: str | None, style: str = "dim") -> None:
        """Close the line, and say what there is to say of the answer."""
        if self._open:
            print()
        if note is None and self.chunks:
            said = self._sum().response_metadata
            reason = said.get("finish_reason") or said.get("stop_reason")
            note = None if reason in _WHOLE else f"The answer ended because of: {reason}"
        if note is not None:
            notice(console.styled(note, style))
        if self._typed():
            print()

    def message(self) -> BaseMessage | None:
        """What is sent back with the next question; None for an answer of nothing."""
        if not self.chunks:
            return None
        found = self._sum().to_message()
        says = found.text.strip() or (
            self.whole and (found.additional_kwargs.get("refusal") or found.tool_calls)
        )
        if not says:
            return None
        # Of one that was cut off only the text: providers refuse thoughts without their signature.
        return found if self.whole else AIMessage(found.text)

    def _sum(self) -> AIMessageChunk:
        return self.chunks[0] + self.chunks[1:]

    def _show(self, what: str, text: str) -> None:
        if self._last and self._last != what:
            print("\n" if self._open else "")
        shown = printable(text)
        dim = what == "thought" and self._screen.is_terminal and not self._screen.no_color
        print(f"\x1b[2m{shown}\x1b[22m" if dim else shown, end="", flush=True)
        self._last, self._open = what, not shown.endswith("\n")

    @staticmethod
    def _typed() -> bool:
        return sys.stdout.isatty()


def _thought_of(chunk: AIMessageChunk) -> str:
    """The reasoning in a chunk, as OpenAI's dialects have it, and Anthropic."""
    thought = chunk.additional_kwargs.get("reasoning_content") or ""
    if isinstance(chunk.content, list):
        thought += "".join(block.get("thinking") or "" for block in chunk.content if isinstance(block, dict))
    return thought


def why(error: Exception) -> str:
    """An error as one line: the status and what the provider says, or what kept the request from it."""
    body = getattr(error, "body", None)
    inner = body.get("error", body) if isinstance(body, dict) else None
    said = inner.get("message") if isinstance(inner, dict) else None
    status = getattr(error, "status_code", None)
    if said:
        line = f"{status}: {said}" if status else str(said)
    elif status is None and (refusal := _refusal(error)):
        line = refusal
    else:
        line = f"{type(error).__name__}: {error}"
    line = " ".join(line.split())
    return line if len(line) <= _LONGEST_ERROR else line[: _LONGEST_ERROR - 3] + "..."


def _refusal(error: Exception) -> str | None:
    """The operating system's reason, which is the first in the chain of errors, and where it was asked."""
    reason: str | None = None
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno:
            reason = os.strerror(cause.errno) if cause.errno > 0 else cause.strerror
        cause = cause.__cause__ or cause.__context__
    request = getattr(error, "request", None)
    where = f"{request.url.host}:{request.url.port or 443}" if request is not None else "The provider"
    return reason and f"{where} cannot be reached: {reason}"


# -- what was said before ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Past:
    """A conversation as far as it goes."""

    conversation: str
    #: Along the newest branch, up to the last message that is no question without an answer.
    said: list[BaseMessage]
    #: Whether such a question came after it.
    unanswered: bool = False


def _begun(wish: Wish) -> _Past:
    """A new conversation."""
    system: list[BaseMessage] = [] if wish.system is None else [SystemMessage(wish.system)]
    return _Past(f"chat-{now():%Y%m%d-%H%M%S}-{token_hex(2)}", system)


def _so_far(wish: Wish) -> _Past:
    """A conversation that is stored."""
    found = queries.read(wish.url, lambda store: queries.conversation_of(store, str(wish.conversation)))
    # A run that said nothing is no message to go on with.
    path = [row for row in newest_path(found["messages"]) if row["message_id"] or row["content"]]
    messages = [_message_of(row) for row in path]
    answered = len(messages)
    while answered and messages[answered - 1].role == "user":
        answered -= 1
    if wish.system is not None and [m.text for m in messages if m.role == "system"] != [wish.system]:
        raise ConfigError(
            f"Conversation {found['id']} began with another system message, or with none, and goes on with it; "
            "leave --system out, or begin a new conversation"
        )
    return _Past(found["id"], messages[:answered], unanswered=answered < len(messages))


def _message_of(row: Row) -> BaseMessage:
    stored = row["parts"] or {"role": row["role"], "content": row["content"]}
    return message_from(stored)


def _edit_with(said: Sequence[BaseMessage]) -> None:
    """Editing of lines, with the questions so far within reach of the arrow keys."""
    try:
        import readline
    except ImportError:  # a Python that was built without it
        return
    for message in said:
        if message.role == "user" and printable_line(message.text) == message.text:
            readline.add_history(message.text)


# -- around it ---------------------------------------------------------------------------------------------------


def _introduce(choice: Choice, url: str) -> None:
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # bytes that are no text are no reason to end
    if choice.for_want_of_a_key:
        notice(console.styled("Neither OPENAI_API_KEY nor ANTHROPIC_API_KEY is set."))
    if choice.provider == LOOPBACK:
        notice(console.styled("A provider on this machine answers: it sings, and reads nothing."))
    else:
        notice(console.styled(f"{choice.model} of {choice.provider} answers."))
    notice(console.styled(f"Recorded in {masked(url)}"))
    if sys.stdin.isatty():
        notice(console.styled(f"Ctrl-C stops an answer, Ctrl-D or {EXIT} ends."))
    notice(Text())


def _recall(past: _Past) -> None:
    """The last messages, a line each."""
    said, lines = past.said[-_SHOWN:], []
    if earlier := len(past.said) - len(said):
        lines.append(f"... {console.plural(earlier, 'message')} before")
    lines += [f"{each.role}: {' '.join(printable(each.text).split()) or '(no text)'}" for each in said]
    if past.unanswered:
        lines.append("(a last question that has no answer is left out)")
    notice(*(console.styled(line, "dim", overflow="ellipsis") for line in lines), Text())


def _command(wish: Wish, conversation: str) -> str:
    """The command that goes on where this one ended."""
    options = {"--conversation": conversation, "--provider": wish.provider, "--model": wish.model}
    if wish.url != default_url():
        options["--url"] = masked(wish.url).replace(":***@", "@")
    # A password is for whoever goes on to fill in, where the driver looks for it.
    before = ["PGPASSWORD=..."] if ":***@" in masked(wish.url) else []
    words = [word for name, value in options.items() if value is not None for word in (name, value)]
    return shlex.join([*before, "recorder", "chat", *words])
