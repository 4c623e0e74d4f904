"""Every setting of every process, read from PULSE_* variables once, at start."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    Field,
    HttpUrl,
    IPvAnyNetwork,
    Json,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import NoDecode, SettingsConfigDict

from services.shared.connecting.setting import DatabaseUrl, ListenUrl
from services.shared.egress import Egress, Proxy, check_ca_file
from services.shared.evaluation_settings import EvaluationSettings
from services.shared.http_settings import HttpSettings
from services.shared.ingest_settings import IngestSettings
from services.shared.limit_settings import AuditReadSettings, RequestLimitSettings, TenantLimitSettings
from services.shared.login_settings import own_login
from services.shared.oidc_settings import OidcSettings, split_list
from services.shared.secrets_settings import OpenedSecretSettings, SealedSecretSettings
from services.shared.web_settings import SharedPortSettings, WebSettings

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0)]


def _check_proxy(url: SecretStr) -> SecretStr:
    Proxy.parse(url.get_secret_value())
    return url


ServiceName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]

SERVICES = ("ui_iot", "evaluator_iot", "dispatcher", "delivery_worker", "ops_worker", "exporter")
"""In the order of their ports: the first is the port base plus 1."""


class Settings(WebSettings, HttpSettings):
    """What every process needs; each process has its own subclass and sees only its own fields."""

    model_config = SettingsConfigDict(
        env_prefix="PULSE_",
        frozen=True,
        env_ignore_empty=True,
        extra="ignore",
        hide_input_in_errors=True,
        populate_by_name=True,
    )
    service: ClassVar[str]

    database_url: DatabaseUrl
    """URL of the database, with libpq's parameters (operate.md); may lead to a pooler in transaction mode."""
    listen_url: ListenUrl | None = None
    """A direct connection for LISTEN; the database_url when unset; `off`: none, workers poll each second instead."""
    port: Port
    """Where the process serves /metrics and the health endpoints; each has a default of its own."""
    host: str = "127.0.0.1"
    """Address that /metrics, the health endpoints and the API are bound to."""
    metrics_port: Port | None = None
    """A port for /metrics alone, which then is not on PULSE_PORT. Each process needs another: `pulse up` refuses it."""
    log_level: Annotated[str, Field(pattern=r"^(DEBUG|INFO|WARNING|ERROR)$")] = "INFO"
    """DEBUG, INFO, WARNING or ERROR."""
    pool_min_size: Annotated[int, Field(ge=0)] = 1
    """Database connections kept open."""
    pool_max_size: Annotated[int, Field(ge=1)] = 4
    """Most database connections, not counting the one that listens."""
    command_timeout_seconds: Seconds = 30.0
    """Longest that one statement may take."""
    statement_cache_size: Annotated[int, Field(ge=0)] = 100
    """Prepared statements kept a connection; 0 behind a pooler in transaction mode."""
    poll_seconds: Seconds = 5.0
    """Longest that a worker waits when nothing wakes it."""
    ca_file: Annotated[Path, AfterValidator(check_ca_file)] | None = None
    """Certificates in PEM form of authorities that outgoing calls trust besides the public ones."""
    egress_proxy: Annotated[SecretStr, AfterValidator(_check_proxy)] | None = None
    """HTTP proxy of outgoing calls: http://host:port or https://host:port, with user:password@ if it asks for them."""
    egress_no_proxy: Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_list)] = ()
    """Hosts, separated by commas, that are called without the proxy; .example.com stands for all names below it."""
    allow_unsafe_database: bool = False
    """For tests only: work with a database whose fsync or synchronous_commit is off, which loses rows in a crash."""

    @field_validator("metrics_port")
    @classmethod
    def _is_another_port(cls, metrics_port: int | None, info: ValidationInfo) -> int | None:
        if metrics_port is not None and metrics_port == info.data.get("port"):
            raise ValueError("must be another port than PULSE_PORT")
        return metrics_port

    @property
    def egress(self) -> Egress:
        """The way that outgoing calls take."""
        proxy = None if self.egress_proxy is None else Proxy.parse(self.egress_proxy.get_secret_value())
        return Egress(self.ca_file, proxy, tuple(host.lower() for host in self.egress_no_proxy))

    @property
    def listen_dsn(self) -> str | None:
        """URL of the connection that listens; None when none does."""
        return None if self.listen_url == "off" else self.listen_url or self.database_url

    @classmethod
    def session_attrs(cls, hosts: int) -> str:  # noqa: ARG003  for subclasses
        """Return target_session_attrs of a URL that does not say it, by the number of its hosts."""
        return "read-write"

    @classmethod
    def load(cls) -> Self:
        """Read the environment; on a bad value print one line a fault and exit with status 2."""
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
        """Return the variable that gave a value; of several that may, the one that is set."""
        for field in cls.model_fields.values():
            alias = field.validation_alias
            if isinstance(alias, AliasChoices) and location in alias.choices:
                return next((str(name) for name in alias.choices if os.environ.get(str(name))), location)
        return "PULSE_" + location.upper().removeprefix("PULSE_")


class AuditSettings(Settings, AuditReadSettings):
    """Every process that writes audit events from Python."""

    service = "audit"
    audit_buffer_size: Annotated[int, Field(ge=1)] = 100_000
    """Audit events of each kind kept in memory; beyond that they are lost, and a row says how many."""
    audit_database_seconds: Seconds = 2.0
    """Events that must not be lost go to the spool when the database has not stored them by then."""
    audit_spool_dir: Path = Path(".pulse/audit/spool")
    """Directory on a local disk for such events; one for each database, shared by the processes of a machine."""
    audit_spool_bytes: Annotated[int, Field(ge=4096)] = 256 * 1024 * 1024
    """Most bytes in it."""
    audit_when_blocked: Literal["deny", "allow"] = "deny"
    """What becomes of a request whose event neither database nor spool take: deny answers 503, allow goes on."""
    audit_flood_rows_per_window: Annotated[int, Field(ge=0)] = 100
    """Refused requests from one address for one reason that are rows of their own, then they share one; 0: all are."""
    audit_flood_window_seconds: Seconds = 10.0
    """Time after which such a shared row is written, with their number."""
    audit_pseudonym_key: Annotated[SecretStr | None, Field(min_length=16)] = None
    """Key of the pseudonyms of accounts; when unset, one is made in a file next to the spool."""


class UiSettings(
    SharedPortSettings, AuditSettings, OidcSettings, RequestLimitSettings, IngestSettings, SealedSecretSettings
):
    """The HTTP API."""

    service = "ui_iot"
    database_url: Annotated[DatabaseUrl, own_login("UI")]
    """The database as `pulse_ui`, which changes what people configure; else `PULSE_DATABASE_URL`."""
    port: Port = 8081
    pool_max_size: Annotated[int, Field(ge=1)] = 10
    serve_docs: bool = True
    """Whether /docs and /openapi.json are served."""
    trusted_proxies: Annotated[tuple[IPvAnyNetwork, ...], NoDecode, BeforeValidator(split_list)] = ()
    """Networks in CIDR form, separated by commas, whose X-Forwarded-For is believed."""
    trust_incoming_trace: bool = True
    """Continue the trace of a caller; false: start our own and keep the caller's id beside it."""
    auth_rate_limit_per_minute: Annotated[int, Field(ge=0)] = 120
    """Failures in a minute before an address, or a proven account, gets 429 for further ones; 0: no limit."""
    device_cache_seconds: Annotated[float, Field(ge=0, le=60)] = 5.0
    """How long an accepted device token is not asked for again: a token changed elsewhere works that much longer."""
    audit_max_tails: Annotated[int, Field(ge=1, le=10_000)] = 50
    """Clients that may follow the audit trail at a time, of which one tenant's are at most half."""
    allow_private_destinations: bool = False
    """Whether a channel may point to this machine, by plain http too: for the demo."""


class EvaluatorSettings(Settings, EvaluationSettings):
    """Readings to alerts."""

    service = "evaluator_iot"
    database_url: Annotated[DatabaseUrl, own_login("EVALUATOR")]
    """The database as `pulse_evaluator`, which calls one function; else `PULSE_DATABASE_URL`."""
    port: Port = 8082
    poll_seconds: Seconds = 1.0
    """Also how late an alert may open that waited for for_seconds and got no further reading."""


class DispatcherSettings(Settings):
    """Alert events to notification jobs."""

    service = "dispatcher"
    database_url: Annotated[DatabaseUrl, own_login("DISPATCHER")]
    """The database as `pulse_dispatcher`, which calls one function; else `PULSE_DATABASE_URL`."""
    port: Port = 8083
    dispatcher_batch_events: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Most alert events one pass takes."""


class DeliverySettings(Settings, OpenedSecretSettings):
    """Notification jobs to requests."""

    service = "delivery_worker"
    database_url: Annotated[DatabaseUrl, own_login("DELIVERY")]
    """The database as `pulse_delivery`, which alone gets the secrets of channels; else `PULSE_DATABASE_URL`."""
    port: Port = 8084
    poll_seconds: Seconds = 1.0
    """Also how late a retry may start that nothing else wakes the worker for."""
    delivery_concurrency: Annotated[int, Field(ge=1, le=1000)] = 64
    """Requests that one worker has in hand at a time."""
    delivery_channel_concurrency: Annotated[int, Field(ge=1, le=1000)] = 8
    """Requests that one channel gets at a time from all workers, so that one that hangs leaves room for the others."""
    delivery_lease_seconds: Annotated[float, Field(gt=0, le=600)] = 30.0
    """Time after which a vanished worker's notifications are sent by another."""
    delivery_timeout_seconds: Annotated[float, Field(gt=0, validate_default=True)] = 10.0
    """Longest that one request may take in all; less than half of the lease."""
    delivery_stop_seconds: Seconds = 5.0
    """Longest that a stopping worker waits for the requests it has in hand."""
    delivery_backoff_seconds: Seconds = 5.0
    """Pause after a first failed attempt; each further one triples it."""
    delivery_backoff_max_seconds: Seconds = 1800.0
    """Longest pause between two attempts."""
    delivery_retry_after_max_seconds: Annotated[float, Field(gt=0, le=2_592_000)] = 3600.0
    """Longest pause of a channel that its receiver can ask for (Retry-After); a longer wish is cut to it."""
    delivery_limited_max_seconds: Seconds = 86400.0
    """Time after which a notification is given up whose receiver still answers 429; waiting costs no attempt."""
    delivery_reap_seconds: Seconds = 5.0
    """Time between two looks for leases that ran out."""
    allow_private_destinations: bool = False
    """Whether notifications may go to this machine itself, over http too; other private addresses never."""

    @field_validator("delivery_timeout_seconds")
    @classmethod
    def _fits_the_lease(cls, seconds: float, info: ValidationInfo) -> float:
        lease_seconds = info.data.get("delivery_lease_seconds")
        if lease_seconds is not None and seconds >= lease_seconds / 2:
            raise ValueError(f"must be less than half of PULSE_DELIVERY_LEASE_SECONDS ({lease_seconds:g})")
        return seconds


class OpsSettings(Settings, TenantLimitSettings):
    """Timers: escalation, health, metrics history, partitions, retention."""

    service = "ops_worker"
    database_url: Annotated[DatabaseUrl, own_login("OPS")]
    """The database as `pulse_ops`, which alone seals the audit trail and lets months go; else `PULSE_DATABASE_URL`."""
    port: Port = 8085
    pool_max_size: Annotated[int, Field(ge=1)] = 8
    port_base: Annotated[int, Field(ge=1, le=65529)] = 8080
    """The services are asked on the six ports that follow it, unless health_targets names them."""
    health_targets: Json[Annotated[dict[ServiceName, HttpUrl], Field(min_length=1, max_length=1000)]] | None = None
    """Who is asked, as JSON: {"ui_iot": "http://10.0.0.7:8081", …}; /health is added to each address."""
    health_seconds: Seconds = 10.0
    """Time between two rounds of health checks."""
    health_timeout_seconds: Seconds = 3.0
    """A service that has not answered by then has failed its check."""
    health_failures_to_alert: Annotated[int, Field(ge=1)] = 3
    """Failed checks in a row that open an alert."""
    health_concurrency: Annotated[int, Field(ge=1)] = 8
    """Services asked at the same time."""
    service_metrics_seconds: Seconds = 60.0
    """Time between two samples of the services' counters."""
    escalation_batch: Annotated[int, Field(ge=1, le=100_000)] = 500
    """Most escalations one pass handles."""
    attack_detection_seconds: Annotated[float, Field(gt=0, le=60)] = 5.0
    """Time between two looks for attacks on accounts; a new one is alerted that much later at most."""
    partition_seconds: Seconds = 600.0
    """Time between two looks for missing partitions."""
    partition_ahead_days: Annotated[int, Field(ge=1, le=366)] = 7
    """Daily partitions of telemetry made before they are needed."""
    partition_ahead_months: Annotated[int, Field(ge=1, le=24)] = 2
    """Monthly partitions of audit_log made before they are needed."""
    seal_seconds: Annotated[float, Field(gt=0, le=60)] = 0.5
    """Time between two looks for audit events to seal; each look makes at most one block a month it finds events of."""
    seal_batch: Annotated[int, Field(ge=1, le=1_000_000)] = 50_000
    """Audit events that one pass seals; more only when one transaction wrote more."""
    seal_lease_seconds: Annotated[float, Field(ge=1, le=60)] = 10.0
    """Time after which a vanished sealer is followed by another."""
    audit_log_name: Annotated[str, Field(pattern=r"^[^\s+]{1,200}$")] = "pulse.local/audit"
    """Name of the sealed log, in every checkpoint: a name of your own, like a URL without its scheme."""
    audit_key_file: Path = Path(".pulse/audit/signing.key")
    """Private key for checkpoints, mode 0600, made at first start; `.pub` and `.head` (last tree) stay beside it."""
    audit_anchor_dir: Path = Path(".pulse/audit/checkpoints")
    """Where checkpoints are kept, a file a day; the proof is worth what this place is worth."""
    audit_anchor_url: HttpUrl | None = None
    """Webhook that gets each checkpoint as text."""
    audit_verify_seconds: Seconds = 3600.0
    """Time between two verifications of the audit events that were sealed within the last day."""
    audit_verify_all_seconds: Seconds = 86400.0
    """Time between two verifications of the whole audit trail. Raise it if hashing every row takes hours."""
    retention_seconds: Seconds = 3600.0
    """Time between two removals of old rows."""
    retention_batch: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Most alerts, or samples, one pass removes."""
    telemetry_retention_days: Annotated[int, Field(ge=9, le=36500)] = 30
    """Age at which readings are removed; readings are taken up to 7 days back, so 9 is the least."""
    alert_retention_days: Annotated[int, Field(ge=1, le=36500)] = 365
    """Time after its end at which an alert is removed with its notifications; the audit trail keeps what happened."""
    service_metrics_retention_days: Annotated[int, Field(ge=1, le=36500)] = 30
    """Age at which samples of the services' counters are removed."""
    audit_retention_days: Annotated[int, Field(ge=0, le=36500)] = 0
    """Age of its last event at which a month of the audit trail is dropped, 30 or more (PCI DSS: 400); 0: none ever."""

    @field_validator("audit_retention_days")
    @classmethod
    def _keeps_a_month(cls, days: int) -> int:
        if 0 < days < 30:
            raise ValueError("must be 30 at least, or 0 to keep the audit trail for ever")
        return days

    @property
    def status_urls(self) -> dict[str, str]:
        """Address of each service's /health."""
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
    """Where the views are, as a role that may read nothing else; else `PULSE_DATABASE_URL`, if no service's login."""
    exporter_view_timeout_seconds: Seconds = 1.0
    """Longest that one view may take; it waits for a lock at most half of that."""
    exporter_deadline_seconds: Seconds = 9.5
    """Longest that all views together may take, for their snapshot holds back vacuum; less when the scraper says so."""
    exporter_connect_timeout_seconds: Seconds = 2.0
    """Longest that a scrape waits for a connection."""
    exporter_max_rows: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Most rows, and so most samples, of one view."""

    @classmethod
    def session_attrs(cls, hosts: int) -> str:  # noqa: ARG003  one and several are the same to it
        """It only reads, also from a standby, and its role may be read-only."""
        return "any"
