"""Settings of what requests may carry: readings, and bytes of bodies."""

from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 1024 * 1024


class IngestSettings(BaseSettings):
    """Readings and request bodies of ui_iot."""

    model_config = SettingsConfigDict(env_prefix="PULSE_", frozen=True, env_ignore_empty=True, extra="ignore")

    ingest_max_readings: Annotated[int, Field(ge=1, le=100_000)] = 10_000
    """Most readings in one request. Its body may hold ten times as many JSON values."""
    ingest_max_body_bytes: Annotated[int, Field(ge=1024)] = 8 * MIB
    """Longest request with readings."""
    ingest_max_age_seconds: Annotated[float, Field(gt=0, le=7 * 86400)] = 7 * 86400.0
    """Oldest reading that is taken."""
    ingest_max_future_seconds: Annotated[float, Field(ge=0, le=86400)] = 300.0
    """How far a device's clock may be ahead."""
    body_bytes_in_flight: Annotated[int, Field(ge=1024)] = 128 * MIB
    """Bytes of bodies longer than 64 KiB that a process holds at a time, of which one tenant's are at most half."""
    body_bytes_per_caller: Annotated[int, Field(ge=1024)] = 16 * MIB
    """The same for one device or user; at least the longest request with readings."""

    @model_validator(mode="after")
    def _has_room_for_one(self) -> Self:
        if self.body_bytes_per_caller < self.ingest_max_body_bytes:
            longest = self.ingest_max_body_bytes
            raise ValueError(f"PULSE_BODY_BYTES_PER_CALLER must be at least PULSE_INGEST_MAX_BODY_BYTES ({longest})")
        if self.body_bytes_in_flight < 2 * self.body_bytes_per_caller:
            share = self.body_bytes_per_caller
            raise ValueError(f"PULSE_BODY_BYTES_IN_FLIGHT must be at least twice PULSE_BODY_BYTES_PER_CALLER ({share})")
        return self
