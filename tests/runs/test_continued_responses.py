"""Which conversation a response belongs to, for the models of this process."""

from __future__ import annotations

from uuid import uuid4

from recorder.runs import continued_responses
from recorder.runs.continued_responses import remember_root, root_of


def test_a_response_leads_to_the_run_that_its_conversation_began_with() -> None:
    """An unknown response, and none, lead to no run."""
    root = uuid4()
    remember_root("resp_na", root)
    assert (root_of("resp_na"), root_of("resp_nb"), root_of(None)) == (root, None, None)


def test_the_newest_responses_are_remembered() -> None:
    """Older ones are forgotten, so that the memory has a limit."""
    limit = continued_responses._MAX_RESPONSES
    for number in range(limit + 1):
        remember_root(f"resp_n{number}", uuid4())
    assert root_of("resp_n0") is None
    assert root_of("resp_n1") is not None
    assert len(continued_responses._roots) == limit
