"""Settings of the identity providers that issue user tokens for the API."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, Json, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Text = Annotated[str, Field(min_length=1, max_length=500)]
PulseRole = Literal["viewer", "auditor", "operator", "admin"]
ClientAuth = Literal["auto", "client_secret_basic", "client_secret_post"]


def split_list(value: object) -> object:
    """Return the parts of a list written with commas."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


TextList = Annotated[tuple[Text, ...], NoDecode, BeforeValidator(split_list)]


class OidcSettings(BaseSettings):
    """Identity providers of ui_iot (docs/identity-providers.md)."""

    model_config = SettingsConfigDict(env_prefix="PULSE_", frozen=True, env_ignore_empty=True, extra="ignore")

    oidc_issuer: str | None = None
    """Issuer of user tokens, spelled as in its tokens; its keys and token endpoint are found by discovery."""
    oidc_issuers_file: Path | None = None
    """JSON file with a list of issuers, instead of PULSE_OIDC_ISSUER; its entries have these settings as defaults."""
    oidc_audience: Annotated[TextList, Field(min_length=1)] = ("pulse",)
    """Audiences, separated by commas, of which a user token must name one."""
    oidc_client_ids: TextList = ()
    """Clients, separated by commas, that tokens must be issued to. Their tokens need no audience. Unset: any client."""
    oidc_tenant_claim: Text = "tenant_id"
    """Claim with the tenant: a name, a dotted path, or a JSON array of names."""
    oidc_role_claim: Text = "role"
    """Claim with the role or a list of roles, written likewise."""
    oidc_role_map: Json[Annotated[dict[Text, PulseRole], Field(min_length=1)]] | None = None
    """Provider's roles as JSON: {"Pulse.Admin": "admin", …}; other roles then count nothing. The highest match wins."""
    oidc_strict_type: bool = False
    """Accept only tokens of header type at+jwt (RFC 9068)."""
    oidc_max_token_bytes: Annotated[int, Field(ge=1024, le=32_768)] = 8192
    """Longest user token in bytes, at most 32,768."""
    max_token_seconds: Annotated[int, Field(ge=60, le=31_622_400)] = 86_400
    """Longest lifetime of a user token in seconds, from its iat to its exp. Tokens that last longer are refused."""
    oidc_client_id: str = "pulse"
    """Client that /auth/refresh shows the issuer."""
    oidc_client_secret: SecretStr | None = None
    """Secret of that client, when it has one."""
    oidc_client_auth: ClientAuth = "auto"
    """How the secret is sent: client_secret_basic, client_secret_post, or auto: what the issuer's description says."""
    jwks_url: str | None = None
    """Keys of user tokens, instead of discovery; or jwks_file."""
    jwks_file: Path | None = None
    """Keys of user tokens in a file, read again when it names a new key."""
    jwt_issuer: Annotated[str | None, Field(validate_default=True)] = None
    """Issuer that tokens must name when their keys come from jwks_url or jwks_file; the oidc_issuer when unset."""

    @field_validator("jwt_issuer")
    @classmethod
    def _names_the_issuer(cls, issuer: str | None, info: ValidationInfo) -> str | None:
        """Require the name: keys alone would accept tokens of every issuer with the same keys."""
        keys = info.data.get("jwks_url") or info.data.get("jwks_file")
        if keys and not issuer and not info.data.get("oidc_issuer"):
            raise ValueError("needed with PULSE_JWKS_URL and PULSE_JWKS_FILE")
        single = keys or issuer or info.data.get("oidc_issuer")
        if info.data.get("oidc_issuers_file") and single:
            raise ValueError(
                "PULSE_OIDC_ISSUERS_FILE lists all issuers: unset PULSE_OIDC_ISSUER, PULSE_JWT_ISSUER and keys"
            )
        return issuer
