"""The kinds of failures of a database, and the texts of its errors. Imports no library of a database."""

from __future__ import annotations

from typing import Literal

#: transient: a retry may succeed, and the rows are never the cause. doubtful: the same, but a trigger of the user may
#: have raised the code; the rows are the cause if other rows are stored meanwhile. slow: a retry may succeed, best with
#: fewer rows. refused: the database answered with an error, and it is not known whether the rows caused it. poison:
#: these rows can never be stored. fatal: nothing can.
Failure = Literal["transient", "doubtful", "slow", "refused", "poison", "fatal"]
#: Failures of a database that does not answer, or that another program has locked.
AWAY = frozenset(("transient", "doubtful", "slow"))
#: Failures after which opening a database is retried.
RETRIABLE = AWAY | {"refused"}

#: Python's errors that are caused by the values in the rows. A retry raises them again.
ROW_ERRORS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def failure_of_python_error(error: BaseException, lost: tuple[type[BaseException], ...] = ()) -> Failure:
    """The kind of an error that is not a database's answer.

    `lost` are the errors that a driver raises for a lost connection. Any other error is a bug in the driver or here,
    and the rows may have caused it.
    """
    if isinstance(error, TimeoutError):
        return "slow"
    return "transient" if isinstance(error, (OSError, EOFError, *lost)) else "refused"


def driver_error(error: BaseException) -> BaseException:
    """The driver's own error, which SQLAlchemy and its asynchronous adapters wrap."""
    # `DBAPIError` is not imported here: what records is imported without the database's libraries.
    wrapped = getattr(error, "orig", None) if hasattr(error, "connection_invalidated") else None
    return (wrapped.__cause__ or wrapped) if isinstance(wrapped, BaseException) else error


def error_text(error: BaseException) -> str:
    """The first line of the driver's message. The statement and its parameters, which hold user data, are left out."""
    found = driver_error(error)
    if isinstance(found, TimeoutError) and not str(found):
        return "it did not answer in time"
    return (str(found) or type(found).__name__).partition("\n")[0]
