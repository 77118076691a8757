"""Times as text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone, tzinfo

from hypothesis import given
from hypothesis import strategies as st

from recorder.core.clock import iso, iso_each, parse_iso

ZONES = st.sampled_from([UTC, UTC, timezone(timedelta(0)), timezone(timedelta(hours=5, minutes=30))])
EARLIEST, LATEST = datetime(1, 1, 2), datetime(9999, 12, 30)
TIMES = st.datetimes(EARLIEST, LATEST, timezones=ZONES) | st.datetimes(EARLIEST, LATEST, timezones=ZONES).map(
    lambda moment: moment.replace(microsecond=0)
)


class Unknown(tzinfo):
    """A time zone of the application."""

    def utcoffset(self, _moment: datetime | None) -> timedelta:
        """An hour."""
        return timedelta(hours=1)

    def dst(self, _moment: datetime | None) -> None:
        """Not known."""

    def tzname(self, _moment: datetime | None) -> None:
        """None."""


@given(st.lists(st.none() | TIMES))
def test_many_times_have_the_same_texts_as_each_of_them(moments: list[datetime | None]) -> None:
    """With and without decimals, in any time zone."""
    assert iso_each(moments) == [None if moment is None else iso(moment) for moment in moments]


def test_a_time_zone_of_the_application_is_converted() -> None:
    """JSON libraries do not know it."""
    moment = datetime(2026, 11, 21, 1, tzinfo=Unknown())
    assert iso_each([None, moment]) == [None, "2026-11-21T00:00:00.000000Z"]
    assert parse_iso(iso(moment)) == moment
