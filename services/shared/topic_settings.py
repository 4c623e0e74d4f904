"""The base class of settings, and their shared types."""

from typing import Annotated, Any, TypeAlias

from pydantic import AliasChoices, BeforeValidator, Field, IPvAnyNetwork
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0)]


class TopicSettings(BaseSettings):
    """Settings of one topic, read from PULSE_* variables. A process combines the topics that it needs."""

    model_config = SettingsConfigDict(env_prefix="PULSE_", frozen=True, env_ignore_empty=True, extra="ignore")


def split_list(value: object) -> object:
    """Return the parts of a list written with commas."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


Names: TypeAlias = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_list)]
Networks: TypeAlias = Annotated[tuple[IPvAnyNetwork, ...], NoDecode, BeforeValidator(split_list)]


def own_login(name: str) -> Any:
    """Return the field of a database URL that PULSE_<name>_DATABASE_URL gives, or else PULSE_DATABASE_URL."""
    return Field(validation_alias=AliasChoices(f"PULSE_{name}_DATABASE_URL", "PULSE_DATABASE_URL"))
