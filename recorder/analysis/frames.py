"""Messages between the application and a worker process: a length, then that many bytes of pickle."""

from __future__ import annotations

import os
import pickle
import struct
from typing import Any

_HEADER = struct.Struct(">I")
_READ = 2**16


def packed(value: Any) -> bytes:
    """One message."""
    data = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    return _HEADER.pack(len(data)) + data


class FrameReader:
    """Collects the bytes of a pipe and returns complete messages."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._bytes = bytearray()

    def read(self) -> bool:
        """Read once; it blocks if nothing is there. False at the end of the pipe."""
        data = os.read(self._descriptor, _READ)
        self._bytes += data
        return bool(data)

    def pop(self) -> tuple[Any] | None:
        """The next message, in a tuple; None if it is not complete yet."""
        if len(self._bytes) < _HEADER.size:
            return None
        end = _HEADER.size + _HEADER.unpack_from(self._bytes)[0]
        if len(self._bytes) < end:
            return None
        value = pickle.loads(bytes(self._bytes[_HEADER.size : end]))
        del self._bytes[:end]
        return (value,)
