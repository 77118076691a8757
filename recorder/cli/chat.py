"""`recorder chat`: a conversation with a model in the terminal; every token is recorded as it arrives.

Answers go to stdout, everything else to stderr, so that a pipe gets the answers only.
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

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.cli import console, queries
from recorder.cli.branches import Row, newest_path
from recorder.cli.console import notice
from recorder.cli.line_editing import prepare_editing, typed_message
from recorder.cli.program import program
from recorder.cli.providers import LOOPBACK, Choice, choose, open_model
from recorder.config import default_url
from recorder.core.clock import now
from recorder.core.printable import printable
from recorder.errors import ConfigError
from recorder.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage
from recorder.storage.dialects import masked
from recorder.storage.message_columns import message_from
from recorder.storage.request_input import instructions_of

#: The exit code of a program that Ctrl-C ended, as shells report it.
INTERRUPTED = 130
EXIT, HELP = "/exit", "/help"
_ENDS = f"Ctrl-D or {EXIT} ends the chat."
#: What `/help` shows.
_HELP = (
    "Enter sends the message. A pasted text of several lines is one message.",
    "The up key recalls earlier messages; Ctrl-C empties the line, or stops an answer.",
    f"{HELP} shows this. {_ENDS}",
)
#: How many earlier messages are shown when a conversation is continued.
_SHOWN = 6
#: The providers' finish reasons of an answer that is complete.
_COMPLETE = frozenset(("stop", "end_turn", "stop_sequence", None))
#: The longest error message that is shown (characters).
_LONGEST_ERROR = 500


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """The arguments of `recorder chat`; None for those that were not given."""

    url: str
    prompt: str | None = None
    conversation: str | None = None
    provider: str | None = None
    model: str | None = None
    system: str | None = None


def run(options: ChatOptions) -> int:
    """Chat until the input ends; returns the exit code.

    Raises `RecorderError` for options that cannot be used, or a database that cannot be opened.
    """
    choice = choose(options.provider, options.model)
    earlier = _new_conversation(options) if options.conversation is None else _stored_conversation(options)
    with (
        ChatHistoryCallback(options.url, conversation_id=earlier.id, strict=True) as history,
        open_model(choice, [history]) as model,
        asyncio.Runner() as runner,
    ):
        session = ChatSession(model, runner, earlier.messages)
        _introduce(choice, options.url)
        if options.conversation is not None:
            _show_earlier(earlier)
        code = session.run(options.prompt)
    if session.turns:
        notice(console.styled("Continue with:"), console.styled(f"  {_command(options, earlier.id)}"))
    return code


class ChatSession:
    """The messages so far, and the loop that adds a question and an answer to them."""

    def __init__(self, model: Any, runner: asyncio.Runner, messages: Sequence[BaseMessage]) -> None:
        self._model = model
        self._runner = runner
        self._messages = list(messages)
        self._typed = sys.stdin.isatty()
        self._failed = False
        #: Questions that were sent.
        self.turns = 0

    def run(self, prompt: str | None) -> int:
        """Send `prompt`, then each message of the input, until the input ends; returns the exit code."""
        try:
            if prompt is not None:
                self._echo(prompt)
                self._turn(prompt)
            for line in self._typed_messages() if self._typed else self._piped_lines():
                if line.strip() == EXIT:
                    break
                if line.strip() == HELP:
                    notice(*map(console.styled, _HELP), Text())
                elif line.strip():
                    self._turn(line)
        except KeyboardInterrupt:
            return INTERRUPTED
        return 1 if self._failed and not self._typed else 0

    def _typed_messages(self) -> Iterator[str]:
        prepare_editing(message.text for message in self._messages if message.role == "user")
        while True:
            try:
                yield typed_message("> ")
            except EOFError:
                print()
                return
            except KeyboardInterrupt:
                print()
                notice(console.styled(_ENDS, "dim"))

    def _piped_lines(self) -> Iterator[str]:
        for line in sys.stdin:
            self._echo(line.rstrip("\r\n"))
            yield line.rstrip("\r\n")

    def _echo(self, line: str) -> None:
        """Show a question that was not typed in this terminal."""
        if sys.stdout.isatty() and line.strip():
            console.echo(f"> {line}")

    def _turn(self, line: str) -> None:
        """Send a question, show its answer as it streams, and add both to the messages unless the answer is empty."""
        self.turns += 1
        question, answer = HumanMessage(line), StreamedAnswer()
        try:
            # `Runner.run` turns Ctrl-C into the cancellation of the stream.
            self._runner.run(self._receive([*self._messages, question], answer))
        except KeyboardInterrupt:
            answer.end("Stopped; the tokens that arrived are recorded." if answer.chunks else "Stopped.")
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
            self._messages += [question, reply]

    async def _receive(self, messages: list[BaseMessage], answer: StreamedAnswer) -> None:
        async with aclosing(self._model.astream(messages)) as chunks:
            async for chunk in chunks:
                answer.add(chunk)
        answer.is_complete = True


@dataclass(slots=True)
class StreamedAnswer:
    """An answer while it streams: shows its chunks, and makes a message of them."""

    chunks: list[AIMessageChunk] = field(default_factory=list)
    is_complete: bool = False
    _screen: Console = field(default_factory=console.console)
    #: What was printed last ("", "thought" or "text"), and whether its line is not ended yet.
    _last: str = ""
    _open: bool = False

    def add(self, chunk: AIMessageChunk) -> None:
        """Show the text of a chunk."""
        self.chunks.append(chunk)
        if thought := _thought_of(chunk):
            self._show("thought", thought)
        if text := chunk.text or chunk.additional_kwargs.get("refusal"):
            self._show("text", text)

    def end(self, note: str | None, style: str = "dim") -> None:
        """End the line, and show `note`, or the finish reason of an answer that is not complete."""
        if self._open:
            print()
        if note is None and self.chunks:
            metadata = self._sum().response_metadata
            reason = metadata.get("finish_reason") or metadata.get("stop_reason")
            note = None if reason in _COMPLETE else f"The answer is not complete; finish reason: {reason}"
        if note is not None:
            notice(console.styled(note, style))
        if self._typed():
            print()

    def message(self) -> BaseMessage | None:
        """The message that is sent back with the next question; None for an empty answer."""
        if not self.chunks:
            return None
        found = self._sum().to_message()
        content = found.text.strip() or (
            self.is_complete and (found.additional_kwargs.get("refusal") or found.tool_calls)
        )
        if not content:
            return None
        # Of an answer that was cut off only the text is sent: providers reject reasoning without its signature.
        return found if self.is_complete else AIMessage(found.text)

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
    """The reasoning in a chunk, from the fields of OpenAI-compatible providers and of Anthropic."""
    thought = chunk.additional_kwargs.get("reasoning_content") or ""
    if isinstance(chunk.content, list):
        thought += "".join(block.get("thinking") or "" for block in chunk.content if isinstance(block, dict))
    return thought


def why(error: Exception) -> str:
    """An error on one line: the HTTP status and the provider's message, or why the provider was not reached."""
    body = getattr(error, "body", None)
    inner = body.get("error", body) if isinstance(body, dict) else None
    message = inner.get("message") if isinstance(inner, dict) else None
    status = getattr(error, "status_code", None)
    if message:
        line = f"{status}: {message}" if status else str(message)
    elif status is None and (unreachable := _unreachable(error)):
        line = unreachable
    else:
        line = f"{type(error).__name__}: {error}"
    line = " ".join(line.split())
    return line if len(line) <= _LONGEST_ERROR else line[: _LONGEST_ERROR - 3] + "..."


def _unreachable(error: Exception) -> str | None:
    """The operating system's reason, from the first error of the chain, and the host; None if there is no reason."""
    reason: str | None = None
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno:
            reason = os.strerror(cause.errno) if cause.errno > 0 else cause.strerror
        cause = cause.__cause__ or cause.__context__
    request = getattr(error, "request", None)
    where = f"{request.url.host}:{request.url.port or 443}" if request is not None else "The provider"
    return reason and f"{where} cannot be reached: {reason}"


# -- the messages before this session ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _EarlierMessages:
    """A conversation before this session."""

    #: The id of the conversation.
    id: str
    #: The messages of the newest branch, without questions at its end that have no answer.
    messages: list[BaseMessage]
    #: Whether such questions were left out.
    unanswered: bool = False


def _new_conversation(options: ChatOptions) -> _EarlierMessages:
    system: list[BaseMessage] = [] if options.system is None else [SystemMessage(options.system)]
    return _EarlierMessages(f"chat-{now():%Y%m%d-%H%M%S}-{token_hex(2)}", system)


def _stored_conversation(options: ChatOptions) -> _EarlierMessages:
    """The conversation to continue. Raises `ConfigError` if `--system` is not its system message."""
    found = queries.read(options.url, lambda store: queries.conversation_of(store, str(options.conversation)))
    # A run without any text is not a message that could be sent.
    path = [row for row in newest_path(found["messages"]) if row["message_id"] or row["content"]]
    messages = [_message_of(row) for row in path]
    if instructions := [_message_of(row) for row in found["instructions"]]:
        messages = messages[
            len(instructions_of(messages)) :
        ]  # older versions stored instructions as messages
    messages = [*instructions, *messages]
    answered = len(messages)
    while answered and messages[answered - 1].role == "user":
        answered -= 1
    if options.system is not None and [m.text for m in messages if m.role == "system"] != [options.system]:
        raise ConfigError(
            f"Conversation {found['id']} has another system message, or none, and it cannot be changed; "
            "leave --system out, or start a new conversation"
        )
    return _EarlierMessages(found["id"], messages[:answered], unanswered=answered < len(messages))


def _message_of(row: Row) -> BaseMessage:
    stored = row["parts"] or {"role": row["role"], "content": row["content"]}
    return message_from(stored)


# -- notices -----------------------------------------------------------------------------------------------------


def _introduce(choice: Choice, url: str) -> None:
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # bytes that are not UTF-8 do not end the chat
    if choice.no_key_is_set:
        notice(console.styled("Neither OPENAI_API_KEY nor ANTHROPIC_API_KEY is set."))
    if choice.provider == LOOPBACK:
        notice(console.styled("A provider on this machine answers with the verses of a song."))
    else:
        notice(console.styled(f"Model: {choice.model} of {choice.provider}"))
    notice(console.styled(f"Recorded in {masked(url)}"))
    if sys.stdin.isatty():
        notice(console.styled(f"Ctrl-C stops an answer, Ctrl-D or {EXIT} ends the chat, {HELP} shows more."))
    notice(Text())


def _show_earlier(earlier: _EarlierMessages) -> None:
    """Show the last messages, one line each."""
    shown, lines = earlier.messages[-_SHOWN:], []
    if count := len(earlier.messages) - len(shown):
        lines.append(f"... {console.plural(count, 'earlier message')}")
    lines += [f"{each.role}: {' '.join(printable(each.text).split()) or '(no text)'}" for each in shown]
    if earlier.unanswered:
        lines.append("(the last question has no answer and is left out)")
    notice(*(console.styled(line, "dim", overflow="ellipsis") for line in lines), Text())


def _command(options: ChatOptions, conversation: str) -> str:
    """The command that continues this conversation."""
    given = {"--conversation": conversation, "--provider": options.provider, "--model": options.model}
    if options.url != default_url():
        given["--url"] = masked(options.url).replace(":***@", "@")
    # The password is not printed; the user puts it into PGPASSWORD, which the driver reads.
    variables = ["PGPASSWORD=..."] if ":***@" in masked(options.url) else []
    words = [word for name, value in given.items() if value is not None for word in (name, value)]
    return " ".join([*variables, program(), "chat", shlex.join(words)])
