"""The URL of a service: a login of its own, or one that all services share."""

from typing import Any

from pydantic import AliasChoices, Field


def own_login(name: str) -> Any:
    """Return the field of a database URL that PULSE_<name>_DATABASE_URL gives, or else PULSE_DATABASE_URL."""
    return Field(validation_alias=AliasChoices(f"PULSE_{name}_DATABASE_URL", "PULSE_DATABASE_URL"))
