"""The function of an application that says who sends a request: `create_app(history, authorize=function)`."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from anyio.to_thread import run_sync
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from recorder.errors import ConfigError
from recorder.server.caller import Caller
from recorder.server.problem import ProblemError

log = logging.getLogger("recorder")

#: Gets the connection, and returns the user whose conversations it may read, None for those of all users, or False to
#: refuse it. It may raise `HTTPException` with a status of 400 to 499, or `PermissionError`.
Authorize = Callable[[HTTPConnection], Any | Awaitable[Any]]

#: How long the function may take (seconds).
ANSWERS_WITHIN = 10.0
_REFUSED = "This request is not allowed by the application"


class Authorization:
    """Calls the function for each request and each WebSocket. Raises `ConfigError` if it is not callable."""

    def __init__(self, authorize: Authorize) -> None:
        if not callable(authorize):
            raise ConfigError(
                f"authorize is of type {type(authorize).__name__}; pass a function of the connection that returns the "
                "id of the user"
            )
        self._authorize = authorize
        call = getattr(authorize, "__call__", None)  # noqa: B004  # of an object with an asynchronous method
        self._is_async = inspect.iscoroutinefunction(authorize) or inspect.iscoroutinefunction(call)

    async def caller(self, connection: HTTPConnection) -> Caller:
        """Who sends the request. Raises `ProblemError`: 403 or the function's own status, and 503 if it fails."""
        try:
            async with asyncio.timeout(ANSWERS_WITHIN):
                found = await self._call(connection)
        except HTTPException as error:
            if 400 <= error.status_code < 500:
                raise ProblemError(error.status_code, str(error.detail), error.headers) from error
            raise _failed(error) from error
        except PermissionError as error:
            raise ProblemError(403, _REFUSED) from error
        except Exception as error:
            raise _failed(error) from error
        return _caller_of(found)

    async def _call(self, connection: HTTPConnection) -> Any:
        if self._is_async:
            return await self._authorize(connection)
        # On a thread, because it may read a database; it is left there if it takes too long.
        found = await run_sync(self._authorize, connection, abandon_on_cancel=True)
        return await found if inspect.isawaitable(found) else found


def _caller_of(found: Any) -> Caller:
    if found is None or (isinstance(found, str) and found):
        return Caller(found)
    if found is False:
        raise ProblemError(403, _REFUSED)
    kind = "an empty text" if found == "" else f"a {type(found).__name__}"
    raise _failed(TypeError(f"authorize returned {kind}; return the id of a user, None for all, or False"))


def _failed(error: Exception) -> ProblemError:
    """What went wrong is in the log; nobody reads anything."""
    log.error("authorize failed, and the request is refused: %s", type(error).__name__, exc_info=error)
    return ProblemError(
        503, "The application cannot say now who sends this; its log says why", {"retry-after": "1"}
    )
