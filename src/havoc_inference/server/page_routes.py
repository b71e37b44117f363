"""The chat page, and what makes its answers HTML."""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response

from havoc_inference.server import markdown
from havoc_inference.server.errors import ApiError

MAX_RENDERED_CHARACTERS = 100_000
"""Of one text; the page shows a longer one as it was written."""

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # after an update of the server the page is new at once
}
_FILES = {
    "index.html": "text/html; charset=utf-8",
    "chat.css": "text/css; charset=utf-8",
    "chat.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


class RenderRequest(BaseModel):
    """Body of POST /page/render."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(max_length=MAX_RENDERED_CHARACTERS)
    """Markdown."""


def page_router() -> APIRouter:
    """GET `/` and its files, which need no key and hold nothing secret; POST /page/render.

    The routes are not part of the API's description: they may change with the page.
    """
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def chat_page() -> Response:
        """The page."""
        return _file("index.html")

    @router.get("/page/{name}")
    async def page_file(name: str) -> Response:
        """A file of the page."""
        if name not in _FILES:
            return ApiError(404, "The page has no file of this name.", code="unknown_url").response()
        return _file(name)

    # Not async: it computes, so it belongs on a thread of its own.
    @router.post("/page/render")
    def render(body: RenderRequest) -> Response:
        """Markdown as safe HTML."""
        return JSONResponse({"html": markdown.render(body.text)}, headers=_HEADERS)

    return router


def _file(name: str) -> Response:
    content = files("havoc_inference.server").joinpath("page", name).read_bytes()
    return Response(content, headers=_HEADERS, media_type=_FILES[name])
