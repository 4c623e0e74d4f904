"""Settings of what one tenant or one caller may use of what all share."""

from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

Most = Annotated[int, Field(ge=0, le=1_000_000_000_000)]
_CONFIG = SettingsConfigDict(env_prefix="PULSE_", frozen=True, env_ignore_empty=True, extra="ignore")


class TenantLimitSettings(BaseSettings):
    """Limits of tenants without limits of their own (docs/limits.md). ops_worker stores them at its start."""

    model_config = _CONFIG

    limit_rules: Most = 10_000
    """Alert rules of one tenant; 0: no limit. `pulse tenant limit` sets another value for a tenant."""
    limit_devices: Most = 100_000
    """Devices of one tenant; 0: no limit."""
    limit_series: Most = 1_000_000
    """Series, pairs of device and metric, of one tenant; 0: no limit."""
    limit_channels: Most = 1000
    """Notification channels of one tenant; 0: no limit."""
    limit_alerts_open: Most = 100_000
    """Alerts of one tenant that are not closed; 0: no limit. Further ones wait until others are closed."""
    limit_transitions_per_minute: Most = 120_000
    """Openings and closings of alerts of one tenant in a minute; an opening counts as two. 0: no limit."""

    def limits(self) -> dict[str, int]:
        """Return the defaults by the names that the database uses."""
        return {name.removeprefix("limit_"): getattr(self, name) for name in TenantLimitSettings.model_fields}


class RequestLimitSettings(BaseSettings):
    """Limits of requests that ui_iot answers, in each of its processes."""

    model_config = _CONFIG

    requests_per_principal: Most = 12_000
    """Requests that one user or device may send in a minute, all at once if need be; 0: no limit."""
    requests_per_tenant: Most = 120_000
    """Requests that all users and devices of one tenant may send in a minute; 0: no limit."""


class AuditReadSettings(BaseSettings):
    """Audit rows of successful reads, such as those of a page that polls."""

    model_config = _CONFIG

    audit_read_rows_per_window: Annotated[int, Field(ge=0)] = 1
    """Reads of one kind by one caller that get a row each in a window; later ones share a row. 0: each has its own."""
    audit_read_window_seconds: Annotated[float, Field(gt=0, le=3600)] = 60.0
    """Time after which the shared row of repeated reads is written, with their number."""
