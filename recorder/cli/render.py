"""How conversations, runs and totals look on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from recorder.cli.branches import BESIDE, Fork, Said, is_linear, laid_out, path_of
from recorder.cli.console import cell, console, facts, moment, plural, size, styled, table
from recorder.cli.transcript import error_text
from recorder.core.json import dumps
from recorder.errors import NotFound

Row = Mapping[str, Any]

#: However deep a branch hangs, its lines have so much room (characters).
_NARROWEST = 20
#: Tokens from which on bytes a token mean something.
_ENOUGH = 10_000

#: Columns of `ls` beside id and opening words: name, title, and the width from which there is room for it.
_LISTED = (
    ("last_at", "last", 78),
    ("status", "status", 96),
    ("messages", "messages", 108),
    ("runs", "runs", 116),
)


def conversations(rows: Sequence[Row]) -> None:
    """One line a conversation, with as many columns as there is room for."""
    screen = console()
    if not rows:
        screen.print("No conversation is recorded yet.")
        return
    columns = [(name, title) for name, title, width in _LISTED if screen.width >= width]
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1))
    longest = max(len(cell(row["id"])) for row in rows)
    # An id is there to be copied: it breaks only where the terminal leaves no choice.
    shown.add_column("conversation", overflow="fold", no_wrap=longest + 20 <= screen.width)
    for _, title in columns:
        shown.add_column(title, no_wrap=True)
    shown.add_column("begins")  # the one that gives way
    for row in rows:
        values = {**row, "last_at": moment(row["last_at"])}
        begins = styled(cell(row["title"] or row["opening"]), no_wrap=True, overflow="ellipsis")
        shown.add_row(
            *(styled(cell(values[name])) for name in ("id", *(name for name, _ in columns))), begins
        )
    screen.print(shown)


def conversation(found: Row) -> None:
    """A conversation as it is read: who said what, and how each answer ended."""
    screen = console()
    messages, runs = found["messages"], found["runs"]
    screen.print(styled(f"conversation {found['id']}", "bold"))
    about = [
        plural(sum(not _is_silent(message) for message in messages), "message"),
        plural(len(runs), "run"),
        f"begun {moment(found['created_at'])}",
    ]
    screen.print(styled(", ".join(about), "dim"))
    if found["title"]:
        screen.print(styled(found["title"]))
    if is_linear(messages):
        for message in messages:
            screen.print()
            _message(screen, message)
    else:
        _tree(screen, messages)


def branch(kind: str, found: Row, name: str) -> dict[str, Any]:
    """The conversation with the messages of one path, and the runs that made them. Raises `NotFound`."""
    if kind != "conversation":
        raise NotFound(
            f"{kind} {found['id']} has no branches; show its conversation, {found['conversation_id']}"
        )
    path = path_of(found["messages"], name)
    wanted = {str(message["run_id"]) for message in path}
    return {**found, "messages": path, "runs": [run for run in found["runs"] if str(run["id"]) in wanted]}


def _tree(screen: Console, messages: Sequence[Row]) -> None:
    """The newest path as it is read, and beside it, at each fork, the branches that came before."""
    before: Fork | Said | None = None
    for step in laid_out(messages):
        joined = isinstance(step, Fork) and before is not None and len(before.indent) > len(step.indent)
        if not isinstance(before, Fork):
            _line(screen, Text(), step.indent + (BESIDE if joined else ""))
        if isinstance(step, Fork):
            end = ", the newest" if step.newest and not step.indent else ""
            drawn = f"{'└─' if step.newest else '├─'} branch {step.name}{end}"
            _line(screen, styled(_drawable(screen, drawn), "dim"), step.indent)
        else:
            _message(screen, step.row, step.indent, in_tree=True)
        before = step


def _line(screen: Console, text: Text, indent: str) -> None:
    """Text behind an indent, which stands before each of its lines; without one the terminal may break it."""
    if not indent:
        screen.print(text, soft_wrap=True)
        return
    before = styled(_drawable(screen, indent), "dim")
    for line in text.wrap(screen, max(screen.width - len(indent), _NARROWEST), overflow="fold") or [text]:
        shown = before + line
        shown.rstrip()
        screen.print(shown, soft_wrap=True)


def _drawable(screen: Console, drawn: str) -> str:
    """The lines of a tree in letters that the terminal's encoding has."""
    if not screen.options.ascii_only:
        return drawn
    return drawn.replace("│", "|").replace("├─", "|-").replace("└─", "`-")


def _message(screen: Console, message: Row, indent: str = "", *, in_tree: bool = False) -> None:
    made = [message["status"], message["model"], f"run {message['run_id']}"] if message["run_id"] else []
    made += ["said nothing"] if _is_silent(message) else []
    branch = [f"branch {message['branch']}"] if message["branch"] > 1 and not in_tree else []
    heading = _heading(message["role"], *branch, *made)
    if indent:
        _line(screen, heading, indent)
    else:
        screen.print(heading)
    _body(screen, message, indent)
    if message["error"]:
        _line(screen, styled(message["error"], "red"), indent)


def _body(screen: Console, message: Row, indent: str = "") -> None:
    if message["content"]:
        _line(screen, styled(message["content"]), indent)
    for line in _beside(message["parts"] or {}):
        _line(screen, styled(line, "cyan"), indent)


def _is_silent(message: Row) -> bool:
    """Whether it stands for a run without a text."""
    return message["message_id"] is None and not message["content"]


def _heading(role: str, *rest: str | None) -> Text:
    heading = styled(role, "bold")
    return heading + styled("".join(f"  {part}" for part in rest if part), "not bold dim")


def _beside(parts: Row) -> Iterator[str]:
    """What a message holds beside its text: attachments by their kind, calls with their arguments."""
    content = parts.get("content")
    for block in content if isinstance(content, list) else []:
        if isinstance(block, dict) and block.get("type") not in ("text", "tool_use", None):
            yield f"[{block['type']}]"
    for call in [*(parts.get("tool_calls") or []), *(parts.get("invalid_tool_calls") or [])]:
        arguments = call.get("args")
        text = arguments if isinstance(arguments, str) else dumps(arguments)
        yield f"calls {call.get('name')}({text})"
    if parts.get("tool_call_id"):
        yield f"answers {parts['tool_call_id']}"


def run(found: Row) -> None:
    """A run: how it went, what it was asked, what it said, and, when asked for, every token."""
    screen = console()
    screen.print(styled(f"run {found['id']}", "bold"))
    screen.print(facts(_about(found)), soft_wrap=True)
    for message in found["asked"]:
        screen.print()
        screen.print(_heading(message["role"]))
        _body(screen, message)
    for message in found["messages"]:
        screen.print()
        _message(screen, message)
    if "tokens" in found:
        screen.print()
        screen.print(table(("seq", "at_us", "kind", "idx", "text"), found["tokens"], fold=["text"]))


def _about(found: Row) -> list[tuple[str, Any]]:
    stats = found["stats"]
    spent = [found["input_tokens"], found["output_tokens"]]
    usage = "{:,} in, {:,} out ({})".format(*spent, found["usage_source"]) if None not in spent else None
    return [
        ("status", found["status"]),
        ("finish reason", found["finish_reason"]),
        ("error", error_text(found["error_type"], found["error_message"])),
        ("conversation", found["conversation_id"]),
        ("model", found["response_model"] or found["request_model"]),
        ("provider", found["provider_name"]),
        ("response id", found["response_id"]),
        ("started", moment(found["started_at"])),
        ("first token", _figure(stats["time_to_first_token_ms"], "ms")),
        ("duration", _figure(stats["duration_ms"], "ms")),
        ("recorded", plural(stats["token_count"], "token")),
        ("pace", _figure(stats["tokens_per_second"], "tokens/s")),
        ("usage", usage),
        ("missing", _missing(found["gaps"])),
    ]


def _figure(value: float | None, unit: str) -> str | None:
    return None if value is None else f"{value:,.1f} {unit}"


def _missing(gaps: Sequence[Row]) -> str | None:
    """The holes in a run; None when there are none."""
    holes = [f"{plural(gap['count'], 'token')} from {gap['seq']} on: {gap['reason']}" for gap in gaps]
    return "; ".join(holes) or None


def totals(found: Row) -> None:
    """How much is stored."""
    statuses = [f"{count:,} {status}" for status, count in found["runs_by_status"].items()]
    stored, tokens = found["bytes"], found["tokens"]
    # Below that it is the empty tables that count.
    each = f", {stored / tokens:,.0f} a token" if stored and tokens >= _ENOUGH else ""
    pairs = [
        ("database", found["url"]),
        ("conversations", f"{found['conversations']:,}"),
        ("messages", f"{found['messages']:,}"),
        ("runs", f"{found['runs']:,}" + (f" ({', '.join(statuses)})" if statuses else "")),
        ("tokens", f"{tokens:,}"),
        (
            "missing",
            f"{found['missing_tokens']:,} tokens, see the table gaps" if found["missing_tokens"] else None,
        ),
        ("frames", f"{found['frames']:,}"),
        ("on disk", None if stored is None else size(stored) + each),
        ("oldest run", moment(found["oldest"])),
        ("newest run", moment(found["newest"])),
    ]
    console().print(facts(pairs))
