"""Services split a database URL as libpq does, and refuse options that they cannot apply before they start."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

from migrations.database_url import NoDatabase, database_url
from services.shared.connecting.parameters import KNOWN
from services.shared.connecting.target import Host, check_url, read_target
from services.shared.connecting.url import BadUrl, split_url
from services.shared.settings import EvaluatorSettings, ExporterSettings, OpsSettings
from tests.support.migrator import ROOT

SECRET = "hunter2secret"

_TEXT = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_characters="\x7f\x85\xa0\xad"), min_size=1, max_size=12
)
_NAMES = st.sampled_from(sorted(set(KNOWN) - {"host", "port", "service", "servicefile"}))
_HOST = st.one_of(
    st.sampled_from(["db", "db1.example", "10.0.0.7", "[::1]", "%2Fvar%2Frun", ""]),
    _TEXT.map(lambda text: quote(text, safe="")),
)
_PLACE = st.tuples(_HOST, st.one_of(st.just(""), st.integers(0, 70000).map(lambda port: f":{port}"))).map("".join)


@st.composite
def urls(draw: st.DrawFn) -> str:
    """URLs of every form that libpq has, escaped or not."""
    login = draw(
        st.one_of(st.just(""), st.tuples(_TEXT, _TEXT).map(lambda two: ":".join(quote(t, safe="") for t in two) + "@"))
    )
    places = ",".join(draw(st.lists(_PLACE, min_size=1, max_size=3)))
    path = draw(st.one_of(st.just(""), _TEXT.map(lambda text: "/" + quote(text, safe=""))))
    query = draw(st.lists(st.tuples(_NAMES, _TEXT.map(lambda text: quote(text, safe="+!$'()*;,:")))))
    mark = "?" if query else draw(st.sampled_from(["", "?"]))
    text = "&".join(f"{name}={value}" for name, value in query)
    return f"{draw(st.sampled_from(['postgres', 'postgresql']))}://{login}{places}{path}{mark}{text}"


@given(urls())
@settings(max_examples=500)
def test_it_is_split_as_libpq_splits_it(url: str) -> None:
    assert split_url(url) == {name: str(value) for name, value in conninfo_to_dict(url).items()}


def test_every_parameter_of_libpq_is_obeyed_or_refused_by_name() -> None:
    ours = {name: parameter.env for name, parameter in KNOWN.items()}
    theirs = {each.keyword.decode(): each.envvar and each.envvar.decode() for each in pq.Conninfo.get_defaults()}
    theirs.pop("sslkeylogfile", None)
    assert set(theirs) <= set(ours)
    # PGAPPNAME names the client in libpq; Pulse names itself.
    assert {name: env for name, env in theirs.items() if env not in (None, ours[name])} == {
        "application_name": "PGAPPNAME"
    }


BAD = {
    "?sslmode=bogus": "sslmode must be disable, allow, prefer, require, verify-ca or verify-full",
    "?sslmode=verify-full&sslrootcert=/nowhere/ca.pem": "sslrootcert /nowhere/ca.pem cannot be read: No such file",
    "?sslmode=require&sslcrl=/nowhere/crl.pem": "sslcrl /nowhere/crl.pem cannot be read: No such file or directory",
    "?sslmode=require&sslcert=/nowhere/me.pem": "sslcert /nowhere/me.pem cannot be read: No such file or directory",
    "?sslmode=verify-ca": "sslmode=verify-ca needs sslrootcert=FILE with the certificates of the authority, or",
    "?sslmode=require&sslrootcert=system": "sslrootcert=system needs sslmode=verify-full, not require",
    "?sslnegotiation=direct": "sslnegotiation=direct needs sslmode=require, verify-ca or verify-full, not prefer",
    "?sslmode=require&ssl_min_protocol_version=SSLv3": "ssl_min_protocol_version must be TLSv1, TLSv1.1, TLSv1.2 or",
    "?ssl_min_protocol_version=TLSv1.3&ssl_max_protocol_version=TLSv1.2": "ssl_max_protocol_version TLSv1.2 is",
    "?channel_binding=require": "channel_binding=require is not supported by the driver: use channel_binding=prefer",
    "?channel_binding=maybe": "channel_binding must be disable or prefer",
    "?gssencmode=require": "gssencmode=require is not supported: encrypt by TLS, with sslmode=verify-full",
    "?target_session_attrs=master": "target_session_attrs must be any, read-write, read-only, primary, standby or",
    "?load_balance_hosts=yes": "load_balance_hosts must be disable or random",
    "?connect_timeout=soon": "connect_timeout must be a whole number",
    "?keepalives_idle=99999999999": "keepalives_idle must be a whole number",
    "?client_encoding=LATIN1": "client_encoding must be UTF8",
    "?sslmode=": "sslmode must be disable, allow, prefer, require, verify-ca or verify-full",
    "?target_session_attrs=": "target_session_attrs must be any,",
    "?connect_timeout=": "connect_timeout must be a whole number",
    "?service=": "service must name a section of the service file",
    "?port=%20": "the port of host 1 is no number from 1 to 65535",
    "?port=70000": "the port of host 1 is no number from 1 to 65535",
    "?application_name=x": "application_name is not supported: Pulse sets it to the service and the trace id of the",
    "?require_auth=scram-sha-256": "require_auth is not supported by the driver: use sslmode=verify-full",
    "?replication=database": "replication is not supported: Pulse needs an ordinary session",
    "?krbsrvname=pg": "krbsrvname is not supported: Pulse does not log in by Kerberos",
    "?statement_timeout=5s": "names the parameter statement_timeout, which libpq does not have",
    "?sslmode": "must say sslmode=value, with %3D for a = inside the value",
    "?host=a,b,c&port=1,2": "names 2 ports and 3 hosts",
    "?host=a,b&hostaddr=10.0.0.1": "names 2 hosts and 1 addresses (hostaddr)",
    "?passfile=/nowhere/pgpass": "passfile /nowhere/pgpass cannot be read: No such file or directory",
    "?service=nosuch": "service 'nosuch' is in no service file",
    "?servicefile=/nowhere/services": "servicefile is not supported by every libpq: set PGSERVICEFILE",
    "?host=db..example": "host 1 is no name of a host",
    "?host=db," + "x" * 64: "host 2 is no name of a host",
    "?host=/" + "x" * 110: "the socket of host 1 has a path of more than 107 bytes",
}


@pytest.mark.parametrize(("query", "said"), BAD.items())
def test_what_cannot_be_obeyed_ends_the_start(
    query: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.setenv("PULSE_DATABASE_URL", f"postgresql://u:{SECRET}@db/pulse{query}")
    with pytest.raises(SystemExit) as stopped:
        EvaluatorSettings.load()
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"evaluator_iot: PULSE_DATABASE_URL: {said}")


# Options that libpq applies and the driver of the services cannot.
LIBPQ_ONLY = {
    "?channel_binding=require",
    "?application_name=x",
    "?require_auth=scram-sha-256",
    "?replication=database",
    "?krbsrvname=pg",
    "?host=db..example",
    "?host=db," + "x" * 64,
    "?host=/" + "x" * 110,
}


@pytest.mark.parametrize("query", [*BAD, "", "?client_encoding=auto", "?client_encoding=", "?sslrootcert=", "?host="])
def test_a_migration_refuses_what_services_refuse(query: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.setenv("PULSE_MIGRATION_URL", f"postgresql://u:{SECRET}@db/pulse{query}")
    fault = fault_of(database_url)
    if query in BAD and query not in LIBPQ_ONLY:
        assert fault is not None
        assert fault.startswith("PULSE_MIGRATION_URL")
        assert "\n" not in fault
        assert SECRET not in fault
    else:
        assert fault is None


def test_an_empty_value_means_the_same_to_libpq_and_services(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in sorted(set(KNOWN) - {"sslkeylogfile"}):
        url = f"postgresql://u@db/pulse?{name}="
        monkeypatch.setenv("PULSE_MIGRATION_URL", url)
        said = {"services": fault_of(partial(check_url, url)), "migrations": fault_of(database_url)}
        assert (said["services"] is None) == (said["migrations"] is None), (name, said)
        variable = KNOWN[name].env
        if variable is not None and name != "client_encoding":
            monkeypatch.setenv("PULSE_MIGRATION_URL", "postgresql://u@db/pulse")
            with monkeypatch.context() as environment:
                environment.setenv(variable, "")
                said = {
                    "services": fault_of(partial(check_url, "postgresql://u@db/pulse")),
                    "migrations": fault_of(database_url),
                }
            assert (said["services"] is None) == (said["migrations"] is None), (variable, said)


@pytest.mark.parametrize(
    "command",
    [["-m", "alembic", "current"], ["-m", "migrations.roles", "--print"], ["-m", "services.cli", "migrate"]],
)
def test_a_url_that_cannot_be_used_ends_each_command_with_2(command: list[str], tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PULSE_", "PG"))}
    env |= {"PULSE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    url = f"postgresql://u:{SECRET}@db/pulse?sslmode=bogus"
    for variable in ("PULSE_MIGRATION_URL", "PULSE_DATABASE_URL"):
        done = subprocess.run(
            [sys.executable, *command],
            check=False,
            cwd=ROOT,
            env={**env, variable: url},
            capture_output=True,
            text=True,
        )
        (line,) = done.stderr.splitlines()
        assert (done.returncode, f"{variable}: sslmode must be disable, allow," in line) == (2, True), line
        assert SECRET not in line + done.stdout


def fault_of(work: Callable[[], object]) -> str | None:
    """Return the fault reported for a URL, None if it is accepted."""
    try:
        work()
    except (BadUrl, NoDatabase) as fault:
        return str(fault)
    return None


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://u:{SECRET}/x@db/pulse",
        f"postgresql://u:5432/{SECRET}@db/pulse",
        f"postgresql://u:{SECRET}%zz@db/pulse",
        f"postgresql://u:x@{SECRET}@db/pulse",
        f"postgresql://u:p@db:{SECRET}/pulse",
        f"postgresql://u:p#{SECRET}/x@db/pulse",
        f"postgresql://u:{SECRET}@db:99999/pulse",
        f"postgresql://u:p@db/pulse?password={SECRET}%",
        f"postgresql://u:p@db/pulse?password=a&{SECRET}=b&c",
        f"postgresql://[{SECRET}/pulse",
        f"postgresql+asyncpg://u:{SECRET}@db/pulse",
        f"mysql://u:{SECRET}@db/pulse",
        f"host=db password={SECRET}",
        f"postgresql://u:a {SECRET}@db/pulse",
        f"postgresql://u:%FF{SECRET}@db/pulse",
        f"postgresql://u:%00{SECRET}@db/pulse",
    ],
)
def test_a_fault_never_shows_a_password(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither when services start nor when a migration starts; a migration may leave other options to libpq."""
    monkeypatch.delenv("PULSE_MIGRATION_URL", raising=False)
    monkeypatch.setenv("PULSE_DATABASE_URL", url)
    with pytest.raises(SystemExit) as stopped:
        EvaluatorSettings.load()
    said = capsys.readouterr().err
    assert (stopped.value.code, said.count("\n"), said.startswith("evaluator_iot: PULSE_DATABASE_URL: ")) == (
        2,
        1,
        True,
    )
    assert SECRET not in said
    fault = fault_of(database_url)
    assert fault is None or (fault.startswith("PULSE_DATABASE_URL") and SECRET not in fault and "\n" not in fault)


@given(st.text(st.sampled_from("pos:/@[]?&=,%#.0123456789azé \\"), max_size=40))
@settings(max_examples=500)
def test_no_text_makes_a_fault_of_ours(text: str) -> None:
    for url in (text, f"postgresql://{text}", f"postgresql://u:{SECRET}@{text}"):
        fault = fault_of(partial(read_target, url, {"USER": "me"})) or ""
        assert SECRET not in fault
        assert fault.isprintable()


def test_the_variable_that_gave_the_url_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind, variable in (
        (OpsSettings, "PULSE_OPS_DATABASE_URL"),
        (OpsSettings, "PULSE_DATABASE_URL"),
        (ExporterSettings, "PULSE_EXPORTER_DATABASE_URL"),
        (EvaluatorSettings, "PULSE_LISTEN_URL"),
    ):
        with monkeypatch.context() as environment:
            environment.setenv("PULSE_DATABASE_URL", "postgresql://u@db/pulse")
            environment.setenv(variable, "postgresql://u@db:port/pulse")
            with pytest.raises(SystemExit):
                kind.load()
        assert f": {variable}: the port of host 1 is no number" in capsys.readouterr().err


def test_hosts_ports_and_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    env = {"HOME": "/nonexistent"}
    assert read_target("postgresql://u@a:1,[::1],c:3/d", env).hosts == (Host("a", 1), Host("::1", 5432), Host("c", 3))
    target = read_target("postgresql://u@/d?host=a,b&port=6543&connect_timeout=5&load_balance_hosts=random", env)
    assert (target.hosts, target.connect_seconds, target.at_random) == ((Host("a", 6543), Host("b", 6543)), 5.0, True)
    target = read_target("postgresql://a/?hostaddr=10.0.0.7", {**env, "PGUSER": "me", "PGPORT": "6000"})
    assert (target.hosts, target.user, target.dbname) == ((Host("a", 6000, "10.0.0.7"),), "me", "me")
    assert read_target("postgresql://u@a/d?connect_timeout=0", env).has_limit is False
    monkeypatch.setenv("PGSSLMODE", "bogus")
    with pytest.raises(BadUrl, match="PGSSLMODE: sslmode must be"):
        check_url("postgresql://u@a/d")
    check_url("postgresql://u@a/d?sslmode=disable")  # the URL comes before the variable


def test_a_service_file_fills_what_the_url_leaves_open(tmp_path: Path) -> None:
    file = tmp_path / "services"
    file.write_text(
        "# ours\n[other]\nhost=elsewhere\n\n[pulse]\nhost=a,b\nport=1,2\nuser=app\nsslmode=disable\npassword=p=w\n"
        "[pulse]\nhost=never\n"
    )
    found = read_target("postgresql://?service=pulse&user=me", {"PGSERVICEFILE": str(file), "PGUSER": "nobody"})
    assert (found.hosts, found.user, found.given_password) == ((Host("a", 1), Host("b", 2)), "me", "p=w")
    with pytest.raises(BadUrl, match="service 'nosuch' is in no service file"):
        read_target("postgresql://u@a/d?service=nosuch", {"PGSERVICEFILE": str(file)})
    with pytest.raises(BadUrl, match="the service file /nowhere/services does not exist"):
        read_target("postgresql://u@a/d?service=pulse", {"PGSERVICEFILE": "/nowhere/services"})
    file.write_text("[pulse]\nsslmode=bogus\n")
    with pytest.raises(BadUrl, match="service 'pulse': sslmode must be"):
        read_target("postgresql://u@a/d?service=pulse", {"PGSERVICEFILE": str(file)})
    file.write_text("[pulse]\nservice=other\n")
    with pytest.raises(BadUrl, match="line 2 of the service file"):
        read_target("postgresql://u@a/d?service=pulse", {"PGSERVICEFILE": str(file)})
    file.chmod(0)
    if os.geteuid() != 0:
        with pytest.raises(BadUrl, match="cannot be read: Permission denied"):
            read_target("postgresql://u@a/d?service=pulse", {"PGSERVICEFILE": str(file)})


def test_a_password_file_is_read_as_libpq_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "pgpass"
    file.write_text(
        "# comment\nshort:line\nother:5432:*:*:wrong\ndb:5433:*:*:by-port\n"
        r"db:5432:na\:me:u:a\:b\\c:d"
        "\n*:*:*:u:last\n"
    )
    file.chmod(0o600)

    def password(url: str) -> str | None:
        target = read_target(f"{url}?passfile={file}", {})
        return target.password(target.hosts[0])

    assert password("postgresql://u@db:5433/x") == "by-port"
    assert password("postgresql://u@db/na%3Ame") == r"a:b\c:d"
    assert password("postgresql://u@db/x") == "last"
    assert password("postgresql://v@db/x") is None
    assert password("postgresql://u:own@db/x") == "own"
    file.chmod(0o644)
    assert password("postgresql://u@db/x") is None
    with pytest.raises(BadUrl, match="must be a file that others cannot read: chmod 0600"):
        check_url(f"postgresql://u@db/x?passfile={file}")


def test_a_migration_goes_to_a_server_that_takes_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "services").write_text("[s]\nhost=a,b\nport=1,2\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    for name in ("PULSE_MIGRATION_URL", "PGTARGETSESSIONATTRS", "PGCONNECT_TIMEOUT", "PGSERVICE", "PGHOST"):
        monkeypatch.delenv(name, raising=False)
    for url, added in {
        "postgresql://u@a,b/d": {"target_session_attrs": "read-write", "connect_timeout": "2"},
        "postgresql://u@a": {"connect_timeout": "10"},
        "postgresql://u@a,b/d?target_session_attrs=any&connect_timeout=7": {},
        "postgresql:///d?service=s": {},
    }.items():
        monkeypatch.setenv("PULSE_DATABASE_URL", url)
        assert conninfo_to_dict(database_url()) == {**added, **conninfo_to_dict(url)}
