"""The kinds of notification channels, with the configuration that the API takes and the delivery worker sends with.

A kind named here has a module of its name in services/delivery_worker/channels. A configuration from the API may lack a
secret, which the API then makes, and its address is brought into one form. A stored configuration is validated with the
context {"allow_private": bool}: it must be complete, and its address may have any form that a request can be sent to.
"""

import base64
import binascii
import re
import secrets
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple, TypeAlias
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, model_validator

from services.shared.destination import LONGEST_URL, read_url

# Shorter parts of an address are masked only if they do not look like words, so that error messages stay readable.
_SHORTEST_SECRET = 8
_SHORTEST_TOKEN = 4
_WORD = re.compile(r"[A-Za-z]?[a-z]+(?:[-_.][a-z]+)*")
_SECRET_PREFIX = "whsec_"  # noqa: S105  # a prefix, no secret
# As long as the hash of the signature, SHA-256; Standard Webhooks takes 24 to 64.
_SECRET_BYTES = 32


class ChannelConfig(BaseModel):
    """The members that every kind may have. Unknown members are refused, and no error shows a value."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    def secrets(self) -> list[str]:
        """Return every text that must not appear in a log, row or answer, longest first."""
        found: set[str] = set()
        for name in type(self).model_fields:
            value = getattr(self, name)
            for secret in value if isinstance(value, tuple) else (value,):
                if isinstance(secret, SecretStr):
                    found.update(_parts(secret.get_secret_value()))
        return sorted(found, key=len, reverse=True)

    def revealed(self) -> dict[str, Any]:
        """Return the members that were given, secrets in plain text."""
        return {name: _reveal(getattr(self, name)) for name in type(self).model_fields if name in self.model_fields_set}


def _reveal(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_reveal(item) for item in value]
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _parts(secret: str) -> set[str]:
    """Return the secret and, of an address, the parts that a receiver might repeat."""
    if "://" not in secret:
        return {secret}
    parts = urlsplit(secret)
    pieces = [parts.path, parts.query, parts.password or "", *parts.path.split("/"), *parts.query.split("&")]
    pieces += [piece.partition("=")[2] for piece in parts.query.split("&")]
    return {secret} | {form for piece in pieces for form in (piece, unquote(piece)) if _reveals(form)}


def _reveals(piece: str) -> bool:
    return len(piece) >= _SHORTEST_SECRET or (len(piece) >= _SHORTEST_TOKEN and not _WORD.fullmatch(piece))


def _check_url(url: SecretStr, info: ValidationInfo) -> SecretStr:
    text = url.get_secret_value()
    if info.context is None:
        if len(text) > LONGEST_URL or len(text := read_url(text)) > LONGEST_URL:
            raise ValueError(f"must have at most {LONGEST_URL} characters")
        return SecretStr(text)
    try:
        parts = urlsplit(text)
        _ = parts.port  # reading it is the check
    except ValueError:
        raise ValueError("is no address") from None  # its own message would repeat a part of the address
    if parts.scheme not in (("https", "http") if info.context["allow_private"] else ("https",)):
        raise ValueError("must begin with https://")
    if not parts.hostname:
        raise ValueError("has no host")
    return url


def signing_key(secret: str) -> bytes:
    """Return the key in a secret of Standard Webhooks; raise ValueError if it holds none."""
    try:
        key = base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not secret.startswith(_SECRET_PREFIX) or not 24 <= len(key) <= 64:
        raise ValueError("must be whsec_ and the base64 of 24 to 64 bytes")
    return key


def new_secret() -> str:
    """Return a random secret in the form of Standard Webhooks."""
    return _SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def _check_secret(secret: SecretStr) -> SecretStr:
    signing_key(secret.get_secret_value())
    return secret


def _check_routing_key(key: SecretStr) -> SecretStr:
    value = key.get_secret_value()
    if len(value) != 32 or not (value.isascii() and value.isalnum()):
        raise ValueError("must be 32 letters and digits")
    return key


# An address is a secret: it is all that a sender needs to post to a Slack channel, and a webhook's may carry a token.
Url: TypeAlias = Annotated[SecretStr, AfterValidator(_check_url), Field(json_schema_extra={"maxLength": LONGEST_URL})]
Secret: TypeAlias = Annotated[SecretStr, AfterValidator(_check_secret), Field(max_length=128)]
RoutingKey: TypeAlias = Annotated[
    SecretStr, AfterValidator(_check_routing_key), Field(json_schema_extra={"pattern": "^[A-Za-z0-9]{32}$"})
]


class UrlConfig(ChannelConfig):
    """The address of a receiver that needs no other secret, such as an incoming webhook of Slack."""

    url: Url


class WebhookConfig(ChannelConfig):
    """A POST signed by Standard Webhooks. The API makes a secret if it is left out.

    previous_secrets sign each request as well, so that a receiver can change to the new secret at any time.
    """

    url: Url
    secret: Secret = Field(default_factory=lambda: None)  # type: ignore[assignment]  # the API makes one
    previous_secrets: Annotated[tuple[Secret, ...], Field(max_length=4)] = ()

    @model_validator(mode="after")
    def _is_complete(self, info: ValidationInfo) -> "WebhookConfig":
        if info.context is not None and self.secret is None:
            raise ValueError("config.secret is missing")
        return self


class PagerDutyConfig(ChannelConfig):
    """An integration of the Events API v2. url is for the European service region and for relays."""

    routing_key: RoutingKey
    url: Url | None = None


class ChannelKind(NamedTuple):
    """A kind of channel. example: a configuration, for the API's documentation."""

    title: str
    config: type[ChannelConfig]
    example: Mapping[str, str]


KINDS: Mapping[str, ChannelKind] = MappingProxyType(
    {
        "webhook": ChannelKind(
            "Webhook",
            WebhookConfig,
            {"url": "https://hooks.example.com/pulse", "secret": "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"},
        ),
        "slack": ChannelKind("Slack", UrlConfig, {"url": "https://hooks.slack.com/services/T000/B000/XXXX"}),
        "teams": ChannelKind("Teams", UrlConfig, {"url": "https://example.logic.azure.com/workflows/1"}),
        "pagerduty": ChannelKind("PagerDuty", PagerDutyConfig, {"routing_key": "0123456789abcdef0123456789abcdef"}),
    }
)
