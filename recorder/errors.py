"""The errors of recorder, as one tree.

    RecorderError
    ├── ConfigError     (also ValueError)   an invalid value: scheme, path, id, option
    ├── MissingExtra    (also ImportError)  an optional dependency is not installed
    ├── Closed                              the recorder is closed
    ├── NotFound        (also LookupError)  nothing is stored under that id
    ├── OutputParserException (also ValueError)  an answer does not have the form that was wanted
    ├── ModelRefusalError                   the model refused to give an answer in the form that was wanted
    └── StoreError                          the database could not be opened, read or written
        └── SchemaError                     its tables are newer, older or another tool's

Each message names the object, its state and the next step. After the constructor, recording never raises them into the
application; reading and the command line do.
"""

from __future__ import annotations


class RecorderError(Exception):
    """Base class of the errors that recorder raises."""


class ConfigError(RecorderError, ValueError):
    """A value is invalid. Raised before a database or connection is opened."""


class MissingExtra(RecorderError, ImportError):
    """An optional dependency is not installed. The message has the command that installs it."""


class Closed(RecorderError):
    """The recorder is closed. Open a new one, or use it inside its `with` block."""


class NotFound(RecorderError, LookupError):
    """Nothing is stored under that id."""


class OutputParserException(RecorderError, ValueError):
    """A model's answer does not have the form that `with_structured_output` wants. `llm_output` is its text."""

    def __init__(self, message: str, llm_output: str | None = None) -> None:
        super().__init__(message)
        self.llm_output = llm_output


class ModelRefusalError(RecorderError):
    """The model refused to give the structured output, or a filter stopped it. `raw_message` is its answer."""

    def __init__(self, message: str, raw_message: object = None) -> None:
        super().__init__(message)
        self.raw_message = raw_message


class StoreError(RecorderError):
    """The database could not be opened, read or written."""


class SchemaError(StoreError):
    """The database's tables are newer, older or another tool's. The message has the command to run."""
