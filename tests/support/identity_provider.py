"""An OpenID Connect issuer in the test process."""

from typing import Any

import httpx
import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.ui_iot.auth.refusals import Refusal
from services.ui_iot.auth.user_tokens import UserTokens
from tests.support.api_client import EC, RSA


async def reason(users: UserTokens, text: str) -> str | None:
    result = await users.check(text)
    return result.reason if isinstance(result, Refusal) else None


class Provider:
    """An OpenID Connect issuer in forty lines; tests can replace its answers."""

    def __init__(self, url: str = "http://issuer.test") -> None:
        self.url = url
        self.description: dict[str, Any] = {
            "issuer": url,
            "jwks_uri": f"{url}/jwks",
            "token_endpoint": f"{url}/token",
        }
        self.forms: list[dict[str, str]] = []
        self.authorizations: list[str | None] = []
        self.token_answer: Response = JSONResponse({"access_token": "new", "token_type": "Bearer", "expires_in": 300})
        self.app = Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self._describe),
                Route("/jwks", self._keys),
                Route("/jwks/bom", self._keys_with_bom),
                Route("/token", self._token, methods=["POST"]),
            ]
        )

    async def _describe(self, _request: Request) -> Response:
        return JSONResponse(self.description)

    async def _keys(self, _request: Request) -> Response:
        return JSONResponse({"keys": [EC.public(), RSA.public()]})

    async def _keys_with_bom(self, _request: Request) -> Response:
        return Response(b"\xef\xbb\xbf" + orjson.dumps({"keys": [EC.public(), RSA.public()]}))

    async def _token(self, request: Request) -> Response:
        body = (await request.body()).decode()
        self.forms.append(dict(httpx.QueryParams(body)))
        self.authorizations.append(request.headers.get("authorization"))
        return self.token_answer
