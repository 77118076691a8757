"""For tests of your own application: a provider on loopback, scripted answers, a fake clock.

    with LoopbackProvider(Answer.error(429)) as provider:
        chat = ChatOpenAI(base_url=provider.base_url, api_key="any", max_retries=0)

`python -m recorder.testing --port 8080` serves the same provider from a process of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from recorder.core.lazy_imports import public_names

if TYPE_CHECKING:
    from recorder.testing.public import *
else:
    __getattr__, __dir__, __all__ = public_names(__name__)
