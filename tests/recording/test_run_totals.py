"""The totals of a run: counts and hashes do not depend on how its tokens and frames are split into rows."""

from __future__ import annotations

from hashlib import sha256

import pytest

from recorder.recording.run_totals import RunTotals, update


def test_the_hash_runs_over_the_items_joined_by_commas() -> None:
    """Two rows have the hash of one row with the same items."""
    totals = RunTotals()
    totals.add_tokens(1, b'[[0,"a"]]')
    totals.add_tokens(2, b'[[1,"b"],[2,"c"]]')
    assert totals.token_count == 3
    assert totals.tokens_sha256() == sha256(b'[0,"a"],[1,"b"],[2,"c"]').hexdigest()


def test_a_run_with_lost_tokens_has_no_hashes() -> None:
    """The count is that of the stored tokens."""
    totals = RunTotals()
    totals.add_tokens(3, b"[0,0,0]")
    totals.add_frames(1, b"frame")
    totals.lose_tokens(2)
    assert totals.token_count == 1
    assert (totals.tokens_sha256(), totals.frames_sha256(accepted=1)) == (None, None)


def test_frames_have_a_hash_when_all_accepted_frames_are_stored() -> None:
    """A run without frames has none, and neither has a run whose frame was dropped."""
    totals = RunTotals()
    assert totals.frames_sha256(accepted=0) is None
    totals.add_frames(2, b"onetwo")
    assert totals.frames_sha256(accepted=2) == sha256(b"onetwo").hexdigest()
    assert totals.frames_sha256(accepted=3) is None


@pytest.mark.parametrize("stored", [1, 2])
def test_restart_counts_from_zero_for_a_new_file(stored: int) -> None:
    """Frames keep their hash only when the new file gets all of them."""
    totals = RunTotals()
    totals.add_tokens(1, b"[0]")
    totals.add_frames(2, b"onetwo")
    totals.restart(1, frames_stored=stored)
    assert (totals.file, totals.token_count, totals.tokens_sha256()) == (1, 0, sha256(b"").hexdigest())
    assert (totals.frames_sha256(accepted=2) is None) == (stored < 2)


@pytest.mark.parametrize("size", [0, 1, 2_000, 2_001, 10_000])
def test_pieces_have_the_hash_of_the_whole(size: int) -> None:
    """Long data is hashed in pieces, and the hash is that of the data in one piece."""
    digest, data = sha256(), bytes(range(256)) * 40
    update(digest, data[:size])
    assert digest.hexdigest() == sha256(data[:size]).hexdigest()
