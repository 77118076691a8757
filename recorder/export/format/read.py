"""Lines to rows."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from types import NoneType
from typing import Any, NamedTuple

import orjson

from recorder.errors import ConfigError, StoreError
from recorder.export.format.shapes import FORMAT, OBJECTS, VERSION, Proof, Row, count, moment, offset, row_of
from recorder.storage.compression import MAX_DECOMPRESSED, compress
from recorder.storage.frame_block import join
from recorder.storage.rows import FrameRow, GapRow, RunRow, SegmentRow

#: What is shown of a line that is no header (characters).
_SHOWN = 60
#: What is shown of what is wrong with a line (characters).
_WHY = 300
#: The most tokens or frames of one row, and their bytes. A row that recorder has written has some thousands.
MAX_ITEMS = 2**16
MAX_ROW = MAX_DECOMPRESSED
#: Blank lines behind the last one are passed over up to here (bytes).
_MAX_BLANK = 2**16
#: https://sqlite.org/fileformat2.html
_SQLITE = b"SQLite format 3"


class Header(NamedTuple):
    """The first line of an export."""

    version: int
    exported_at: datetime
    #: Where the rows are from.
    source: str


def read(lines: Iterable[str | bytes]) -> tuple[Header, Iterator[Row]]:
    """The header of an export, and its rows as they were written; lazy behind the header.

    Raises `ConfigError` for what is no export, or one of a newer version. The rows raise `StoreError` at a line that
    is damaged, at the end of a run that is not what was written, and at an end of file that is none of an export.
    """
    numbered = enumerate(iter(lines), 1)
    _, first = next(numbered, (0, None))
    if first is None:
        raise ConfigError("The file is empty, so it is no export of recorder")
    return _header(first), _rows(_Lines(numbered))


def _shown(line: str | bytes) -> str:
    if line[: len(_SQLITE)] in (_SQLITE, _SQLITE.decode()):
        return "it is a SQLite database"
    return f"it begins with {line[:_SHOWN].strip()!r}"


def _header(line: str | bytes) -> Header:
    try:
        said = orjson.loads(line)
    except ValueError:
        said = None
    if not isinstance(said, dict) or said.get("format") != FORMAT or type(said.get("version")) is not int:
        raise ConfigError(f"The file is no export of recorder: {_shown(line)}; `recorder export` writes one")
    if not 1 <= said["version"] <= VERSION:
        raise ConfigError(
            f"The export has version {said['version']} of the format, and this recorder reads up to {VERSION}; "
            "run `pip install --upgrade chat-recorder`"
        )
    try:
        return Header(
            said["version"], moment("exported_at", said["exported_at"]), str(said.get("source") or "")
        )
    except (KeyError, ValueError) as error:
        raise ConfigError(f"The header of the export is damaged ({error}); export again") from error


class _Lines:
    """The lines behind the header, each a list."""

    def __init__(self, numbered: Iterator[tuple[int, str | bytes]]) -> None:
        self._numbered = numbered
        #: Of the line that was read last.
        self.number = 1

    def next(self) -> list[Any]:
        """The next line. Raises `StoreError` where there is none, or one that is no line of an export."""
        found = next(self._numbered, None)
        if found is None:
            raise StoreError(
                f"The export was cut off behind line {self.number}: its last line is missing; copy it again"
            )
        self.number, line = found
        try:
            said = orjson.loads(line)
        except ValueError as error:
            raise self.damaged(f"no JSON: {error}") from error
        if not isinstance(said, list) or len(said) < 2 or not isinstance(said[1], str):
            raise self.damaged("it is no [offset, kind, ...]")
        return said

    def end(self) -> None:
        """Nothing but some blank lines may follow."""
        blank = 0
        for number, line in self._numbered:
            self.number = number
            blank += len(line)
            if line.strip() or blank > _MAX_BLANK:
                raise self.damaged("the export ended before it")

    def damaged(self, why: object) -> StoreError:
        """The error for the line that was read last."""
        told = str(why)
        told = told if len(told) <= _WHY else told[:_WHY] + "..."
        return StoreError(f"Line {self.number} of the export is damaged ({told}); copy or export it again")


def _rows(lines: _Lines) -> Iterator[Row]:
    part = _Import(lines)
    while True:
        line = lines.next()
        try:
            if line[1] == "eof":
                part.eof(line)
                break
            row = part.row(line)
        except StoreError:
            raise
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
            raise lines.damaged(error) from error
        if row is not None:
            yield row
    lines.end()


class _Import:
    """One line after another; a segment and a row of frames take as many more as they have."""

    def __init__(self, lines: _Lines) -> None:
        self._lines = lines
        self._run: RunRow | None = None
        self._proof = Proof()
        self._runs = 0

    def row(self, line: list[Any]) -> Row | None:
        """The row of a line; None for one that only says that a run ends. Raises what damaged values raise."""
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
        if self._run is None:
            raise ValueError("no run began before it")
        return read(self, self._run, line)

    def eof(self, line: list[Any]) -> None:
        """The last line. Raises `ValueError` when what it counts is not what came."""
        if self._run is not None:
            raise ValueError(f"run {self._run.id} has not ended before it")
        if line[2]["runs"] != self._runs:
            raise ValueError(f"{self._runs} runs came and it counts {line[2]['runs']}")

    def _segment(self, run: RunRow, line: list[Any]) -> Row:
        _, _, seq, number, *raw = line
        count("seq of a segment", seq)
        if raw:
            (deltas,) = raw
            if type(deltas) is not str:
                raise ValueError("its tokens are no text")
        else:
            deltas = orjson.dumps(self._items("count of a segment", number, self._token)).decode()
        row = SegmentRow(run.id, seq, count("count of a segment", number), deltas)
        self._proof.add_segment(row)
        return row

    def _items(self, name: str, number: Any, read: Callable[[], list[Any]]) -> list[list[Any]]:
        """What the next lines hold. Raises `ValueError` for more than one row may have."""
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
            raise ValueError("it is no token")
        offset("the offset of a token", at_us)
        return [at_us, text, kind, *idx] if idx else [at_us, text]

    def _frames(self, run: RunRow, line: list[Any]) -> Row:
        at_us, _, seq, first_delta, number = line
        found = self._items("count of frames", number, self._frame)
        data = [frame for _, frame in found]
        block = join(data, [at for at, _ in found])
        [(packed, dictionary)] = compress([block], [run.wire])
        self._proof.add_frames(number, b"".join(data))
        return FrameRow(run.id, *_numbers(seq, first_delta, number, at_us), packed, dictionary)

    def _frame(self) -> list[Any]:
        at_us, kind, said = self._lines.next()
        offset("the offset of a frame", at_us)
        if kind == "frame":
            return [at_us, said.encode()]
        if kind != "frame64":
            raise ValueError("it is no frame")
        return [at_us, base64.b64decode(said, validate=True)]

    def _stored(self, run: RunRow, line: list[Any]) -> Row:
        at_us, _, seq, first_delta, number, dictionary, said = line
        if type(dictionary) not in (str, NoneType):
            raise ValueError("the dictionary of frames is a text")
        data = base64.b64decode(said, validate=True)
        numbers = _numbers(seq, first_delta, number, at_us)
        self._proof.add_frames(number, data)
        return FrameRow(run.id, *numbers, data, dictionary)

    def _gap(self, run: RunRow, line: list[Any]) -> Row:
        _, _, seq, number, reason = line
        if type(reason) is not str:
            raise ValueError("reason of a gap is a text")
        return GapRow(run.id, count("seq of a gap", seq), count("count of a gap", number), reason)

    def _annotation(self, run: RunRow, line: list[Any]) -> Row:
        row = row_of("annotation", line[2])
        if row.run_id != run.id:
            raise ValueError(f"it is of run {row.run_id} and stands behind {run.id}")
        found: Row = row
        return found

    def _end(self, run: RunRow, line: list[Any]) -> None:
        said, found = line[2], self._proof.said()
        if any(said[key] != found[key] for key in found):
            raise ValueError(f"run {run.id} is not what it was when it was written")
        self._run, self._proof = None, Proof()


def _numbers(seq: Any, first_delta: Any, number: Any, at_us: Any) -> tuple[int, int, int, int]:
    return (
        count("seq of frames", seq),
        count("first_delta of frames", first_delta),
        count("count of frames", number),
        offset("the offset of frames", at_us),
    )


_OF_A_RUN: dict[str, Callable[[_Import, RunRow, list[Any]], Row | None]] = {
    "segment": _Import._segment,
    "frames": _Import._frames,
    "stored": _Import._stored,
    "gap": _Import._gap,
    "annotation": _Import._annotation,
    "end": _Import._end,
}
