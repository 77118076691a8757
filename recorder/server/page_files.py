"""The page at `/`: HTML, a style sheet and JavaScript modules, which read the routes beside them.

The files are served without a token, since they hold nothing of the database: the page asks its reader for the token.
Their policy lets the browser load nothing but these files, run no script that is written into the page, and let no text
become markup. All addresses in them are relative, so the page also works where the application is mounted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from recorder.server.problem import NO_SNIFFING

_INDEX = "index.html"
_MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
#: Where `index.html` names the version of the files.
_VERSION_MARK = b"{version}"

#: What a browser may do with the page.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS = {
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    **NO_SNIFFING,
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file of the page."""

    body: bytes
    media_type: str
    etag: str


@dataclass(frozen=True, slots=True)
class PageFiles:
    """All files of the page."""

    #: A hash of all of them. It is part of their addresses, so a browser may store them for ever.
    version: str
    by_name: Mapping[str, PageFile]


def page_routes() -> APIRouter:
    """`GET /`, and the files that it loads from `/page/{version}/`."""
    router = APIRouter(include_in_schema=False)

    @router.api_route("/", methods=["GET", "HEAD"])
    async def index(request: Request) -> Response:
        return _answer(request, page_files().by_name[_INDEX], "no-cache")

    @router.api_route("/page/{version}/{name}", methods=["GET", "HEAD"])
    async def file(request: Request, version: str, name: str) -> Response:
        known = page_files()
        found = known.by_name.get(name)
        if found is None or name == _INDEX:
            raise HTTPException(404, "The page has no such file")
        # A page of another version, from before an update or from another server, gets what there is.
        lasting = version == known.version
        return _answer(request, found, "public, max-age=31536000, immutable" if lasting else "no-cache")

    return router


def is_page(scope: Scope) -> bool:
    """Whether a request is for a file of the page, and so needs no token."""
    path, root = scope["path"], scope.get("root_path", "")
    if root and path.startswith(f"{root}/"):
        path = path[len(root) :]
    return bool(scope["type"] == "http" and (path == "/" or path.startswith("/page/")))


@cache
def page_files() -> PageFiles:
    """The files of the page, as they are installed."""
    folder = files("recorder.server").joinpath("page")
    bodies = {each.name: each.read_bytes() for each in sorted(folder.iterdir(), key=lambda each: each.name)}
    version = _digest(b"".join(name.encode() + _digest(body).encode() for name, body in bodies.items()))
    bodies[_INDEX] = bodies[_INDEX].replace(_VERSION_MARK, version.encode())
    found = {
        name: PageFile(body, _MEDIA_TYPES[name.rpartition(".")[2]], f'"{_digest(body)}"')
        for name, body in bodies.items()
    }
    return PageFiles(version, found)


def _answer(request: Request, file: PageFile, cache_control: str) -> Response:
    headers = {**_HEADERS, "etag": file.etag, "cache-control": cache_control}
    if file.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(file.body, 200, headers, file.media_type)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
