"""What all channel configurations have in common: unknown keys refused, secrets never shown."""

import re
from typing import Annotated, TypeAlias
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, SecretStr, ValidationInfo

# Shorter parts of an address are blotted out only when they do not look like words: errors shall stay readable.
_SHORTEST_SECRET = 8
_SHORTEST_TOKEN = 4
_WORD = re.compile(r"[A-Za-z]?[a-z]+(?:[-_.][a-z]+)*")


class ChannelConfig(BaseModel):
    """A channel's configuration; validate it with context {"allow_private": bool}."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    def secrets(self) -> list[str]:
        """Every text that must not be repeated to anybody, longest first."""
        found: set[str] = set()
        for name in type(self).model_fields:
            value = getattr(self, name)
            for secret in value if isinstance(value, tuple) else (value,):
                if isinstance(secret, SecretStr):
                    found.update(_parts(secret.get_secret_value()))
        return sorted(found, key=len, reverse=True)


def _parts(secret: str) -> set[str]:
    """The secret and, when it is an address, those parts of it that a receiver might repeat."""
    if "://" not in secret:
        return {secret}
    parts = urlsplit(secret)
    pieces = [parts.path, parts.query, parts.password or "", *parts.path.split("/"), *parts.query.split("&")]
    pieces += [piece.partition("=")[2] for piece in parts.query.split("&")]
    return {secret} | {form for piece in pieces for form in (piece, unquote(piece)) if _is_telling(form)}


def _is_telling(piece: str) -> bool:
    return len(piece) >= _SHORTEST_SECRET or (len(piece) >= _SHORTEST_TOKEN and not _WORD.fullmatch(piece))


def _check_url(url: SecretStr, info: ValidationInfo) -> SecretStr:
    try:
        parts = urlsplit(url.get_secret_value())
        _ = parts.port  # reading it is the check
    except ValueError:
        raise ValueError("is no address") from None  # its own message would repeat a part of it
    private_allowed = bool(info.context and info.context.get("allow_private"))
    if parts.scheme not in (("https", "http") if private_allowed else ("https",)):
        raise ValueError("must begin with https://")
    if not parts.hostname:
        raise ValueError("has no host")
    return url


# An address is a secret: whoever knows that of a Slack channel can post to it, and a webhook's may carry a token.
Url: TypeAlias = Annotated[SecretStr, AfterValidator(_check_url)]
