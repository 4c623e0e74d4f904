"""The parameters of libpq: supported ones with their values, and refused ones with the reason."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from services.shared.connecting.service_file import read_service
from services.shared.connecting.url import BadUrl, split_url

_LARGEST = 2**31 - 1
_TLS_VERSIONS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")


@dataclass(frozen=True, slots=True)
class _Parameter:
    """The check of a parameter. env: the variable with its default."""

    env: str | None = None
    check: Callable[[str], str | None] = lambda _value: None
    """Returns the rule that the value breaks, or None."""


def _one_of(*allowed: str) -> Callable[[str], str | None]:
    *others, last = allowed
    listed = f"{', '.join(others)} or {last}" if others else last
    return lambda value: None if value in allowed else f"must be {listed}"


def _whole(value: str) -> str | None:
    text = value.strip()
    is_number = text.removeprefix("-").isascii() and text.removeprefix("-").isdigit()
    return None if is_number and abs(int(text)) <= _LARGEST else "must be a whole number"


def _refused(reason: str, *harmless: str) -> Callable[[str], str | None]:
    return lambda value: None if value in harmless else reason


# For any other parameter, libpq treats an empty value as unset.
_NEVER_EMPTY: Final = frozenset(
    (
        *("service", "servicefile", "sslmode", "sslnegotiation", "sslcertmode", "channel_binding", "gssencmode"),
        *("target_session_attrs", "load_balance_hosts", "min_protocol_version", "max_protocol_version"),
        *("connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count"),
        *("tcp_user_timeout", "scram_client_key", "scram_server_key"),
    )
)
_NO_GSS = _refused("is not supported: Pulse does not log in by Kerberos")
_NO_OAUTH = _refused("is not supported: Pulse does not log in by OAuth")

KNOWN: Final[Mapping[str, _Parameter]] = {
    "service": _Parameter("PGSERVICE", lambda value: None if value else "must name a section of the service file"),
    "servicefile": _Parameter(None, _refused("is not supported by every libpq: set PGSERVICEFILE")),
    "user": _Parameter("PGUSER"),
    "password": _Parameter("PGPASSWORD"),
    "passfile": _Parameter("PGPASSFILE"),
    "dbname": _Parameter("PGDATABASE"),
    "host": _Parameter("PGHOST"),
    "hostaddr": _Parameter("PGHOSTADDR"),
    "port": _Parameter("PGPORT"),
    "connect_timeout": _Parameter("PGCONNECT_TIMEOUT", _whole),
    "options": _Parameter("PGOPTIONS"),
    "application_name": _Parameter(
        None, _refused("is not supported: Pulse sets it to the service and the trace id of the request")
    ),
    "fallback_application_name": _Parameter(),
    "client_encoding": _Parameter(
        "PGCLIENTENCODING",
        # The encoding of the client, which auto names, is UTF-8 here.
        lambda value: (
            None if value == "auto" or value.lower().replace("-", "") in ("utf8", "unicode") else "must be UTF8"
        ),
    ),
    "target_session_attrs": _Parameter(
        "PGTARGETSESSIONATTRS", _one_of("any", "read-write", "read-only", "primary", "standby", "prefer-standby")
    ),
    "load_balance_hosts": _Parameter("PGLOADBALANCEHOSTS", _one_of("disable", "random")),
    "keepalives": _Parameter(None, _whole),
    "keepalives_idle": _Parameter(None, _whole),
    "keepalives_interval": _Parameter(None, _whole),
    "keepalives_count": _Parameter(None, _whole),
    "tcp_user_timeout": _Parameter(None, _whole),
    "sslmode": _Parameter("PGSSLMODE", _one_of("disable", "allow", "prefer", "require", "verify-ca", "verify-full")),
    "sslnegotiation": _Parameter("PGSSLNEGOTIATION", _one_of("postgres", "direct")),
    "sslrootcert": _Parameter("PGSSLROOTCERT"),
    "sslcert": _Parameter("PGSSLCERT"),
    "sslkey": _Parameter("PGSSLKEY"),
    "sslpassword": _Parameter(),
    "sslcrl": _Parameter("PGSSLCRL"),
    "sslcrldir": _Parameter("PGSSLCRLDIR"),
    "ssl_min_protocol_version": _Parameter("PGSSLMINPROTOCOLVERSION", _one_of(*_TLS_VERSIONS)),
    "ssl_max_protocol_version": _Parameter("PGSSLMAXPROTOCOLVERSION", _one_of(*_TLS_VERSIONS)),
    "sslcertmode": _Parameter("PGSSLCERTMODE", _refused("must be allow: the driver cannot promise another", "allow")),
    "sslsni": _Parameter("PGSSLSNI", _refused("must be 1: Pulse always names the host it wants", "1")),
    "sslcompression": _Parameter("PGSSLCOMPRESSION", _refused("must be 0: TLS compression is unsafe", "0")),
    "channel_binding": _Parameter(
        "PGCHANNELBINDING",
        lambda value: (
            "=require is not supported by the driver: use channel_binding=prefer with sslmode=verify-full"
            if value == "require"
            else _one_of("disable", "prefer")(value)
        ),
    ),
    "gssencmode": _Parameter(
        "PGGSSENCMODE",
        lambda value: (
            "=require is not supported: encrypt by TLS, with sslmode=verify-full"
            if value == "require"
            else _one_of("disable", "prefer")(value)
        ),
    ),
    "krbsrvname": _Parameter("PGKRBSRVNAME", _NO_GSS),
    "gsslib": _Parameter("PGGSSLIB", _NO_GSS),
    "gssdelegation": _Parameter("PGGSSDELEGATION", _refused("must be 0: Pulse does not log in by Kerberos", "0")),
    "requirepeer": _Parameter("PGREQUIREPEER", _refused("is not supported: use TLS with sslmode=verify-full")),
    "require_auth": _Parameter("PGREQUIREAUTH", _refused("is not supported by the driver: use sslmode=verify-full")),
    "min_protocol_version": _Parameter("PGMINPROTOCOLVERSION", _refused("must be 3.0, as the driver speaks", "3.0")),
    "max_protocol_version": _Parameter(
        "PGMAXPROTOCOLVERSION", _one_of("3.0", "3.2", "latest")
    ),  # the driver speaks 3.0, which every value allows
    "replication": _Parameter(None, _refused("is not supported: Pulse needs an ordinary session")),
    "sslkeylogfile": _Parameter(None, _refused("is not supported: it would write down the keys of TLS")),
    "scram_client_key": _Parameter(None, _refused("is not supported by the driver: use a password or passfile")),
    "scram_server_key": _Parameter(None, _refused("is not supported by the driver: use a password or passfile")),
    "oauth_issuer": _Parameter(None, _NO_OAUTH),
    "oauth_client_id": _Parameter(None, _NO_OAUTH),
    "oauth_client_secret": _Parameter(None, _NO_OAUTH),
    "oauth_scope": _Parameter(None, _NO_OAUTH),
}


def read_parameters(url: str, env: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters of the URL, with defaults of its service and of variables. Raises BadUrl.

    An empty value counts as unset, unless libpq refuses it.
    """
    found = _checked(split_url(url), "")
    service = found.pop("service", "") or env.get("PGSERVICE", "")
    if service:
        in_file = read_service(service, env)
        found = {**_checked(in_file, f"service {service[:60]!r}: "), **found}
    for name, parameter in KNOWN.items():
        value = env.get(parameter.env) if parameter.env else None
        if value is not None and name not in found and not (name == "service" and service):
            found |= _checked({name: value}, f"{parameter.env}: ")
    return {name: value for name, value in found.items() if value}


def _checked(parameters: Mapping[str, str], origin: str) -> dict[str, str]:
    for name, value in parameters.items():
        parameter = KNOWN.get(name)
        if parameter is None:
            shown = name if name.replace("_", "").isalnum() and len(name) <= 40 else "another"
            raise BadUrl(f"{origin}names the parameter {shown}, which libpq does not have")
        fault = parameter.check(value) if value or name in _NEVER_EMPTY else None
        if fault is not None:
            raise BadUrl(f"{origin}{name}{'' if fault.startswith('=') else ' '}{fault}")
    return dict(parameters)
