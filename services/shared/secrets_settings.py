"""Setting of the key that seals the secrets of channels."""

from collections.abc import Callable
from pathlib import Path

from pydantic import field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.shared.secret_box import read_private_keys, read_public_key


class SealedSecretSettings(BaseSettings):
    """Secrets of channels in ui_iot, which seals them and can read none (docs/delivery.md)."""

    model_config = SettingsConfigDict(env_prefix="PULSE_", frozen=True, env_ignore_empty=True, extra="ignore")

    secrets_key_file: Path | None = None
    """Key file of channel secrets. The API reads only the public key in the file of the same name with `.pub`."""

    @field_validator("secrets_key_file")
    @classmethod
    def _has_public_key(cls, file: Path | None) -> Path | None:
        return _require(read_public_key, file)


class OpenedSecretSettings(BaseSettings):
    """Secrets of channels in delivery_worker, which alone can read them."""

    model_config = SettingsConfigDict(env_prefix="PULSE_", frozen=True, env_ignore_empty=True, extra="ignore")

    secrets_key_file: Path | None = None
    """Key file of channel secrets, made by `pulse secrets init`. Unset: secrets are stored as plain text."""

    @field_validator("secrets_key_file")
    @classmethod
    def _has_private_keys(cls, file: Path | None) -> Path | None:
        return _require(read_private_keys, file)


def _require(read: Callable[[Path], object], file: Path | None) -> Path | None:
    """Return the file, if what it must hold can be read. An error that names no key becomes the setting's fault."""
    if file is not None:
        read(file)
    return file
