"""Settings of the audit trail's writer."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr

from services.shared.topic_settings import Seconds, TopicSettings


class AuditTrailSettings(TopicSettings):
    """Audit events of the API (docs/audit.md)."""

    audit_buffer_size: Annotated[int, Field(ge=1)] = 100_000
    """Maximum of audit events of each kind in memory. Further events are lost, and a row records their number."""
    audit_database_seconds: Seconds = 2.0
    """Seconds after which events that must not be lost are written to the spool if the database has not stored them."""
    audit_spool_dir: Path = Path(".pulse/audit/spool")
    """Directory of the spool, on a local disk. Processes on one machine share it if they use the same database."""
    audit_spool_bytes: Annotated[int, Field(ge=4096)] = 256 * 1024 * 1024
    """Maximum size of the spool in bytes."""
    audit_when_blocked: Literal["deny", "allow"] = "deny"
    """How to handle a request whose audit event can be stored neither in the database nor in the spool. `deny` answers
    503; `allow` continues."""
    audit_flood_rows_per_window: Annotated[int, Field(ge=0)] = 100
    """Number of refusals per address and reason that get a row each within one window. Later refusals are aggregated
    into a single row. 0 disables aggregation."""
    audit_flood_window_seconds: Seconds = 10.0
    """Seconds after which the row of aggregated refusals is written, with their number."""
    audit_pseudonym_key: Annotated[SecretStr | None, Field(min_length=16)] = None
    """Key of the pseudonyms of accounts, at least 16 characters. Default: made at the first start, beside the spool."""
    audit_read_rows_per_window: Annotated[int, Field(ge=0)] = 1
    """Successful reads of one kind and caller that get a row each within one window. Later reads are aggregated into a
    single row. 0 disables aggregation."""
    audit_read_window_seconds: Annotated[float, Field(gt=0, le=3600)] = 60.0
    """Seconds after which the shared row of repeated reads is written, with their number."""
