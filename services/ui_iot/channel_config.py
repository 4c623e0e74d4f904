"""What each kind of channel must be told; secrets go in and never come out."""

import base64
import binascii
import secrets
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from services.ui_iot.destination import LONGEST_URL, destination_fault, read_url
from services.ui_iot.http.problems import Unprocessable
from services.ui_iot.resources.fields import unset


def check_destination(url: str | None, *, allow_private: bool) -> None:
    """Refuse early what the delivery worker would refuse at every attempt; it checks the address again, resolved."""
    fault = None if url is None else destination_fault(url, allow_private=allow_private)
    if fault is not None:
        raise Unprocessable(f"config.url {fault}.")


def _check_secret(secret: str) -> str:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        key = b""
    if not secret.startswith("whsec_") or not 24 <= len(key) <= 64:
        raise ValueError("must be whsec_ and the base64 of 24 to 64 bytes")
    return secret


def new_secret() -> str:
    """Return a random secret in the form of Standard Webhooks."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


Url = Annotated[str, Field(max_length=LONGEST_URL), AfterValidator(read_url), Field(max_length=LONGEST_URL)]
Secret = Annotated[str, Field(max_length=128), AfterValidator(_check_secret)]
OldSecrets = Annotated[list[Secret], Field(max_length=4)]
RoutingKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9]{32}$")]

# As long as the hash of the signature, SHA-256; Standard Webhooks takes 24 to 64.
_SECRET_BYTES = 32

Kind = Literal["webhook", "slack", "teams", "pagerduty"]


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Webhook(_Config):
    """A POST signed by Standard Webhooks."""

    url: Url
    secret: Secret = unset()
    """Made by Pulse when it is left out; the answer shows it once."""
    previous_secrets: OldSecrets = []
    """Secrets that go out of use; while they stand here, each request is signed with them too."""


class Slack(_Config):
    """An incoming webhook of Slack; its address is a secret."""

    url: Url


class Teams(_Config):
    """A workflow of Microsoft Teams; its address is a secret."""

    url: Url


class PagerDuty(_Config):
    """Events API v2; url is for the European service region and for relays."""

    routing_key: RoutingKey
    url: Url | None = None


class ConfigChanges(_Config):
    """Members to change; the rest stays, unless the url changes. Which of them the channel has is up to its kind."""

    url: Url = unset()
    secret: Secret = unset()
    previous_secrets: OldSecrets = unset()
    routing_key: RoutingKey = unset()
