"""`GET /healthz`: whether the database can be read."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from recorder.core.json import dumps
from recorder.core.version import VERSION
from recorder.server.database import ServedDatabase
from recorder.server.problem import NO_SNIFFING, documented
from recorder.storage.reader import DatabaseReader

_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The database can be read.",
        "content": {"application/json": {"schema": {"type": "object"}}},
    },
    **documented(400, 401, 403, 503),
}


def health_routes(database: ServedDatabase) -> APIRouter:
    """The route that load balancers ask."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz", responses=_RESPONSES)
    async def healthz() -> Response:
        """Whether the database can be read, and how many readers follow streams in this process."""
        await database.ask(DatabaseReader.open_runs)
        found = {"status": "ok", "version": VERSION, "followers": database.hub().followers}
        return Response(dumps(found).encode(), 200, NO_SNIFFING, "application/json")

    return router
