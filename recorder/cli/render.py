"""Prints conversations, runs and totals for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from recorder.cli import evaluations, steps
from recorder.cli.branches import BESIDE, Fork, IndentedMessage, is_linear, laid_out, path_of
from recorder.cli.console import (
    cell,
    console,
    facts,
    is_pipe,
    moment,
    plural,
    print_tabs,
    print_unpadded,
    shortened,
    size,
    styled,
    table,
)
from recorder.core.json import dumps
from recorder.errors import NotFound
from recorder.storage.transcript import error_text

Row = Mapping[str, Any]

#: The least width of the text of a branch, however deep its indent (characters).
_NARROWEST = 20
#: The least number of tokens for which bytes per token are shown; below it empty pages dominate.
_ENOUGH = 10_000

#: A terminal of this width (characters) has the status and the counts of each conversation in `ls`.
_USUAL_WIDTH = 80
#: The columns of `ls` between the id and the beginning, the most important first, and the title of each.
_LISTED = {"status": "status", "messages": "messages", "runs": "runs", "last_at": "last"}
#: The widths of a time with and without its seconds, and of the beginning of a conversation that is readable.
_TIME, _DATE, _READABLE = 20, 10, 12
#: The space between two columns: one for the line below the titles, one of padding.
_GAP = 2


def conversations(rows: Sequence[Row], *, is_filtered: bool = False) -> None:
    """One line for each conversation, with as many columns as fit."""
    screen = console()
    if not rows:
        screen.print("No conversation matches." if is_filtered else "No conversation is recorded yet.")
        return
    lines = [
        {**row, "last_at": moment(row["last_at"]), "begins": row["title"] or row["opening"]} for row in rows
    ]
    if is_pipe(screen):
        print_tabs(("id", "last_at", "status", "messages", "runs", "begins"), lines)
        return
    longest = max(cell_len(cell(row["id"])) for row in rows)
    widths, room = _widths(lines, screen.width, screen.width - longest - _GAP)
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    shown.add_column("conversation", overflow="fold", no_wrap=longest <= screen.width)
    for name in widths:
        shown.add_column(
            _LISTED[name], no_wrap=True, justify="right" if name in ("messages", "runs") else "left"
        )
    if room > 0:
        shown.add_column("begins", no_wrap=True)
    for line in lines:
        cells = [cell(line["id"]), *(cell(line[name])[:width] for name, width in widths.items())]
        shown.add_row(*map(styled, [*cells, shortened(cell(line["begins"]), room)][: len(shown.columns)]))
    screen.print(shown)


def _widths(lines: Sequence[Row], width: int, room: int) -> tuple[dict[str, int], int]:
    """The width of each column between the id and the beginning, and what is left for the beginning."""
    widths: dict[str, int] = {}
    # Status and counts are worth more than a readable beginning, except in a narrow terminal.
    least = 0 if width >= _USUAL_WIDTH else _READABLE
    for name in ("status", "messages", "runs"):
        longest = max(len(_LISTED[name]), *(len(cell(line[name])) for line in lines))
        if room - longest - _GAP < least:
            break
        widths[name] = longest
        room -= longest + _GAP
    else:
        for needed, left in ((_TIME, 2 * _READABLE), (_DATE, _READABLE)):
            if room - needed - _GAP >= left:
                widths["last_at"] = needed
                return widths, room - needed - _GAP
    return widths, room if room >= len("begins") else 0


def conversation(found: Row) -> None:
    """A conversation: its messages with their roles, and the status of each answer."""
    screen = console()
    messages, runs = found["messages"], found["runs"]
    screen.print(styled(f"conversation {found['id']}", "bold"))
    about = [
        plural(sum(not _has_no_text(message) for message in messages), "message"),
        plural(len(runs), "run"),
        f"begun {moment(found['created_at'])}",
    ]
    if found["user_id"]:
        about.append(f"user {found['user_id']}")
    if tags := found["tags"]:  # in a database from somebody else it may be no list
        about.append(f"tagged {', '.join(map(str, tags)) if isinstance(tags, list) else tags}")
    screen.print(styled(", ".join(about), "dim"))
    if found["title"]:
        screen.print(styled(found["title"]))
    for line in evaluations.summary_of(messages, ascii_only=screen.options.ascii_only):
        screen.print(line)
    for message in found["instructions"]:
        screen.print()
        _message(screen, message)
    if is_linear(messages):
        for message in messages:
            screen.print()
            _message(screen, message)
    else:
        _tree(screen, messages)


def branch(kind: str, found: Row, name: str) -> dict[str, Any]:
    """The conversation with the messages of one branch only, and their runs. Raises `NotFound`."""
    if kind != "conversation":
        raise NotFound(
            f"{kind.capitalize()} {found['id']} has no branches, only conversations have; "
            f"show conversation {found['conversation_id']} with --branch"
        )
    path = path_of(found["messages"], name)
    on_path = {str(message["run_id"]) for message in path}
    return {**found, "messages": path, "runs": [run for run in found["runs"] if str(run["id"]) in on_path]}


def _tree(screen: Console, messages: Sequence[Row]) -> None:
    """The newest branch without indent; at each fork the other branches come first and are indented."""
    before: Fork | IndentedMessage | None = None
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
    """Text with an indent before each of its lines. Text without an indent is not wrapped here."""
    if not indent:
        screen.print(text, soft_wrap=True)
        return
    before = styled(_drawable(screen, indent), "dim")
    for line in text.wrap(screen, max(screen.width - len(indent), _NARROWEST), overflow="fold") or [text]:
        shown = before + line
        shown.rstrip()
        screen.print(shown, soft_wrap=True)


def _drawable(screen: Console, drawn: str) -> str:
    """The lines of a tree, in ASCII if the terminal's encoding is not Unicode."""
    if not screen.options.ascii_only:
        return drawn
    return drawn.replace("│", "|").replace("├─", "|-").replace("└─", "`-")


def _message(screen: Console, message: Row, indent: str = "", *, in_tree: bool = False) -> None:
    made = [message["status"], message["model"], f"run {message['run_id']}"] if message["run_id"] else []
    made += ["no text"] if _has_no_text(message) else []
    branch = [f"branch {message['branch']}"] if message["branch"] > 1 and not in_tree else []
    heading = _heading(message["role"], *branch, *made)
    if indent:
        _line(screen, heading, indent)
    else:
        screen.print(heading)
    _body(screen, message, indent)
    if message["error"]:
        _line(screen, styled(message["error"], "red"), indent)
    if (evaluated := evaluations.line_of(message)) is not None:
        _line(screen, evaluated, indent)


def _body(screen: Console, message: Row, indent: str = "") -> None:
    if message["content"]:
        _line(screen, styled(message["content"]), indent)
    for line in _other_parts(message["parts"] or {}):
        _line(screen, styled(line, "cyan"), indent)


def _has_no_text(message: Row) -> bool:
    """Whether the row is a run without a message and without text."""
    return message["message_id"] is None and not message["content"]


def _heading(role: str, *rest: str | None) -> Text:
    heading = styled(role, "bold")
    return heading + styled("".join(f"  {part}" for part in rest if part), "not bold dim")


def _other_parts(parts: Row) -> Iterator[str]:
    """A line for each part that is not text: the type of an attachment, a tool call with its arguments."""
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


def show(kind: str, found: Row) -> None:
    """What `recorder show` found."""
    {"run": run, "step": steps.show}.get(kind, conversation)(found)


def run(found: Row) -> None:
    """A run: its status and figures, its prompt, its messages, and its tokens if `found` has them."""
    screen = console()
    screen.print(styled(f"run {found['id']}", "bold"))
    print_unpadded(facts(_about(found)), soft_wrap=True)
    for message in found["asked"]:
        screen.print()
        screen.print(_heading(message["role"]))
        _body(screen, message)
    for message in found["messages"]:
        screen.print()
        _message(screen, message)
    if "tokens" in found:
        screen.print()
        print_unpadded(table(("seq", "at_us", "kind", "idx", "text"), found["tokens"], fold=["text"]))


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
    """The gaps of a run in words; None if there are none."""
    lines = [f"{plural(gap['count'], 'token')} from number {gap['seq']} on: {gap['reason']}" for gap in gaps]
    return "; ".join(lines) or None


def totals(found: Row) -> None:
    """The counts and the size of a database."""
    statuses = [f"{count:,} {status}" for status, count in found["runs_by_status"].items()]
    stored, tokens = found["bytes"], found["tokens"]
    each = f", {stored / tokens:,.0f} bytes per token" if stored and tokens >= _ENOUGH else ""
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
    print_unpadded(facts(pairs))
