"""The base class of the API's routes: reads JSON bodies, answers HEAD like GET, checks preconditions."""

import json
from collections.abc import Callable, Coroutine
from typing import Any

import orjson
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from services.ui_iot.http.json_shape import JsonShape
from services.ui_iot.http.problems import UNREADABLE, BadRequest, Unprocessable, UnsupportedMediaType
from services.ui_iot.resources.entity_tags import Preconditions, Versioned, tag_of

MEDIA_TYPE = "application/json"
_CHARSETS = frozenset(("utf-8", "utf8", "us-ascii"))
# RFC 6902 describes changes by operations. The API takes the changed members themselves.
_OTHER_JSON = frozenset(("application/json-patch+json", "application/json-seq"))
_ACCEPT = {"POST": "Accept-Post", "PATCH": "Accept-Patch"}
# The largest resource is an escalation policy of 20 steps, with 100 values.
_MOST_VALUES = 1000
# A shorter body cannot hold many more values.
_SHORT_BYTES = 2048
_BOM = b"\xef\xbb\xbf"


class JsonRequest(Request):
    """A request whose JSON is UTF-8 with or without a byte order mark."""

    async def json(self) -> Any:
        """Return the document in the body. Raises BadRequest if it is not JSON."""
        body = await self.body()
        if len(body) > _SHORT_BYTES:
            JsonShape(most_values=_MOST_VALUES).feed(body)
        try:
            return json.loads(without_mark(body).decode(), object_pairs_hook=_object)
        except (ValueError, RecursionError):
            raise BadRequest(UNREADABLE) from None


class JsonRoute(APIRoute):
    """A route whose body must be JSON, and whose answer with a resource has its ETag."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        methods = self.methods or set()
        self.methods = methods | {"HEAD"} if "GET" in methods else methods

    @property
    def shown(self) -> type[Versioned] | None:
        """Model of the resource in the answer, or None if the answer is no changeable resource."""
        model = self.response_model
        return model if isinstance(model, type) and issubclass(model, Versioned) else None

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler with the checks of media type, body and preconditions before it."""
        handler = super().get_route_handler()
        shown = self.shown
        takes_body = self.body_field is not None or "requestBody" in (self.openapi_extra or {})

        async def answered(request: Request) -> Response:
            require_json(request)
            request = JsonRequest(request.scope, request.receive)
            if not takes_body and request.method not in ("GET", "HEAD"):
                await _require_nothing(request)
            preconditions = Preconditions.read(request) if shown is not None else None
            response = await handler(request)
            if shown is not None and preconditions is not None and response.status_code < 300:
                tag = tag_of(shown, orjson.loads(response.body))
                response = preconditions.answer(response, tag, reads=request.method in ("GET", "HEAD"))
            return _without_body(response) if request.method == "HEAD" else response

        return answered


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) != len(members):
        # RFC 8259 leaves open which value counts, and programs differ.
        raise BadRequest("The body names a member of an object twice.")
    return found


def without_mark(body: bytes) -> bytes:
    """Return the body without the byte order mark that some programs write."""
    return body.removeprefix(_BOM)


def require_json(request: Request) -> None:
    """Raise UnsupportedMediaType if a body is declared as another type than JSON. Undeclared bodies pass."""
    headers = request.headers
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    declared = headers.getlist("content-type")
    if has_body and declared and not (len(declared) == 1 and _is_json(declared[0])):
        accept = _ACCEPT.get(request.method, "Accept")
        raise UnsupportedMediaType(f"The body must be JSON in UTF-8, sent as {MEDIA_TYPE}.", {accept: MEDIA_TYPE})


async def _require_nothing(request: Request) -> None:
    """Raise Unprocessable if the body of a route without a body has members."""
    if without_mark(await request.body()).strip() not in (b"", b"{}", b"null"):
        raise Unprocessable("This address takes no members in its body.")


def _is_json(content_type: str) -> bool:
    media, *parameters = (part.strip().lower() for part in content_type.split(";"))
    named = dict(parameter.partition("=")[::2] for parameter in parameters)
    if named.get("charset", "utf-8").strip('"') not in _CHARSETS:
        return False
    kind, _, subtype = media.partition("/")
    return kind == "application" and (subtype == "json" or (subtype.endswith("+json") and media not in _OTHER_JSON))


def _without_body(response: Response) -> Response:
    """Return the head of the response. A streamed body, which may be endless, is not started."""
    head = Response(status_code=response.status_code, background=response.background)
    head.raw_headers = list(response.raw_headers)
    return head
