"""`recorder ls`: prints the list of conversations."""

from __future__ import annotations

from recorder.cli import console, queries, render
from recorder.storage import conversation_list
from recorder.storage.conversation_filter import ConversationFilter


def run(url: str, limit: int | None, wanted: ConversationFilter, *, as_json: bool) -> None:
    """Print at most `limit` of the conversations that match; None is all. Says so if there are more."""
    found = queries.read(url, lambda store: conversation_list.listed(store, limit, wanted))
    if as_json:
        console.print_json_rows(found.rows)
    else:
        render.conversations(found.rows, is_filtered=not wanted.is_empty)
    if found.is_cut:
        total = (
            f"{found.total:,}"
            if found.total is not None
            else f"more than {max(conversation_list.COUNTED, limit or 0):,}"
        )
        console.notice(console.styled(f"{len(found.rows):,} of {total}; --all lists all", "dim"))
