"""Settings of the identity providers that issue user tokens for the API."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, Json, SecretStr, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from services.shared.topic_settings import TopicSettings, split_list

Text = Annotated[str, Field(min_length=1, max_length=500)]
PulseRole = Literal["viewer", "auditor", "operator", "admin"]
ClientAuth = Literal["auto", "client_secret_basic", "client_secret_post"]


TextList = Annotated[tuple[Text, ...], NoDecode, BeforeValidator(split_list)]


class OidcSettings(TopicSettings):
    """Identity providers of ui_iot (docs/identity-providers.md)."""

    oidc_issuer: str | None = None
    """Issuer of user tokens, spelled as in its tokens. Its keys and token endpoint are found by discovery."""
    oidc_issuers_file: Path | None = None
    """JSON file with a list of issuers, instead of PULSE_OIDC_ISSUER. These settings are its defaults."""
    oidc_audience: Annotated[TextList, Field(min_length=1)] = ("pulse",)
    """Accepted audiences, separated by commas. A user token must name one of these."""
    oidc_client_ids: TextList = ()
    """Accepted clients, separated by commas. Their tokens need no audience. Default: any client."""
    oidc_tenant_claim: Text = "tenant_id"
    """Claim with the tenant: a name, a dotted path, or a JSON array of names."""
    oidc_role_claim: Text = "role"
    """Claim with the role or a list of roles: a name, a dotted path, or a JSON array of names."""
    oidc_role_map: Json[Annotated[dict[Text, PulseRole], Field(min_length=1)]] | None = None
    """Pulse's role for each role of the provider, as JSON: {"Pulse.Admin": "admin", …}. Other roles are ignored.
    The highest match wins."""
    oidc_strict_type: bool = False
    """Accept only tokens of header type at+jwt (RFC 9068)."""
    oidc_max_token_bytes: Annotated[int, Field(ge=1024, le=32_768)] = 8192
    """Longest user token in bytes, at most 32,768."""
    max_token_seconds: Annotated[int, Field(ge=60, le=31_622_400)] = 86_400
    """Longest lifetime of a user token in seconds, from its iat to its exp. Tokens that last longer are refused."""
    oidc_client_id: str = "pulse"
    """Client id that /auth/refresh sends to the issuer."""
    oidc_client_secret: SecretStr | None = None
    """Secret of that client, if it has one."""
    oidc_client_auth: ClientAuth = "auto"
    """How the secret is sent: client_secret_basic or client_secret_post. auto: as the issuer's metadata requires."""
    jwks_url: str | None = None
    """URL of the keys of user tokens, instead of discovery. Alternative: PULSE_JWKS_FILE."""
    jwks_file: Path | None = None
    """File with the keys of user tokens. It is read again when a token names an unknown key."""
    jwt_issuer: Annotated[str | None, Field(validate_default=True)] = None
    """Issuer that tokens must name if their keys come from jwks_url or jwks_file. Default: PULSE_OIDC_ISSUER."""

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
