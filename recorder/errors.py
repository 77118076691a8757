"""What can go wrong, as one small tree.

    RecorderError
    ├── ConfigError     (also ValueError)   a value that can never work: scheme, path, id, option
    ├── MissingExtra    (also ImportError)  an optional dependency is not installed
    ├── Closed                              the recorder was closed before
    ├── NotFound        (also LookupError)  nothing stored under that id
    └── StoreError                          the database said no
        └── SchemaError                     its tables are newer, older or not ours

Each message names the thing, its state and the next step. Recording never raises these into the
application after construction; reading, the command line and the server do.
"""

from __future__ import annotations


class RecorderError(Exception):
    """Base of every error that recorder raises by itself."""


class ConfigError(RecorderError, ValueError):
    """A value that can never work, found before anything was opened."""


class MissingExtra(RecorderError, ImportError):
    """An optional dependency is not installed; the message has the `pip install` line."""


class Closed(RecorderError):
    """The recorder was closed; open a new one or keep the with-block open."""


class NotFound(RecorderError, LookupError):
    """Nothing is stored under that id."""


class StoreError(RecorderError):
    """The database could not be opened, read or written."""


class SchemaError(StoreError):
    """The database's tables are newer, older or another tool's; the message has the command to run."""
