"""Settings of the timers of ops_worker: health checks, partitions and retention, and the seal of the audit trail."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, HttpUrl, Json, field_validator

from services.shared.topic_settings import Seconds, TopicSettings

ServiceName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]


class HealthSettings(TopicSettings):
    """Health checks and metrics history of ops_worker."""

    port_base: Annotated[int, Field(ge=1, le=65529)] = 8080
    """The six services are checked on the ports after this one, unless PULSE_HEALTH_TARGETS names them."""
    health_targets: Json[Annotated[dict[ServiceName, HttpUrl], Field(min_length=1, max_length=1000)]] | None = None
    """Services to check, as JSON: {"ui_iot": "http://10.0.0.7:8081", …}. /health is added to each address."""
    health_seconds: Seconds = 10.0
    """Seconds between two rounds of health checks."""
    health_timeout_seconds: Seconds = 3.0
    """Time-out in seconds of one check."""
    health_failures_to_alert: Annotated[int, Field(ge=1)] = 3
    """Failed checks in a row after which an alert opens."""
    health_concurrency: Annotated[int, Field(ge=1)] = 8
    """Services that are checked at the same time."""
    service_metrics_seconds: Seconds = 60.0
    """Seconds between two samples of the services' counters."""


class RetentionSettings(TopicSettings):
    """Partitions and retention (docs/operate.md)."""

    partition_seconds: Seconds = 600.0
    """Seconds between two searches for missing partitions."""
    partition_ahead_days: Annotated[int, Field(ge=1, le=366)] = 7
    """Daily partitions of telemetry that are made in advance."""
    partition_ahead_months: Annotated[int, Field(ge=1, le=24)] = 2
    """Monthly partitions of audit_log that are made in advance."""
    retention_seconds: Seconds = 3600.0
    """Seconds between two removals of old rows."""
    retention_batch: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Maximum of alerts, or of samples, that one pass removes."""
    telemetry_retention_days: Annotated[int, Field(ge=9, le=36500)] = 30
    """Age in days at which readings are removed. The minimum is 9, because readings may arrive 7 days late."""
    alert_retention_days: Annotated[int, Field(ge=1, le=36500)] = 365
    """Days after its end at which an alert is removed with its notifications. The audit trail keeps its events."""
    service_metrics_retention_days: Annotated[int, Field(ge=1, le=36500)] = 30
    """Age in days at which samples of the services' counters are removed."""
    audit_retention_days: Annotated[int, Field(ge=0, le=36500)] = 0
    """Days after its last event when a month of the audit trail is dropped, at least 30 (PCI DSS: 400). 0: never."""

    @field_validator("audit_retention_days")
    @classmethod
    def _keeps_a_month(cls, days: int) -> int:
        if 0 < days < 30:
            raise ValueError("must be 30 at least, or 0 to keep the audit trail for ever")
        return days


class SealSettings(TopicSettings):
    """Seal and verification of the audit trail (docs/audit.md)."""

    attack_detection_seconds: Annotated[float, Field(gt=0, le=60)] = 5.0
    """Seconds between two searches for attacks on accounts, at most 60. An alert may be that late."""
    seal_seconds: Annotated[float, Field(gt=0, le=60)] = 0.5
    """Seconds between two passes of the sealer, at most 60. A pass makes at most one block for each month."""
    seal_batch: Annotated[int, Field(ge=1, le=1_000_000)] = 50_000
    """Audit events that one pass seals. A transaction that wrote more is sealed in one pass."""
    seal_lease_seconds: Annotated[float, Field(ge=1, le=60)] = 10.0
    """Seconds until the sealer's lease expires. After a crash, another ops_worker seals that much later."""
    audit_log_name: Annotated[str, Field(pattern=r"^[^\s+]{1,200}$")] = "pulse.local/audit"
    """Name of the sealed log, in every checkpoint. Choose a unique name in the form of a URL without its scheme."""
    audit_key_file: Path = Path(".pulse/audit/signing.key")
    """Private key for checkpoints, of mode 0600, made at the first start. `.pub` and `.head` are kept beside it."""
    audit_anchor_dir: Path = Path(".pulse/audit/checkpoints")
    """Directory of kept checkpoints, one file a day. Choose a place that database administrators cannot write to."""
    audit_anchor_url: HttpUrl | None = None
    """Webhook that receives each checkpoint as text."""
    audit_verify_seconds: Seconds = 3600.0
    """Seconds between two verifications of the audit events that were sealed within the last day."""
    audit_verify_all_seconds: Seconds = 86400.0
    """Seconds between two verifications of the whole audit trail. Raise it if hashing every row takes hours."""
