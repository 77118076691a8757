"""Turns the lines of an export into rows."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from types import NoneType
from typing import Any, NamedTuple

import orjson

from recorder.core.installation import UPGRADE
from recorder.errors import ConfigError, StoreError
from recorder.export.format.shapes import (
    FORMAT,
    OBJECTS,
    VERSION,
    Checksums,
    Row,
    count,
    moment,
    offset,
    row_of,
)
from recorder.storage.compression import MAX_DECOMPRESSED, compress
from recorder.storage.frame_block import join
from recorder.storage.rows import AnnotationRow, FrameRow, GapRow, RunRow, SegmentRow

#: How many characters of a line that is not a header are shown.
_SHOWN = 60
#: How many characters of the reason why a line is damaged are shown.
_WHY = 300
#: The most tokens or frames of one row, and the most bytes in them. Recorder writes rows of some thousands.
MAX_ITEMS = 2**16
MAX_ROW = MAX_DECOMPRESSED
#: How many bytes of blank lines may follow the last line.
_MAX_BLANK = 2**16
#: https://sqlite.org/fileformat2.html
_SQLITE = b"SQLite format 3"


class Header(NamedTuple):
    """The first line of an export."""

    version: int
    exported_at: datetime
    #: URL of the exported database, without its password.
    source: str


def read(lines: Iterable[str | bytes]) -> tuple[Header, Iterator[Row]]:
    """The header of an export, and an iterator over its rows.

    Raises `ConfigError` for a file that is not an export, or an export of a newer version. The iterator raises
    `StoreError` at a damaged line, at the end of a run whose checksums differ, and at the end of a file that was cut
    off.
    """
    numbered = enumerate(iter(lines), 1)
    _, first = next(numbered, (0, None))
    if first is None:
        raise ConfigError("The file is empty, so it is not an export of recorder")
    return _header(first), _rows(_LineReader(numbered))


def _shown(line: str | bytes) -> str:
    if line[: len(_SQLITE)] in (_SQLITE, _SQLITE.decode()):
        return "it is a SQLite database"
    return f"it begins with {line[:_SHOWN].strip()!r}"


def _header(line: str | bytes) -> Header:
    try:
        fields = orjson.loads(line)
    except ValueError:
        fields = None
    if (
        not isinstance(fields, dict)
        or fields.get("format") != FORMAT
        or type(fields.get("version")) is not int
    ):
        raise ConfigError(
            f"The file is not an export of recorder: {_shown(line)}; `recorder export` writes one"
        )
    if not 1 <= fields["version"] <= VERSION:
        raise ConfigError(
            f"The export has version {fields['version']} of the format, and this recorder reads up to {VERSION}; "
            + UPGRADE
        )
    try:
        return Header(
            fields["version"], moment("exported_at", fields["exported_at"]), str(fields.get("source") or "")
        )
    except (KeyError, ValueError) as error:
        raise ConfigError(f"The header of the export is damaged ({error}); export again") from error


class _LineReader:
    """Reads the lines after the header, each as a list."""

    def __init__(self, numbered: Iterator[tuple[int, str | bytes]]) -> None:
        self._numbered = numbered
        #: Number of the line that was read last.
        self.number = 1

    def next(self) -> list[Any]:
        """The next line. Raises `StoreError` if there is none, or if it is not a line of an export."""
        found = next(self._numbered, None)
        if found is None:
            raise StoreError(
                f"The export was cut off after line {self.number}: its last line is missing; copy it again"
            )
        self.number, line = found
        try:
            values = orjson.loads(line)
        except ValueError as error:
            raise self.damaged(f"not JSON: {error}") from error
        if not isinstance(values, list) or len(values) < 2 or not isinstance(values[1], str):
            raise self.damaged("it is not [offset, kind, ...]")
        return values

    def end(self) -> None:
        """Check that only blank lines follow. Raises `StoreError`."""
        blank = 0
        for number, line in self._numbered:
            self.number = number
            blank += len(line)
            if line.strip() or blank > _MAX_BLANK:
                raise self.damaged("the export ended before it")

    def damaged(self, why: object) -> StoreError:
        """The error for the line that was read last."""
        text = str(why)
        text = text if len(text) <= _WHY else text[:_WHY] + "..."
        return StoreError(f"Line {self.number} of the export is damaged ({text}); copy or export it again")


def _rows(lines: _LineReader) -> Iterator[Row]:
    parser = _RowParser(lines)
    while True:
        line = lines.next()
        try:
            if line[1] == "eof":
                parser.eof(line)
                break
            row = parser.row(line)
        except StoreError:
            raise
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
            raise lines.damaged(error) from error
        if row is not None:
            yield row
    lines.end()


class _RowParser:
    """Parses one line after another. A segment or a row of frames reads the lines of its items too."""

    def __init__(self, lines: _LineReader) -> None:
        self._lines = lines
        self._run: RunRow | None = None
        self._checksums = Checksums()
        self._runs = 0

    def row(self, line: list[Any]) -> Row | None:
        """The row of a line; None for the line that ends a run. Damaged values raise errors of several types, e.g.
        `ValueError`."""
        kind = line[1]
        if kind in OBJECTS and kind != "annotation":
            if self._run is not None:
                raise ValueError(f"run {self._run.id} has not ended before it")
            row: Row = row_of(kind, line[2])
            if isinstance(row, RunRow):
                self._run = row
                self._runs += 1
            return row
        if (read := _OF_A_RUN.get(kind)) is None:
            raise ValueError(f"there is no kind {kind!r}")
        if kind == "annotation" and self._run is None:
            return _annotation_without_run(line)
        if self._run is None:
            raise ValueError("no run began before it")
        return read(self, self._run, line)

    def eof(self, line: list[Any]) -> None:
        """The last line. Raises `ValueError` if its number of runs is not the number that was read."""
        if self._run is not None:
            raise ValueError(f"run {self._run.id} has not ended before it")
        if line[2]["runs"] != self._runs:
            raise ValueError(f"{self._runs} runs came before it, and it says {line[2]['runs']}")

    def _segment(self, run: RunRow, line: list[Any]) -> Row:
        _, _, seq, number, *raw = line
        count("seq of a segment", seq)
        if raw:
            (deltas,) = raw
            if type(deltas) is not str:
                raise ValueError("its tokens must be text")
        else:
            deltas = orjson.dumps(self._items("count of a segment", number, self._token)).decode()
        row = SegmentRow(run.id, seq, count("count of a segment", number), deltas)
        self._checksums.add_segment(row)
        return row

    def _items(self, name: str, number: Any, read: Callable[[], list[Any]]) -> list[list[Any]]:
        """The items on the next lines. Raises `ValueError` for more than one row may have."""
        found: list[list[Any]] = []
        size = 0
        for _ in range(count(name, number, MAX_ITEMS)):
            found.append(read())
            size += sum(len(each) for each in found[-1] if type(each) is not int)
            if size > MAX_ROW:
                raise ValueError(f"its row has more than {MAX_ROW} bytes")
        return found

    def _token(self) -> list[Any]:
        at_us, kind, text, *idx = self._lines.next()
        if (
            type(text) is not str
            or (not idx and kind != "text")
            or len(idx) > 1
            or (idx and type(idx[0]) is not str)
        ):
            raise ValueError("it is not a token")
        offset("the offset of a token", at_us)
        return [at_us, text, kind, *idx] if idx else [at_us, text]

    def _frames(self, run: RunRow, line: list[Any]) -> Row:
        at_us, _, seq, first_delta, number = line
        found = self._items("count of frames", number, self._frame)
        data = [frame for _, frame in found]
        block = join(data, [at for at, _ in found])
        [(packed, dictionary)] = compress([block], [run.wire])
        self._checksums.add_frames(number, b"".join(data))
        return FrameRow(run.id, *_numbers(seq, first_delta, number, at_us), packed, dictionary)

    def _frame(self) -> list[Any]:
        at_us, kind, payload = self._lines.next()
        offset("the offset of a frame", at_us)
        if kind == "frame":
            return [at_us, payload.encode()]
        if kind != "frame64":
            raise ValueError("it is not a frame")
        return [at_us, base64.b64decode(payload, validate=True)]

    def _stored(self, run: RunRow, line: list[Any]) -> Row:
        at_us, _, seq, first_delta, number, dictionary, payload = line
        if type(dictionary) not in (str, NoneType):
            raise ValueError("the dictionary of frames must be text")
        data = base64.b64decode(payload, validate=True)
        numbers = _numbers(seq, first_delta, number, at_us)
        self._checksums.add_frames(number, data)
        return FrameRow(run.id, *numbers, data, dictionary)

    def _gap(self, run: RunRow, line: list[Any]) -> Row:
        _, _, seq, number, reason = line
        if type(reason) is not str:
            raise ValueError("reason of a gap must be text")
        return GapRow(run.id, count("seq of a gap", seq), count("count of a gap", number), reason)

    def _annotation(self, run: RunRow, line: list[Any]) -> Row:
        row = row_of("annotation", line[2])
        if row.run_id != run.id or row.is_without_run:
            raise ValueError(f"it is of run {row.run_id} and comes after {run.id}")
        found: Row = row
        return found

    def _end(self, run: RunRow, line: list[Any]) -> None:
        fields, found = line[2], self._checksums.fields()
        if any(fields[key] != found[key] for key in found):
            raise ValueError(f"run {run.id} is not the same as when it was written")
        self._run, self._checksums = None, Checksums()


def _annotation_without_run(line: list[Any]) -> Row:
    row: AnnotationRow = row_of("annotation", line[2])
    if not row.is_without_run:
        raise ValueError(f"it is of run {row.run_id}, and no run began before it")
    return row


def _numbers(seq: Any, first_delta: Any, number: Any, at_us: Any) -> tuple[int, int, int, int]:
    return (
        count("seq of frames", seq),
        count("first_delta of frames", first_delta),
        count("count of frames", number),
        offset("the offset of frames", at_us),
    )


_OF_A_RUN: dict[str, Callable[[_RowParser, RunRow, list[Any]], Row | None]] = {
    "segment": _RowParser._segment,
    "frames": _RowParser._frames,
    "stored": _RowParser._stored,
    "gap": _RowParser._gap,
    "annotation": _RowParser._annotation,
    "end": _RowParser._end,
}
