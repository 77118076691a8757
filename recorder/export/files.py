"""Files of lines, compressed with gzip if their name (writing) or their first bytes (reading) say so."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import mkstemp
from typing import IO, Any, cast

from recorder.errors import ConfigError, StoreError

#: A path, or a file that is open for text or bytes.
File = str | os.PathLike[str] | IO[Any]

#: The longest line that is read (bytes). Without a limit, a small gzip file with one huge line would use all memory.
MAX_LINE = 64 * 2**20
_GZIP = b"\x1f\x8b"
_GZIP_ERRORS = (EOFError, gzip.BadGzipFile, zlib.error)


@contextmanager
def writing(target: File) -> Iterator[Callable[[str], object]]:
    """A function that writes text. The file gets its name only at the end; until then an existing file stays.

    A new file is readable only by its owner. A replaced file passes on its mode.
    """
    if not isinstance(target, (str, os.PathLike)):
        yield _text_of(target)
        return
    path = Path(os.path.realpath(target))
    _refuse_folder(path)
    plain = not path.exists() or path.is_file()
    part = path
    try:
        with ExitStack() as stack:
            if plain:
                number, name = mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
                part = Path(name)
            raw: Any = stack.enter_context(open(number if plain else part, "wb"))
            if path.is_file():
                os.fchmod(raw.fileno(), path.stat().st_mode & 0o777)
            if path.suffix == ".gz":  # no name and time: equal rows give equal bytes
                raw = stack.enter_context(gzip.GzipFile("", "wb", 6, raw, mtime=0))
            text = stack.enter_context(io.TextIOWrapper(raw, encoding="utf-8", newline="\n"))
            yield text.write
        if plain:
            part.replace(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}; name another file") from error
    finally:
        if part != path:
            part.unlink(missing_ok=True)


def _text_of(file: IO[Any]) -> Callable[[str], object]:
    if hasattr(file, "encoding"):
        return file.write
    return lambda text: file.write(text.encode())


def _refuse_folder(path: Path) -> None:
    if path.is_dir():
        raise ConfigError(f"{path} is a directory; name a file in it, e.g. {path / 'export.jsonl'}")
    if not path.parent.is_dir():
        raise ConfigError(
            f"The folder {path.parent} of {path.name} does not exist; create it, or name another"
        )


@dataclass(slots=True)
class Source:
    """A file that is read line by line."""

    lines: Iterator[str | bytes]
    #: Bytes of the file that were read so far, and its size; the size is None if it is unknown.
    position: Callable[[], int]
    size: int | None


@contextmanager
def reading(file: File) -> Iterator[Source]:
    """The lines, decompressed. Raises `ConfigError` for a file that does not exist, `StoreError` for a damaged one."""
    if not isinstance(file, (str, os.PathLike)):
        yield Source(_lines(_decompressed(file)), lambda: 0, None)
        return
    with ExitStack() as stack:
        try:
            raw = stack.enter_context(open(file, "rb"))
        except OSError as error:
            raise ConfigError(f"{os.fspath(file)} cannot be read: {error.strerror or error}") from error
        size = os.fstat(raw.fileno()).st_size or None
        # The position of the raw file: bytes in the buffers count as read.
        position = raw.raw.tell if raw.seekable() else lambda: 0
        yield Source(_lines(_decompressed(raw)), position, size)


def _decompressed(file: IO[Any]) -> IO[Any]:
    if hasattr(file, "encoding") or _beginning(file) != _GZIP:
        return file
    return cast(IO[Any], io.BufferedReader(gzip.GzipFile(fileobj=file)))


def _beginning(file: IO[bytes]) -> bytes:
    """The first bytes of the file, without consuming them; empty if the file cannot peek or seek."""
    if (peek := getattr(file, "peek", None)) is not None:
        return bytes(peek(len(_GZIP))[: len(_GZIP)])
    if not file.seekable():
        return b""
    found = file.read(len(_GZIP))
    file.seek(-len(found), io.SEEK_CUR)
    return found


def _lines(file: IO[Any]) -> Iterator[str | bytes]:
    try:
        for number, line in enumerate(iter(partial(file.readline, MAX_LINE + 1), file.read(0)), 1):
            if len(line) > MAX_LINE:
                raise StoreError(
                    f"Line {number} has more than {MAX_LINE} bytes, so the file is not an export of recorder, or it is "
                    "damaged"
                )
            yield line
    except _GZIP_ERRORS as error:
        raise StoreError(f"The file is gzip and damaged, or was cut off ({error}); copy it again") from error
    except UnicodeDecodeError as error:
        raise StoreError(
            f"The file is not UTF-8 ({error}), so it is not an export of recorder, or damaged"
        ) from error
