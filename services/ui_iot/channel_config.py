"""What each kind of channel must be told; secrets go in and never come out."""

import base64
import binascii
from ipaddress import ip_address
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from services.ui_iot.fields import unset
from services.ui_iot.problems import Unprocessable

LONGEST_URL = 2048


def _check_url(url: str) -> str:
    parts = urlsplit(url)
    if not url.isascii() or not url.isprintable() or " " in url or parts.hostname is None or parts.username is not None:
        raise ValueError("must be an address without spaces and user name")
    if parts.scheme not in ("https", "http"):
        raise ValueError("must begin with https://")
    # Reading it is the check: a port that is no number raises ValueError.
    _ = parts.port
    return url


def check_destination(url: str | None, *, allow_private: bool) -> None:
    """Refuse early what the delivery worker would refuse at every attempt; it checks the address again, resolved."""
    if url is None:
        return
    parts = urlsplit(url)
    private = _is_private(parts.hostname or "")
    if private and not allow_private:
        raise Unprocessable("config.url must not point to a private address.")
    if parts.scheme != "https" and not private:
        raise Unprocessable("config.url must begin with https://")


def _is_private(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return not ip_address(host).is_global
    except ValueError:
        return False


def _check_secret(secret: str) -> str:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        key = b""
    if not secret.startswith("whsec_") or not 24 <= len(key) <= 64:
        raise ValueError("must be whsec_ and the base64 of 24 to 64 bytes")
    return secret


Url = Annotated[str, Field(max_length=LONGEST_URL), AfterValidator(_check_url)]
Secret = Annotated[str, Field(max_length=128), AfterValidator(_check_secret)]
OldSecrets = Annotated[list[Secret], Field(max_length=4)]
RoutingKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9]{32}$")]

Kind = Literal["webhook", "slack", "teams", "pagerduty"]


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Webhook(_Config):
    """A POST signed by Standard Webhooks."""

    url: Url
    secret: Secret
    previous_secrets: OldSecrets = []
    """Secrets that go out of use; while they stand here, each request is signed with them too."""


class Slack(_Config):
    """An incoming webhook of Slack; its address is a secret."""

    url: Url


class Teams(_Config):
    """A workflow of Microsoft Teams; its address is a secret."""

    url: Url


class PagerDuty(_Config):
    """Events API v2; url is for those who go through a relay of their own."""

    routing_key: RoutingKey
    url: Url | None = None


class ConfigChanges(_Config):
    """Members to change; what is left out stays, secrets too. Which of them the channel has is up to its kind."""

    url: Url = unset()
    secret: Secret = unset()
    previous_secrets: OldSecrets = unset()
    routing_key: RoutingKey = unset()
