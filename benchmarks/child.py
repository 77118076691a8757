"""`python -m benchmarks.child module:function '{"json": "arguments"}'`: one side, its figures as JSON."""

from __future__ import annotations

import importlib
import json
import sys


def main() -> None:
    """Call the function, print what it returns."""
    module, _, function = sys.argv[1].partition(":")
    found = getattr(importlib.import_module(module), function)(**json.loads(sys.argv[2]))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
