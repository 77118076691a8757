"""`recorder search`: prints the messages that a query finds, with the words around them."""

from __future__ import annotations

import shlex

from rich.text import Text

from recorder.cli import console, queries
from recorder.cli.console import moment
from recorder.storage.conversation_filter import ConversationFilter
from recorder.storage.dialects import masked
from recorder.storage.search.hits import SearchHit
from recorder.storage.search.search import SearchPage, search_page
from recorder.storage.store import SqlStore

#: How a match is printed.
_MATCH = "bold yellow"
_LINES = str.maketrans("\n\r\t", "   ")


def run(url: str, query: str, wanted: ConversationFilter, limit: int, *, as_json: bool) -> None:
    """Print at most `limit` hits, the newest first. Says so if there are more, or if not all messages are indexed."""
    found = queries.read(url, lambda store: _pages(store, query, wanted, limit))
    if as_json:
        console.print_json_rows([hit.as_dict() for hit in found.hits])
    else:
        _print(found)
    if found.next is not None:
        console.notice(console.styled(f"The newest {len(found.hits):,}; --limit lists more", "dim"))
    if not found.is_complete:
        command = f"recorder migrate --url {shlex.quote(masked(url))}"
        console.notice(console.styled(f"Some messages are not indexed yet; run: {command}", "yellow"))


async def _pages(store: SqlStore, query: str, wanted: ConversationFilter, limit: int) -> SearchPage:
    """As many pages as `limit` hits need: one may have fewer hits though more follow."""
    found = await search_page(store, query, wanted, limit)
    while len(found.hits) < limit and found.next is not None:
        more = await search_page(store, query, wanted, limit - len(found.hits), found.next)
        found = SearchPage((*found.hits, *more.hits), more.next, found.is_complete and more.is_complete)
    return found


def _print(found: SearchPage) -> None:
    screen = console.console()
    if not found.hits:
        screen.print("No message matches.")
    for number, hit in enumerate(found.hits):
        if number:
            screen.print()
        about = [hit.role, "in a tool call" if hit.part == "tool_call" else "", moment(hit.created_at)]
        screen.print(
            console.styled(hit.conversation_id, "bold"), console.styled("  ".join(filter(None, about)), "dim")
        )
        screen.print(_snippet(hit), soft_wrap=console.is_pipe(screen))


def _snippet(hit: SearchHit) -> Text:
    shown = Text("  ")
    for text, is_match in hit.snippet:
        shown += console.styled(text.translate(_LINES), _MATCH if is_match else "")
    return shown
