"""/docs: the OpenAPI document as one page of HTML, without scripts and without anything from elsewhere."""

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any, Final

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_STYLE: Final = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }
code, pre { font: .9em/1.4 ui-monospace, monospace; }
pre { border: 1px solid #8886; border-radius: 4px; overflow-x: auto; padding: .6rem; }
summary { cursor: pointer; padding: .3rem 0; }
summary b { display: inline-block; width: 4.5rem; }
details { border-top: 1px solid #8886; }
table { border-collapse: collapse; } td, th { padding: .2rem .8rem .2rem 0; text-align: left; vertical-align: top; }
"""
_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


def docs_route(api: FastAPI) -> Route:
    """Return the route of the page, which is made at its first request."""
    made: list[bytes] = []

    async def page(_request: Request) -> Response:
        if not made:
            made.append(render(api.openapi()).encode())
        return Response(made[0], media_type="text/html", headers={"Content-Security-Policy": POLICY})

    return Route("/docs", page, include_in_schema=False)


def render(document: dict[str, Any]) -> str:
    """Return the page of an OpenAPI document."""
    info = document["info"]
    schemas = document.get("components", {}).get("schemas", {})
    operations = [
        (operation.get("tags", ["other"])[0], path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width'>",
        f"<title>{_text(info['title'])} API</title><style>{_STYLE}</style></head><body>",
        f"<h1>{_text(info['title'])} API {_text(info['version'])}</h1>{_prose(info.get('description', ''))}",
        "<p>The document for programs is <a href='/openapi.json'>/openapi.json</a>.</p>",
    ]
    for tag, group in groupby(sorted(operations, key=lambda each: each[0]), key=lambda each: each[0]):
        parts.append(f"<h2>{_text(tag.capitalize())}</h2>")
        for _, path, method, operation in group:
            parts.extend(_operation(path, method, operation, schemas))
    return "".join((*parts, "</body></html>"))


def _operation(path: str, method: str, operation: dict[str, Any], schemas: dict[str, Any]) -> Iterator[str]:
    heading = f"<b>{_text(method.upper())}</b> <code>{_text(path)}</code> {_text(operation.get('summary', ''))}"
    yield f"<details id='{_text(operation['operationId'])}'><summary>{heading}</summary>"
    yield _prose(operation.get("description", ""))
    parameters = operation.get("parameters", ())
    if parameters:
        yield "<table><tr><th>Parameter</th><th>In</th><th>Meaning</th></tr>"
        for each in parameters:
            meaning = each.get("description") or each.get("schema", {}).get("description", "")
            yield f"<tr><td><code>{_text(each['name'])}</code></td><td>{_text(each['in'])}</td>"
            yield f"<td>{_inline(meaning)}</td></tr>"
        yield "</table>"
    if "requestBody" in operation:
        yield "<h4>Body</h4>" + _content(operation["requestBody"], schemas)
    for status, answer in operation.get("responses", {}).items():
        # Problems look alike; the introduction describes them.
        shown = _content(answer, schemas) if status.startswith("2") else ""
        yield f"<h4>{_text(status)} {_text(answer.get('description', ''))}</h4>{shown}"
    yield "</details>"


def _content(holder: dict[str, Any], schemas: dict[str, Any]) -> str:
    """Return the first example of a body, and the meaning of its members."""
    for media in holder.get("content", {}).values():
        schema = media.get("schema", {})
        schema = schemas.get(str(schema.get("$ref", "")).rpartition("/")[2], schema)
        example = media.get("example", next(iter(schema.get("examples", ())), None))
        if example is None and media.get("examples"):
            example = next(iter(media["examples"].values())).get("value")
        text = example if isinstance(example, str) else json.dumps(example, indent=2, ensure_ascii=False)
        members = "".join(
            f"<tr><td><code>{_text(name)}</code></td><td>{_inline(member['description'])}</td></tr>"
            for name, member in schema.get("properties", {}).items()
            if "description" in member
        )
        shown = "" if example is None else f"<pre>{_text(text)}</pre>"
        return shown + (f"<table>{members}</table>" if members else "")
    return ""


def _prose(text: str) -> str:
    return "".join(f"<p>{_inline(paragraph)}</p>" for paragraph in re.split(r"\n\s*\n", text.strip()) if paragraph)


def _inline(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", _text(text))


def _text(text: object) -> str:
    return html.escape(str(text))
