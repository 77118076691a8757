"""Which versions of aiohttp can be recorded: the first with middlewares was 3.12. aiohttp itself is not imported."""

from __future__ import annotations

import re
from importlib import metadata

#: The oldest version, and its name.
_OLDEST, OLDEST = (3, 12), "3.12"


def too_old_aiohttp() -> str | None:
    """The version of aiohttp that is installed here, if it is too old to be recorded; else None."""
    try:
        version = metadata.version("aiohttp")
    except metadata.PackageNotFoundError:
        return None
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    return version if numbers < _OLDEST else None
