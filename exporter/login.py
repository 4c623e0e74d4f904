"""Settings of the exporter that refuse the login of a service."""

import os
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import field_validator

from services.shared.settings import ExporterSettings

_SERVICES = frozenset(["app", "ui", "evaluator", "dispatcher", "delivery", "ops"])


class ExporterLoginSettings(ExporterSettings):
    """Settings of the process. It must not read metrics with the rights of a service, which may write."""

    @field_validator("database_url")
    @classmethod
    def _may_read_nothing_else(cls, url: str) -> str:
        prefix = os.environ.get("PULSE_ROLE_PREFIX") or "pulse_"
        parts = urlsplit(url)
        user = unquote((parse_qs(parts.query).get("user") or [parts.username or ""])[-1])
        if user.startswith(prefix) and user.removeprefix(prefix) in _SERVICES:
            raise ValueError(
                f"{user} may do more than read metrics: set PULSE_EXPORTER_DATABASE_URL to a login as {prefix}exporter"
            )
        return url
