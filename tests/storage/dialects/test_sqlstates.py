"""The kind of failure for each error code of Postgres."""

from __future__ import annotations

import pytest
from asyncpg import exceptions

from recorder.storage.dialects.sqlstates import failure_of, is_lost

KINDS = {
    "doubtful": "08006 25006 25P02 26000 40001 40P01 53100 53300 55006 55P03 57P01 57P03 57P05 58030 72000",
    "slow": "53200 57014 25P03 25P04",
    "poison": "09000 20000 21000 22P05 22021 23502 23505 27000 2F002 38000 39000 40002 44000 54000 54001 P0001",
    "fatal": "0A000 28000 28P01 3D000 3F000 42501 42601 42703 42P01 55P02",
    "refused": "XX000 XX001 XX002 F0000 HV000 24000 2D000 34000 3B000 00000",
}


@pytest.mark.parametrize(("kind", "codes"), KINDS.items())
def test_each_code_has_its_kind_of_failure(kind: str, codes: str) -> None:
    """An error of rows is never taken for one of the network, and no other error costs rows."""
    assert {code: failure_of(code) for code in codes.split()} == dict.fromkeys(codes.split(), kind)


def test_the_classes_of_codes_that_are_refused_are_known() -> None:
    """A class that asyncpg adds is refused, too: rows are left out for it only while others can be stored."""
    codes = (getattr(error, "sqlstate", None) for error in vars(exceptions).values())
    classes = {code[:2] for code in codes if isinstance(code, str)}
    refused = {code for code in classes if failure_of(code + "000") == "refused"}
    known = (
        "01",
        "02",
        "03",
        "0B",
        "0F",
        "0L",
        "0P",
        "0Z",
        "10",
        "24",
        "2B",
        "2D",
        "34",
        "3B",
        "F0",
        "HV",
        "XX",
    )
    assert refused == set(known)


def test_a_connection_is_lost_after_these_codes() -> None:
    """The server closed it, does not write any more, or is not in the transaction that the driver believes."""
    lost = ["08006", "57P01", "57P05", "25006", "25P01", "25P02", "25P03", "25P04"]
    assert [code for code in [*lost, "40001", "57014", "22000"] if is_lost(code)] == lost
