"""Every setting of every process, read from PULSE_* variables once, at start."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import (
    AfterValidator,
    AliasChoices,
    Field,
    HttpUrl,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import SettingsConfigDict

from services.shared.audit_settings import AuditTrailSettings
from services.shared.connecting.setting import DatabaseUrl, ListenUrl
from services.shared.delivery_settings import AttemptSettings, OpenedSecretSettings, SealedSecretSettings
from services.shared.egress import Egress, Proxy, check_ca_file, check_proxy
from services.shared.ingest_settings import IngestSettings
from services.shared.limit_settings import RequestLimitSettings, TenantLimitSettings
from services.shared.oidc_settings import OidcSettings
from services.shared.ops_settings import HealthSettings, RetentionSettings, SealSettings
from services.shared.topic_settings import Names, Networks, Port, Seconds, own_login
from services.shared.web_settings import HttpSettings, SharedPortSettings, WebSettings

SERVICES = ("ui_iot", "evaluator_iot", "dispatcher", "delivery_worker", "ops_worker", "exporter")
"""In the order of their ports: the first is the port base plus 1."""


class Settings(WebSettings, HttpSettings):
    """Settings of every process. Each process has a subclass and sees only its own fields."""

    model_config = SettingsConfigDict(hide_input_in_errors=True, populate_by_name=True)
    service: ClassVar[str]

    database_url: DatabaseUrl
    """URL of the database, with libpq's parameters (operate.md). It may lead to a pooler in transaction mode."""
    listen_url: ListenUrl | None = None
    """URL of a direct connection for LISTEN. Default: the database URL. `off`: workers poll each second instead."""
    port: Port
    """Port of /metrics and the health endpoints. Each process has another default."""
    host: str = "127.0.0.1"
    """Address that /metrics, the health endpoints and the API are bound to."""
    metrics_port: Port | None = None
    """Separate port for /metrics, which PULSE_PORT then does not serve. Each process needs another one, so `pulse up`
    refuses this setting."""
    log_level: Annotated[str, Field(pattern=r"^(DEBUG|INFO|WARNING|ERROR)$")] = "INFO"
    """Lowest level that is logged: DEBUG, INFO, WARNING or ERROR."""
    pool_min_size: Annotated[int, Field(ge=0)] = 1
    """Minimum of open database connections."""
    pool_max_size: Annotated[int, Field(ge=1)] = 4
    """Maximum of database connections, without the one that listens."""
    command_timeout_seconds: Seconds = 30.0
    """Time-out in seconds of one statement."""
    statement_cache_size: Annotated[int, Field(ge=0)] = 100
    """Prepared statements kept for each connection. Must be 0 behind a pooler in transaction mode."""
    poll_seconds: Seconds = 5.0
    """Poll interval in seconds, used when no notification arrives."""
    ca_file: Annotated[Path, AfterValidator(check_ca_file)] | None = None
    """File with certificates, in PEM form, of further authorities that outgoing calls trust."""
    egress_proxy: Annotated[SecretStr, AfterValidator(check_proxy)] | None = None
    """HTTP proxy of outgoing calls: http://[user:password@]host:port or https://…."""
    egress_no_proxy: Names = ()
    """Hosts that are called without the proxy, separated by commas. `.example.com` stands for its subdomains."""
    allow_unsafe_database: bool = False
    """Accept a database whose fsync or synchronous_commit is off. Only for tests: a crash loses rows."""

    @field_validator("metrics_port")
    @classmethod
    def _is_another_port(cls, metrics_port: int | None, info: ValidationInfo) -> int | None:
        if metrics_port is not None and metrics_port == info.data.get("port"):
            raise ValueError("must be another port than PULSE_PORT")
        return metrics_port

    @property
    def egress(self) -> Egress:
        """Proxy and certificate authorities of outgoing calls."""
        proxy = None if self.egress_proxy is None else Proxy.parse(self.egress_proxy.get_secret_value())
        return Egress(self.ca_file, proxy, tuple(host.lower() for host in self.egress_no_proxy))

    @property
    def listen_dsn(self) -> str | None:
        """URL of the connection that listens, or None."""
        return None if self.listen_url == "off" else self.listen_url or self.database_url

    @classmethod
    def session_attrs(cls, hosts: int) -> str:  # noqa: ARG003  for subclasses
        """Return the default of target_session_attrs for a URL with this number of hosts."""
        return "read-write"

    @classmethod
    def load(cls) -> Self:
        """Read the environment. On bad values, print one line for each and exit with status 2."""
        try:
            return cls()  # type: ignore[call-arg]  # the fields come from the environment
        except ValidationError as error:
            for fault in error.errors(include_url=False, include_input=False):
                # Behind the setting's name come the members of its JSON value.
                setting, *members = fault["loc"] or ("",)
                name = ": ".join([cls._variable(str(setting)), *map(str, members)])
                print(f"{cls.service}: {name}: {fault['msg'].removeprefix('Value error, ')}", file=sys.stderr)
            raise SystemExit(2) from None

    @classmethod
    def _variable(cls, location: str) -> str:
        """Return the name of the variable that a value came from."""
        for field in cls.model_fields.values():
            alias = field.validation_alias
            if isinstance(alias, AliasChoices) and location in alias.choices:
                return next((str(name) for name in alias.choices if os.environ.get(str(name))), location)
        return "PULSE_" + location.upper().removeprefix("PULSE_")


class AuditSettings(Settings, AuditTrailSettings):
    """Processes that write audit events from Python."""

    service = "audit"


class UiSettings(
    SharedPortSettings, AuditSettings, OidcSettings, RequestLimitSettings, IngestSettings, SealedSecretSettings
):
    """The HTTP API."""

    service = "ui_iot"
    database_url: Annotated[DatabaseUrl, own_login("UI")]
    """URL of the database as `pulse_ui`. Default: `PULSE_DATABASE_URL`."""
    port: Port = 8081
    pool_max_size: Annotated[int, Field(ge=1)] = 10
    serve_docs: bool = True
    """Serve /docs and /openapi.json."""
    trusted_proxies: Networks = ()
    """Networks in CIDR form, separated by commas, whose X-Forwarded-For is trusted."""
    trust_incoming_trace: bool = True
    """Continue the trace of a caller. If false, each request starts a trace, and its log line names the caller's id."""
    auth_rate_limit_per_minute: Annotated[int, Field(ge=0)] = 120
    """Failed attempts per minute after which an address, or a proven account, gets 429. 0: unlimited."""
    device_cache_seconds: Annotated[float, Field(ge=0, le=60)] = 5.0
    """Seconds that an accepted device token is cached, at most 60. A revoked token may work that much longer."""
    audit_max_tails: Annotated[int, Field(ge=1, le=10_000)] = 50
    """Maximum of clients that follow the audit trail at a time. One tenant can use half."""
    allow_private_destinations: bool = False
    """Accept channels whose address is on this machine, by plain http as well. For the demo."""


class EvaluatorSettings(Settings):
    """Readings to alerts."""

    service = "evaluator_iot"
    database_url: Annotated[DatabaseUrl, own_login("EVALUATOR")]
    """URL of the database as `pulse_evaluator`. Default: `PULSE_DATABASE_URL`."""
    port: Port = 8082
    poll_seconds: Seconds = 1.0
    """Poll interval in seconds. An alert whose for_seconds end without a further reading may open that late."""
    evaluator_batch_readings: Annotated[int, Field(ge=1, le=100_000)] = 5000
    """Maximum of readings in one pass."""
    evaluator_batch_pairs: Annotated[int, Field(ge=1, le=10_000_000)] = 100_000
    """Maximum of pairs of a reading and a rule in one pass. One reading is always evaluated by all its rules."""
    evaluator_slow_pass_seconds: Annotated[float, Field(gt=0, le=3600)] = 1.0
    """Duration of a slow pass in seconds. After a slow pass both limits are halved, after a failed one quartered."""


class DispatcherSettings(Settings):
    """Alert events to notification jobs."""

    service = "dispatcher"
    database_url: Annotated[DatabaseUrl, own_login("DISPATCHER")]
    """URL of the database as `pulse_dispatcher`. Default: `PULSE_DATABASE_URL`."""
    port: Port = 8083
    dispatcher_batch_events: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Maximum of alert events in one pass."""


class DeliverySettings(Settings, AttemptSettings, OpenedSecretSettings):
    """Notification jobs to requests."""

    service = "delivery_worker"
    database_url: Annotated[DatabaseUrl, own_login("DELIVERY")]
    """URL of the database as `pulse_delivery`. Default: `PULSE_DATABASE_URL`."""
    port: Port = 8084
    poll_seconds: Seconds = 1.0
    """Poll interval in seconds. A retry may start that late."""
    allow_private_destinations: bool = False
    """Send to addresses on this machine, by plain http as well. Other private addresses are always refused."""


class OpsSettings(Settings, HealthSettings, RetentionSettings, SealSettings, TenantLimitSettings):
    """Timers: escalation, health, metrics history, partitions, retention."""

    service = "ops_worker"
    database_url: Annotated[DatabaseUrl, own_login("OPS")]
    """URL of the database as `pulse_ops`. Default: `PULSE_DATABASE_URL`."""
    port: Port = 8085
    pool_max_size: Annotated[int, Field(ge=1)] = 8
    escalation_batch: Annotated[int, Field(ge=1, le=100_000)] = 500
    """Maximum of escalations in one pass."""

    @property
    def status_urls(self) -> dict[str, str]:
        """Address of /health for each service."""
        here = f"{'http' if self.tls_cert_file is None else 'https'}://127.0.0.1"
        targets: Mapping[str, HttpUrl | str] = self.health_targets or {
            service: f"{here}:{self.port_base + offset}" for offset, service in enumerate(SERVICES, start=1)
        }
        return {service: str(url).rstrip("/") + "/health" for service, url in targets.items()}


class ExporterSettings(Settings):
    """Views to metrics."""

    service = "exporter"
    port: Port = 8086
    database_url: Annotated[DatabaseUrl, own_login("EXPORTER")]
    """URL of the database as `pulse_exporter`. Default: `PULSE_DATABASE_URL`, unless that is the login of a service."""
    exporter_view_timeout_seconds: Seconds = 1.0
    """Time-out in seconds of one view. Its time-out for a lock is half of that."""
    exporter_deadline_seconds: Seconds = 9.5
    """Time-out in seconds of all views together, whose snapshot holds back vacuum. The scraper may ask for less."""
    exporter_connect_timeout_seconds: Seconds = 2.0
    """Time-out in seconds of a scrape that waits for a connection."""
    exporter_max_rows: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Maximum of rows, and therefore samples, of one view."""

    @classmethod
    def session_attrs(cls, hosts: int) -> str:  # noqa: ARG003  one and several are the same to it
        """Return `any`: the exporter only reads, from a standby as well, and its role may be read-only."""
        return "any"
