"""The libraries of the extra `nlp`, and the error if one is missing."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from recorder.core.installation import INSTALL_NLP
from recorder.core.late_imports import late_imports
from recorder.errors import MissingExtra


def require(*modules: str) -> None:
    """Raise `MissingExtra` if one of these modules is not installed. Imports none."""
    for name in modules:
        if find_spec(name) is None:
            raise _missing(name)


def load(module: str) -> Any:
    """Import a module. Raises `MissingExtra`."""
    try:
        with late_imports():
            return import_module(module)
    except ModuleNotFoundError as error:
        raise _missing(module) from error


def _missing(module: str) -> MissingExtra:
    return MissingExtra(
        f"This analysis needs the module {module}, which is not installed; run: {INSTALL_NLP}"
    )
