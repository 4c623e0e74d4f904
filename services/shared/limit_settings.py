"""Settings that limit the share of one tenant or caller."""

from typing import Annotated

from pydantic import Field

from services.shared.topic_settings import TopicSettings

Most = Annotated[int, Field(ge=0, le=1_000_000_000_000)]


class TenantLimitSettings(TopicSettings):
    """Default limits of tenants (docs/limits.md), stored by ops_worker at its start."""

    limit_rules: Most = 10_000
    """Maximum of alert rules of one tenant. 0: unlimited. `pulse tenant limit` changes a limit for one tenant."""
    limit_devices: Most = 100_000
    """Maximum of devices of one tenant. 0: unlimited."""
    limit_series: Most = 1_000_000
    """Maximum of series (pairs of device and metric) of one tenant. 0: unlimited."""
    limit_channels: Most = 1000
    """Maximum of notification channels of one tenant. 0: unlimited."""
    limit_alerts_open: Most = 100_000
    """Maximum of open alerts of one tenant. 0: unlimited. Further alerts wait until others are closed."""
    limit_transitions_per_minute: Most = 120_000
    """Maximum of openings and closings of one tenant's alerts per minute. An opening counts twice. 0: unlimited."""

    def limits(self) -> dict[str, int]:
        """Return the defaults by the names that the database uses."""
        return {name.removeprefix("limit_"): getattr(self, name) for name in TenantLimitSettings.model_fields}


class RequestLimitSettings(TopicSettings):
    """Limits of requests to ui_iot, for each of its processes."""

    requests_per_principal: Most = 12_000
    """Requests per minute of one user or device. All may come at once. 0: unlimited."""
    requests_per_tenant: Most = 120_000
    """Requests per minute of all users and devices of one tenant. 0: unlimited."""
