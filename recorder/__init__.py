"""Records what language models say, token by token, into your own SQL database, while they say it.

Importing this loads nothing heavy: each public name is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from recorder.core import logs
from recorder.core.lazy_imports import public_names
from recorder.core.version import VERSION

if TYPE_CHECKING:
    from recorder.public import *
else:
    __getattr__, __dir__, __all__ = public_names(__name__)

logs.install()

__version__ = VERSION
