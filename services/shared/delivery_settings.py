"""Settings of notifications: leases, requests, pauses, and the key of channel secrets."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from services.shared.secret_box import read_private_keys, read_public_key
from services.shared.topic_settings import Seconds, TopicSettings


class AttemptSettings(TopicSettings):
    """Requests, retries and leases of delivery_worker (docs/delivery.md)."""

    delivery_concurrency: Annotated[int, Field(ge=1, le=1000)] = 64
    """Requests that one worker sends at a time."""
    delivery_channel_concurrency: Annotated[int, Field(ge=1, le=1000)] = 8
    """Requests that all workers together send to one channel at a time."""
    delivery_lease_seconds: Annotated[float, Field(gt=0, le=600)] = 30.0
    """Seconds until the lease of a job expires. After a crash, another worker takes over its jobs that much later."""
    delivery_timeout_seconds: Annotated[float, Field(gt=0, validate_default=True)] = 10.0
    """Time-out in seconds for one request. Must be less than half of PULSE_DELIVERY_LEASE_SECONDS."""
    delivery_stop_seconds: Seconds = 5.0
    """Seconds that a stopping worker waits for its running requests before it cuts them off."""
    delivery_backoff_seconds: Seconds = 5.0
    """Pause in seconds after the first failed attempt. Each further failure triples it."""
    delivery_backoff_max_seconds: Seconds = 1800.0
    """Longest pause in seconds between two attempts."""
    delivery_retry_after_max_seconds: Annotated[float, Field(gt=0, le=2_592_000)] = 3600.0
    """Longest pause in seconds that a receiver can request by Retry-After. Longer ones are cut to this value."""
    delivery_limited_max_seconds: Seconds = 86400.0
    """Seconds after which a notification is given up if its receiver still answers 429. The wait costs no attempt."""
    delivery_reap_seconds: Seconds = 5.0
    """Seconds between two searches for expired leases."""

    @field_validator("delivery_timeout_seconds")
    @classmethod
    def _fits_the_lease(cls, seconds: float, info: ValidationInfo) -> float:
        lease_seconds = info.data.get("delivery_lease_seconds")
        if lease_seconds is not None and seconds >= lease_seconds / 2:
            raise ValueError(f"must be less than half of PULSE_DELIVERY_LEASE_SECONDS ({lease_seconds:g})")
        return seconds


class SealedSecretSettings(TopicSettings):
    """Secrets of channels in ui_iot, which seals them and cannot read them (docs/delivery.md)."""

    secrets_key_file: Path | None = None
    """Key file of channel secrets. The API reads only the public key, in the file of the same name with `.pub`."""

    @field_validator("secrets_key_file")
    @classmethod
    def _has_public_key(cls, file: Path | None) -> Path | None:
        return _require(read_public_key, file)


class OpenedSecretSettings(TopicSettings):
    """Secrets of channels in delivery_worker, the only service that can read them."""

    secrets_key_file: Path | None = None
    """Key file of channel secrets, made by `pulse secrets init`. Without it, secrets are stored as plain text."""

    @field_validator("secrets_key_file")
    @classmethod
    def _has_private_keys(cls, file: Path | None) -> Path | None:
        return _require(read_private_keys, file)


def _require(read: Callable[[Path], object], file: Path | None) -> Path | None:
    """Return the file if it can be read. The error, which names no key, becomes the setting's fault."""
    if file is not None:
        read(file)
    return file
