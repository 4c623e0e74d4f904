"""Configured issuers of user tokens: one from the PULSE_OIDC_ settings, or a list from a file."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from services.shared.oidc_settings import ClientAuth, OidcSettings, PulseRole, Text
from services.shared.tenant_id import is_tenant_id
from services.ui_iot.auth.trust import ClaimPath, Trust

MOST_ISSUERS = 1000


def _check_path(text: str) -> str:
    ClaimPath.parse(text)
    return text


PathText = Annotated[Text, AfterValidator(_check_path)]
Names = Annotated[tuple[Text, ...], Field(max_length=1000)]


class IssuerFault(Exception):
    """A setting or the issuers file is wrong. The message begins with the name of the setting."""


class IssuerEntry(BaseModel):
    """One issuer, in the form of an entry of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    issuer: Text
    audiences: Annotated[Names, Field(min_length=1)]
    client_ids: Names
    tenants: Literal["*"] | Names | Annotated[dict[Text, str], Field(max_length=10_000)] | None = None
    """Names, or a map from the claim's values to Pulse's names, or `*` for every tenant."""
    tenant_claim: PathText
    role_claim: PathText
    role_map: Annotated[dict[Text, PulseRole], Field(min_length=1)] | None
    strict_type: bool
    discovery: Text | None = None
    """Address for discovery if it differs from the issuer."""
    jwks_url: Text | None = None
    jwks_file: Path | None = None
    client_id: Text | None = None
    """Client for /auth/refresh. None: sessions of this issuer are not refreshed here."""
    client_secret: SecretStr | None = None
    client_auth: ClientAuth = "auto"

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.jwks_url and self.jwks_file:
            raise ValueError("jwks_url and jwks_file exclude each other")
        for name in (self._tenant_map or {}).values():
            if not is_tenant_id(name):
                raise ValueError(f"tenants: {name[:63]!r} cannot be the name of a tenant")
        return self

    @property
    def _tenant_map(self) -> Mapping[str, str] | None:
        match self.tenants:
            case None | "*":
                return None
            case dict():
                return self.tenants
            case names:
                return {name: name for name in names}

    def trust(self, *, max_token_bytes: int, max_token_seconds: float) -> Trust:
        """Return the conditions for this issuer's tokens."""
        return Trust(
            issuer=self.issuer,
            audiences=frozenset(self.audiences),
            client_ids=frozenset(self.client_ids),
            tenant_claim=ClaimPath.parse(self.tenant_claim),
            role_claim=ClaimPath.parse(self.role_claim),
            role_map=self.role_map,
            tenants=self._tenant_map,
            strict_type=self.strict_type,
            max_token_bytes=max_token_bytes,
            max_token_seconds=max_token_seconds,
        )


def load_issuers(settings: OidcSettings, *, service: str) -> Sequence[IssuerEntry]:
    """Return the issuers. On a wrong setting, print one line and exit with status 2, as Settings.load does."""
    try:
        return read_issuers(settings)
    except IssuerFault as fault:
        print(f"{service}: {fault}", file=sys.stderr)  # noqa: T201  # before logging is set up
        raise SystemExit(2) from None


def read_issuers(settings: OidcSettings) -> Sequence[IssuerEntry]:
    """Return the configured issuers, which may be none. Raises IssuerFault."""
    for name in ("tenant_claim", "role_claim"):
        try:
            ClaimPath.parse(getattr(settings, f"oidc_{name}"))
        except ValueError as error:
            raise IssuerFault(f"PULSE_OIDC_{name.upper()}: {error}") from None
    if settings.oidc_issuers_file is not None:
        return _read_file(settings.oidc_issuers_file, _defaults(settings))
    named = settings.jwt_issuer or settings.oidc_issuer
    if named is None:
        return ()
    own: dict[str, Any] = {
        "issuer": named,
        "discovery": settings.oidc_issuer,
        "jwks_url": settings.jwks_url,
        "jwks_file": settings.jwks_file,
        "client_id": settings.oidc_client_id if settings.oidc_issuer else None,
        "client_secret": settings.oidc_client_secret,
        "client_auth": settings.oidc_client_auth,
    }
    if settings.jwks_file is not None:
        own["jwks_url"] = None
    if settings.oidc_issuer is None and settings.jwks_url is None and settings.jwks_file is None:
        return ()
    try:
        return (IssuerEntry(**{**_defaults(settings), **own}),)
    except ValidationError as error:
        raise IssuerFault(f"PULSE_OIDC_ISSUER: {error.errors(include_url=False)[0]['msg']}") from None


def _defaults(settings: OidcSettings) -> dict[str, Any]:
    """Return the defaults of the file's entries. Client and secret have none, because they belong to one issuer."""
    return {
        "audiences": settings.oidc_audience,
        "client_ids": settings.oidc_client_ids,
        "tenant_claim": settings.oidc_tenant_claim,
        "role_claim": settings.oidc_role_claim,
        "role_map": settings.oidc_role_map,
        "strict_type": settings.oidc_strict_type,
    }


def _read_file(path: Path, defaults: dict[str, Any]) -> Sequence[IssuerEntry]:
    where = f"PULSE_OIDC_ISSUERS_FILE: {path}"
    try:
        entries = orjson.loads(path.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    except OSError as error:
        raise IssuerFault(f"{where}: {error.strerror}") from None
    except ValueError as error:
        raise IssuerFault(f"{where}: not JSON: {error}") from None
    if not isinstance(entries, list) or not 0 < len(entries) <= MOST_ISSUERS:
        raise IssuerFault(f"{where}: must be a list of 1 to {MOST_ISSUERS} issuers")
    issuers = [_read_entry(entry, defaults, f"{where}: entry {number}") for number, entry in enumerate(entries, 1)]
    if len({issuer.issuer for issuer in issuers}) < len(issuers):
        raise IssuerFault(f"{where}: an issuer is listed twice")
    if len(issuers) > 1 and any(issuer.tenants is None for issuer in issuers):
        raise IssuerFault(f'{where}: with several issuers each needs "tenants": a list of names, or "*" for all')
    return issuers


def _read_entry(entry: object, defaults: dict[str, Any], where: str) -> IssuerEntry:
    if not isinstance(entry, dict):
        raise IssuerFault(f"{where}: must be an object")
    try:
        return IssuerEntry(**{**defaults, **entry})
    except ValidationError as error:
        # The message leaves out the input, which may be a secret.
        fault = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in fault["loc"][:1])
        raise IssuerFault(f"{where}: {f'{place}: ' if place else ''}{fault['msg']}") from None
