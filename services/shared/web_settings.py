"""Settings of every HTTP server of Pulse: names, certificates, and what is served at all."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from services.shared.oidc_settings import split_list


def _strip(value: object) -> object:
    """Return the value without the line break that a file of a secret ends in, which no header can carry."""
    return value.strip() if isinstance(value, str) else value


def _check_hosts(hosts: tuple[str, ...]) -> tuple[str, ...]:
    for host in hosts:
        name = host.removeprefix(".")
        if host != "*" and (not name or not name.isascii() or any(sign in name for sign in " :/*@[]\t")):
            raise ValueError(f"{host[:100]!r} is no name: it takes names, .example.com for all below, or *")
    return hosts


class WebSettings(BaseSettings):
    """Names, certificates and metrics of the HTTP server (docs/operate.md)."""

    model_config = SettingsConfigDict(env_prefix="PULSE_", frozen=True, env_ignore_empty=True, extra="ignore")

    allowed_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_list), AfterValidator(_check_hosts)] = ()
    """Names, separated by commas, that requests may have as Host; .example.com for all below it, `*` for any.
    Addresses, localhost, PULSE_HOST and this machine's name always count."""
    tls_cert_file: Path | None = None
    """Certificate chain in PEM form, with which the process serves https only; it is read again when it changes."""
    tls_key_file: Annotated[Path | None, Field(validate_default=True)] = None
    """Private key of the certificate in PEM form, without a password."""
    serve_metrics: bool = True
    """Whether the process serves /metrics at all."""
    metrics_host: str | None = None
    """Address of PULSE_METRICS_PORT; PULSE_HOST when unset."""
    metrics_token: Annotated[Annotated[SecretStr, Field(min_length=16)] | None, BeforeValidator(_strip)] = None
    """Bearer token of at least 16 characters, required to read /metrics."""

    @field_validator("tls_key_file")
    @classmethod
    def _has_its_certificate(cls, key: Path | None, info: ValidationInfo) -> Path | None:
        if "tls_cert_file" in info.data and (key is None) != (info.data["tls_cert_file"] is None):
            raise ValueError("needs PULSE_TLS_CERT_FILE, as that needs PULSE_TLS_KEY_FILE")
        return key


class SharedPortSettings(BaseSettings):
    """A port that several processes serve (docs/operate.md)."""

    model_config = SettingsConfigDict(env_prefix="PULSE_", frozen=True, env_ignore_empty=True, extra="ignore")

    reuse_port: Annotated[bool, Field(validate_default=True)] = False
    """Whether other processes of this user may serve PULSE_PORT. Each of them needs its own PULSE_METRICS_PORT."""

    @field_validator("reuse_port")
    @classmethod
    def _has_its_own_metrics(cls, reuse_port: bool, info: ValidationInfo) -> bool:  # noqa: FBT001  # pydantic
        if os.environ.get("PULSE_UI_WORKERS"):
            raise ValueError(
                "replaces PULSE_UI_WORKERS: unset that, and start one process for each worker, with"
                " PULSE_REUSE_PORT=true and its own PULSE_METRICS_PORT (docs/operate.md)"
            )
        if reuse_port and info.data.get("metrics_port", "invalid") is None:
            raise ValueError("needs PULSE_METRICS_PORT: on the shared port, any of the processes may answer a scrape")
        return reuse_port
