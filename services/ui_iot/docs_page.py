"""The interactive documentation at /docs: Swagger UI from the package fastapi-offline, without the internet.

Its start is a file of its own, because the policy of the page allows no inline script.
"""

import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
# The answer to a request is shown in place, and no token is kept in the browser.
_START: Final = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  validatorUrl: null,
});
"""
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Pulse API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{docs/swagger-ui.css}">
</head>
<body>
<div id="swagger-ui"></div>
<script src="{docs/swagger-ui-bundle.js}"></script>
<script src="{docs/start.js}"></script>
</body>
</html>
"""
_TYPES: Final = {".css": "text/css", ".js": "text/javascript"}
_ASSETS: Final = ("/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js", "/docs/start.js")
DOCS_PATHS: Final = frozenset(("/docs", "/openapi.json", *_ASSETS))
"""Paths that need no token."""


def docs_routes() -> list[Route]:
    """Return the routes of the page and of the files that it names."""
    page, routes = _PAGE, []
    for path in _ASSETS:
        content = _read(path)
        # The address changes with the content, so browsers may keep a file for good.
        page = page.replace(f"{{{path[1:]}}}", f"{path[1:]}?v={hashlib.sha256(content).hexdigest()[:16]}")
        headers = {"Cache-Control": "public, max-age=31536000, immutable"}
        routes.append(_route(path, content, _TYPES[Path(path).suffix], headers))
    return [_route("/docs", page.encode(), "text/html", {"Content-Security-Policy": POLICY}), *routes]


def _read(path: str) -> bytes:
    name = Path(path).name
    return _START.encode() if name == "start.js" else (files("fastapi_offline") / "static" / name).read_bytes()


def _route(path: str, content: bytes, media_type: str, headers: dict[str, str]) -> Route:
    async def answer(_request: Request) -> Response:
        return Response(content, media_type=media_type, headers=headers)

    return Route(path, answer, include_in_schema=False)
