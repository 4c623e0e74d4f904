"""`pulse key` and `pulse token revoke`: what they write and how they refuse."""

import asyncio
import hashlib
from typing import Any

import asyncpg
import pytest
from typer.testing import CliRunner

from services.cli.database import operator
from services.cli.errors import CommandFailed
from services.cli.program import app
from services.ui_iot.auth.stored_tokens import hash_token


@pytest.fixture
def url(app_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PULSE_DATABASE_URL", app_url)
    monkeypatch.setenv("PULSE_ALLOW_UNSAFE_DATABASE", "1")
    return app_url


def run(*arguments: str) -> str:
    """Return its output; what it refused is raised."""
    done = CliRunner().invoke(app, arguments)
    if done.exception is not None:
        raise done.exception
    return done.stdout


def test_a_key_is_made_listed_and_revoked(url: str, conn_sync: Any) -> None:
    conn_sync("insert into tenants (tenant_id, name) values ('acme', 'Acme'), ('other', 'Other')")
    key = run("key", "create", "Stock", "--tenant", "acme", "--scope", "devices:read", "--scope", "alerts:read").strip()
    assert key.startswith("pulse_key_acme_")
    [row] = conn_sync("select key_hash, role, scopes, created_by from api_keys")
    assert bytes(row["key_hash"]) == hash_token(key)
    assert (row["role"], row["scopes"], row["created_by"]) == ("viewer", ["alerts:read", "devices:read"], operator())
    assert "Stock  viewer  alerts:read,devices:read  until " in run("key", "list", "--tenant", "acme")
    assert run("key", "list", "--tenant", "other") == ""
    with pytest.raises(CommandFailed, match="no API key 1"):
        run("key", "revoke", "1", "--tenant", "other")
    assert run("key", "revoke", "1", "--tenant", "acme") == "Key 1 is revoked.\n"
    assert "revoked 20" in run("key", "list", "--tenant", "acme")
    for arguments, said in (
        (("Stock", "--scope", "devices:*"), "devices:\\* is not a scope"),
        (("\x1b[2J", "--scope", "devices:read"), "control character"),
        (("Stock", "--scope", "devices:read", "--tenant", "nosuch"), "there is no tenant nosuch"),
    ):
        with pytest.raises(CommandFailed, match=said):
            run("key", "create", *arguments)
    conn_sync("insert into tenants (tenant_id, name) values ('system', 'Pulse') on conflict do nothing")
    with pytest.raises(CommandFailed, match="system is Pulse's own tenant"):
        run("key", "create", "Stock", "--scope", "devices:read", "--tenant", "system")


@pytest.mark.parametrize(
    "command",
    [
        ("key", "list"),
        ("key", "revoke", "1"),
        ("token", "revoke", "--subject", "mallory", "--reason", "Laptop stolen"),
        ("token", "revocations"),
        ("token", "restore", "1"),
    ],
)
def test_a_tenant_that_does_not_exist_is_named(url: str, command: tuple[str, ...]) -> None:
    with pytest.raises(CommandFailed, match="there is no tenant nosuch"):
        run(*command, "--tenant", "nosuch")


def test_tokens_are_revoked_listed_and_restored(url: str, conn_sync: Any) -> None:
    conn_sync("insert into tenants (tenant_id, name) values ('acme', 'Acme'), ('other', 'Other')")
    acme = ("--tenant", "acme", "--reason", "Laptop stolen")
    with pytest.raises(CommandFailed, match="no tokens are named"):
        run("token", "revoke", *acme)
    assert run("token", "revoke", "--subject", "mallory", "--logout", *acme).startswith("Revocation 1 is in force")
    run("token", "revoke", "--jti", "j\x1b1", "--issued-before", "2026-01-05T12:00:00Z", *acme)
    listed = run("token", "revocations", "--tenant", "acme").splitlines()
    assert "subject=mallory issued_before=20" in listed[0]
    assert "token_id=j\\x1b1 issued_before=2026-01-05 12:00:00+00:00" in listed[1]
    assert run("token", "revocations", "--tenant", "other") == ""
    run("token", "revoke", "--jti", "j" * 300, "--session", "s" * 300, *acme)
    assert "session=sha256:" in (long := run("token", "revocations", "--tenant", "acme").splitlines()[2])
    assert f"token_id=sha256:{hashlib.sha256(b'j' * 300).hexdigest()}" in long
    run("token", "restore", "1", "--tenant", "acme")
    with pytest.raises(CommandFailed, match="no revocation 1"):
        run("token", "restore", "1", "--tenant", "acme")
    rows = conn_sync(
        "select event_type, actor_id from audit_log where category = 'config' order by timestamp, event_id"
    )
    assert [tuple(row) for row in rows] == [
        *[("config.revocation_created", operator())] * 3,
        ("config.revocation_deleted", operator()),
    ]


@pytest.fixture
def conn_sync(database_url: str) -> Any:
    """Run a statement as the superuser, from a test without a loop, which the commands need for themselves."""

    async def fetch(query: str) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(database_url)
        try:
            return await connection.fetch(query)  # type: ignore[no-any-return]
        finally:
            await connection.close()

    return lambda query: asyncio.run(fetch(query))
