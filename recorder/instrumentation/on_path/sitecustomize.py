"""Python imports this module at its start, because `recorder run` has put this folder on PYTHONPATH.

So the processes that a program starts are recorded, too. The environment's own `sitecustomize` is run after it.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec


def _start() -> None:
    try:
        from recorder.instrumentation.startup import start

        start()
    except ImportError:
        pass  # another Python, in which recorder is not installed
    except Exception as error:
        print(f"recorder: this process is not recorded ({error!r})", file=sys.stderr)


def _run_own() -> None:
    """Run the `sitecustomize` that Python would have found without this one."""
    here = os.path.dirname(os.path.abspath(__file__))
    path = [each for each in sys.path if os.path.abspath(each or os.curdir) != here]
    spec = PathFinder.find_spec("sitecustomize", path)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(module_from_spec(spec))


_start()
_run_own()
