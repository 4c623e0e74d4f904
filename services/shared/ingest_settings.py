"""Settings of readings and request bodies."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from services.shared.topic_settings import TopicSettings

MIB = 1024 * 1024


class IngestSettings(TopicSettings):
    """Readings and request bodies of ui_iot."""

    ingest_max_readings: Annotated[int, Field(ge=1, le=100_000)] = 10_000
    """Maximum of readings in one request. The body may have ten times as many JSON values."""
    ingest_max_body_bytes: Annotated[int, Field(ge=1024)] = 8 * MIB
    """Maximum size in bytes of a request with readings."""
    ingest_max_age_seconds: Annotated[float, Field(gt=0, le=7 * 86400)] = 7 * 86400.0
    """Maximum age in seconds of an accepted reading, at most 7 days."""
    ingest_max_future_seconds: Annotated[float, Field(ge=0, le=86400)] = 300.0
    """Seconds that the clock of a device may be ahead of the server, at most a day."""
    body_bytes_in_flight: Annotated[int, Field(ge=1024)] = 128 * MIB
    """Bytes of request bodies over 64 KiB that a process holds at a time. One tenant can use half."""
    body_bytes_per_caller: Annotated[int, Field(ge=1024)] = 16 * MIB
    """The same limit for one device or user, at least PULSE_INGEST_MAX_BODY_BYTES."""

    @model_validator(mode="after")
    def _has_room_for_one(self) -> Self:
        if self.body_bytes_per_caller < self.ingest_max_body_bytes:
            longest = self.ingest_max_body_bytes
            raise ValueError(f"PULSE_BODY_BYTES_PER_CALLER must be at least PULSE_INGEST_MAX_BODY_BYTES ({longest})")
        if self.body_bytes_in_flight < 2 * self.body_bytes_per_caller:
            share = self.body_bytes_per_caller
            raise ValueError(f"PULSE_BODY_BYTES_IN_FLIGHT must be at least twice PULSE_BODY_BYTES_PER_CALLER ({share})")
        return self
