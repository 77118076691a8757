"""`GET /healthz`: whether the database can be read. `GET /readyz`: whether requests should come to this process."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from recorder.core.json import dumps
from recorder.core.version import VERSION
from recorder.server.database import ServedDatabase
from recorder.server.problem import NO_SNIFFING, ProblemError, documented
from recorder.storage.reader import DatabaseReader
from recorder.storage.schema import HEAD

_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The database can be read.",
        "content": {"application/json": {"schema": {"type": "object"}}},
    },
    **documented(400, 401, 403, 503),
}
_READY: dict[str, Any] = {
    "type": "object",
    "required": ["status", "revision", "expected_revision", "recording"],
    "properties": {
        "status": {"const": "ready"},
        "revision": {"type": "string"},
        "expected_revision": {"type": "string"},
        "recording": {"enum": ["off", "healthy", "late"]},
    },
}
_READY_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "This process accepts requests.",
        "content": {"application/json": {"schema": _READY}},
    },
    **documented(400, 401, 403, 503),
}


def health_routes(database: ServedDatabase) -> APIRouter:
    """The routes that load balancers ask."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz", responses=_RESPONSES)
    async def healthz() -> Response:
        """Whether the database can be read, and how many readers follow streams in this process."""
        await database.ask(DatabaseReader.open_runs)
        found = {"status": "ok", "version": VERSION, "followers": database.hub().followers}
        return Response(dumps(found).encode(), 200, NO_SNIFFING, "application/json")

    @router.get("/readyz", responses=_READY_RESPONSES)
    async def readyz() -> Response:
        """Whether this process accepts requests, and the revisions of the database and of this version."""
        if database.is_draining:
            raise ProblemError(503, "This process ends; send requests to another one", {"retry-after": "1"})
        revision = await database.ask(_revision)
        found = {"status": "ready", "revision": revision, "expected_revision": HEAD}
        found["recording"] = _recording(database)
        return Response(dumps(found).encode(), 200, NO_SNIFFING, "application/json")

    return router


async def _revision(reader: DatabaseReader) -> str | None:
    rows = await reader.store.rows("SELECT version_num FROM alembic_version")
    return str(rows[0]["version_num"]) if rows else None


def _recording(database: ServedDatabase) -> str:
    """How the recorder of this process is: "off" if it has none."""
    if (history := database.history) is None:
        return "off"
    return "healthy" if history.stats().healthy else "late"
