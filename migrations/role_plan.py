"""The statements that give a server the roles of an installation. Nothing is executed here."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from psycopg import sql

from migrations.role_catalog import Role, ServerCatalog
from migrations.role_names import CALLERS, VARIABLE, RoleNames, RolesRefused


class ForeignRole(RolesRefused):
    """Raised if a role with one of Pulse's names shows signs of belonging to another application."""


_UNLIMITED = -1


@dataclass(frozen=True, slots=True)
class _Definition:
    comment: str
    can_login: bool = True
    connections: int = _UNLIMITED
    former_comment: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)


# Calls take a few milliseconds, and compiling one costs a hundred times what it saves. A pass that waits longer for a
# lock fails and is logged; a process that hangs within a transaction loses its locks.
_SERVICE = {"jit": "off", "lock_timeout": "'10s'", "idle_in_transaction_session_timeout": "'1min'"}
# An export holds its transaction open while a slow client reads.
_REQUESTS = {**_SERVICE, "idle_in_transaction_session_timeout": "'5min'"}
# A scrape reads a few views every few seconds. Two connections let consecutive scrapes overlap. No query may hold a
# lock or run for longer than Prometheus waits (scrape_timeout is 10 s by default).
_BOUNDED = {
    "default_transaction_read_only": "on",
    "statement_timeout": "'10s'",
    "lock_timeout": "'1s'",
    "idle_in_transaction_session_timeout": "'10s'",
    "search_path": "pg_catalog",
}
# A forgotten psql session must not hold a transaction open.
_INTERACTIVE = {"lock_timeout": "'10s'", "idle_in_transaction_session_timeout": "'10min'", "search_path": "public"}
# A verification hashes rows between two statements.
_AUDITOR = {"idle_in_transaction_session_timeout": "'10min'"}
# A reading role must not use up the connections of the server.
_READER_CONNECTIONS = 20
_PLAIN = re.compile(rf"[a-z_][a-z0-9_]*(owner|{'|'.join(CALLERS)})", re.ASCII)
# Otherwise channel secrets passed as parameters would reach the server's log. The first setting needs a superuser.
_UNLOGGED = ("log_parameter_max_length", "log_parameter_max_length_on_error")
_READS_PUBLIC = ("ui", "ops", "app", "auditor", "operator")
_DEFINITIONS = {
    "owner": _Definition("Owns every object of Pulse; migrations act as this role.", can_login=False),
    "ui": _Definition("The HTTP API of Pulse: takes readings, changes what people configure.", settings=_REQUESTS),
    "evaluator": _Definition("The evaluator of Pulse: one function.", settings=_SERVICE),
    "dispatcher": _Definition("The dispatcher of Pulse: one function.", settings=_SERVICE),
    "delivery": _Definition("The delivery worker of Pulse: alone gets the secrets of channels.", settings=_SERVICE),
    "ops": _Definition(
        "The ops worker of Pulse: timers, seals the audit trail and lets its months go.",
        former_comment="The ops worker: may what pulse_app may, seal the audit trail and let its months go.",
        settings=_SERVICE,
    ),
    "app": _Definition("The services of Pulse: functions and api views, no table.", settings=_REQUESTS),
    "auditor": _Definition(
        "People who audit: they read the audit trail and place legal holds.",
        connections=_READER_CONNECTIONS,
        settings=_AUDITOR,
    ),
    "exporter": _Definition("The exporter: views of schema metrics, read-only.", connections=2, settings=_BOUNDED),
    "operator": _Definition(
        "People who operate Pulse: they read all but secrets and run the repairs of the runbooks.",
        connections=_READER_CONNECTIONS,
        settings=_INTERACTIVE,
    ),
}


@dataclass(frozen=True, slots=True)
class Wishes:
    """Requested properties of roles; passwords are SCRAM verifiers by role."""

    passwords: Mapping[str, str] = field(default_factory=dict)
    set_passwords: bool = False
    exporter_connections: int | None = None


def required(server: ServerCatalog, names: RoleNames, wishes: Wishes) -> Iterator[sql.Composed]:
    """Yield the missing statements, in groups for one transaction each. Raises ForeignRole."""
    for suffix, definition in _DEFINITIONS.items():
        name = names[suffix]
        role = server.roles.get(name)
        comment = names.rename(definition.comment)
        if role is None:
            yield _create(name, suffix, definition, wishes) + _describe(name, comment, definition)
        elif role.comment != comment:
            former = definition.former_comment
            if former is None or role.comment != names.rename(former):
                _refuse_foreign(role, comment, definition)
            yield _describe(name, comment, definition)
        if role is not None and wishes.set_passwords and name in wishes.passwords:
            yield _format("alter role {} password {};\n", name, sql.Literal(wishes.passwords[name]))
    exporter = server.roles.get(names["exporter"])
    limit = wishes.exporter_connections
    if exporter is not None and limit is not None and exporter.connection_limit != limit:
        yield _format("alter role {} connection limit {};\n", exporter.name, sql.Literal(limit))
    yield from _memberships(server, names)
    yield from _database_grants(server, names)
    yield from _schema_grants(server, names)
    if not server.may_act_as_owner:
        yield _format("grant {} to {};\n", names.owner, server.login)


def optional(server: ServerCatalog, names: RoleNames) -> Iterator[tuple[sql.Composed, str | None]]:
    """Yield statements that a server may refuse, each with the report of a refusal or None for no report."""
    stats = [name for name in (names.owner, names["operator"]) if f"{name} pg_read_all_stats" not in server.memberships]
    if stats:
        statement = _format("grant pg_read_all_stats to " + ", ".join(["{}"] * len(stats)) + ";\n", *stats)
        yield statement, f"{names['operator']} sees Pulse's own sessions only"
    if "PUBLIC usage" in server.schema_grants:
        for statement in _public_usage(server, names):
            yield statement, None
    if _has_all_services(server, names):
        yield _without_membership(names), None
    for suffix, definition in _DEFINITIONS.items():
        if names[suffix] in server.roles and (lost := _lost_settings(server, names[suffix], definition)):
            yield lost, f"{names[suffix]} lacks settings that Pulse made"
    for name in names.callers:
        for setting in _UNLOGGED:
            if f"{name} {setting}" not in server.settings:
                yield _format(f"alter role {{}} set {setting} = 0;\n", name), None


def removals(server: ServerCatalog, names: RoleNames) -> Iterator[tuple[sql.Composed, str]]:
    """Yield statements for an administrator that revoke unneeded rights of Pulse's roles, each with its report."""
    if _has_all_services(server, names):
        reason = f"WARNING: {names['ops']} has the rights of {names['app']}, so of every service"
        yield _without_membership(names), reason
    for suffix, definition in _DEFINITIONS.items():
        if role := server.roles.get(names[suffix]):
            attributes = [*role.special_attributes, *(["login"] if role.can_login > definition.can_login else [])]
            if attributes:
                statement = _format(f"alter role {{}} no{' no'.join(attributes)};\n", role.name)
                yield statement, f"WARNING: {role.name} has {', '.join(attributes)}, which Pulse does not need"


def _has_all_services(server: ServerCatalog, names: RoleNames) -> bool:
    """Return whether the ops worker's role is still a member of the role of all services."""
    return f"{names['ops']} {names['app']}" in server.memberships


def _without_membership(names: RoleNames) -> sql.Composed:
    return _format("revoke {} from {};\n", names["app"], names["ops"])


def _lost_settings(server: ServerCatalog, name: str, definition: _Definition) -> sql.Composed | None:
    """Return statements that restore a role's missing settings. Changed settings are an administrator's choice."""
    lost = [setting for setting in definition.settings if f"{name} {setting}" not in server.settings]
    statements = [
        _format(f"alter role {{}} set {setting} = {definition.settings[setting]};\n", name) for setting in lost
    ]
    if definition.connections != server.roles[name].connection_limit == _UNLIMITED:
        limit = sql.Literal(definition.connections)
        statements.append(_format("alter role {} connection limit {};\n", name, limit))
    return sql.Composed(statements) if statements else None


def _create(name: str, suffix: str, definition: _Definition, wishes: Wishes) -> sql.Composed:
    statement = _format(f"create role {{}} {'login' if definition.can_login else 'nologin'}", name)
    limit = (wishes.exporter_connections if suffix == "exporter" else None) or definition.connections
    if limit != _UNLIMITED:
        statement += _format(" connection limit {}", sql.Literal(limit))
    if name in wishes.passwords:
        statement += _format(" password {}", sql.Literal(wishes.passwords[name]))
    return statement + _format(";\n")


def _describe(name: str, comment: str, definition: _Definition) -> sql.Composed:
    """Return the comment, which marks the role as one of Pulse, and the settings."""
    statement = _format("comment on role {} is {};\n", name, sql.Literal(comment))
    for setting, value in definition.settings.items():
        statement += _format(f"alter role {{}} set {setting} = {value};\n", name)
    return statement


def _refuse_foreign(role: Role, comment: str, definition: _Definition) -> None:
    traits = list(role.foreign_traits)
    if role.can_login != definition.can_login:
        traits.append("may log in" if role.can_login else "may not log in")
    if traits:
        raise ForeignRole(
            f"the server has a role {role.name} that Pulse did not make: it {', '.join(traits)}. Choose another"
            f" {VARIABLE}; or, if the role is meant for Pulse, run: comment on role {role.name} is '{comment}'"
        )


def membership_pairs(names: RoleNames) -> list[tuple[str, str]]:
    """Return the memberships among Pulse's roles as pairs of member and role."""
    return [(names.owner, role) for role in names.callers]


def planned_settings(names: RoleNames) -> Iterator[str]:
    """Yield the settings of Pulse's roles as `role name=value`."""
    for suffix, definition in _DEFINITIONS.items():
        for setting, value in definition.settings.items():
            yield f"{names[suffix]} {setting}={value.strip(chr(39))}"


def _memberships(server: ServerCatalog, names: RoleNames) -> Iterator[sql.Composed]:
    """Make the owner a member of the other roles, so that its functions show and end their sessions."""
    for member, role in membership_pairs(names):
        if f"{member} {role}" not in server.memberships:
            yield _format("grant {} to {};\n", role, member)


def _database_grants(server: ServerCatalog, names: RoleNames) -> Iterator[sql.Composed]:
    """Let only these roles and the migrating login connect to the database."""
    roles = (*names.callers, server.login)
    for role, privilege in [(names.owner, "CONNECT"), (names.owner, "CREATE"), *((role, "CONNECT") for role in roles)]:
        if f"{role} {privilege}" not in server.database_rights:
            yield _format(f"grant {privilege.lower()} on database {{}} to {{}};\n", server.database, role)
    if server.public_rights:
        yield _format("revoke all on database {} from public;\n", server.database)


def _schema_grants(server: ServerCatalog, names: RoleNames) -> Iterator[sql.Composed]:
    if not server.has_public_schema:
        yield _format("create schema public authorization {};\n", names.owner)
    elif not server.owner_creates:
        yield _format("grant usage, create on schema public to {};\n", names.owner)
    if "PUBLIC usage" not in server.schema_grants:
        yield from _public_usage(server, names)


def _public_usage(server: ServerCatalog, names: RoleNames) -> Iterator[sql.Composed]:
    for role in (names[suffix] for suffix in _READS_PUBLIC):
        if f"{role} usage" not in server.schema_grants:
            yield _format("grant usage on schema public to {};\n", role)


def _format(template: str, *parts: str | sql.Literal) -> sql.Composed:
    """Fill in identifiers and literals. Pulse's names are unquoted, because administrators read these statements."""
    return sql.SQL(template).format(*(part if isinstance(part, sql.Literal) else _identifier(part) for part in parts))


def _identifier(name: str) -> sql.Composable:
    return sql.SQL(name) if _PLAIN.fullmatch(name) else sql.Identifier(name)
