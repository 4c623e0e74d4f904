"""`pulse key`: creates, lists and revokes API keys of machines."""

from typing import Annotated

import typer

from services.cli import database
from services.cli import signing_key as keys
from services.cli.app import new_app
from services.cli.errors import CommandFailed
from services.cli.tenant import require_tenant
from services.shared.visible_text import visible_name
from services.ui_iot.auth.api_keys import SCOPES, ApiKeys

app = new_app("Create, list and revoke API keys of machines.")
Tenant = Annotated[str, typer.Option("--tenant", help="Tenant of the key.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Display name.")],
    *,
    tenant: Tenant = "demo",
    role: Annotated[keys.Role, typer.Option(help="Role of the key.")] = "viewer",
    scope: Annotated[list[str], typer.Option(help=f"Permitted part of the API: {', '.join(SCOPES)}. Repeatable.")],
    days: Annotated[int, typer.Option(min=1, max=366, help="Days until the key expires.")] = 90,
) -> None:
    """Create a key and print it. It cannot be shown again."""
    unknown = [each for each in scope if each not in SCOPES]
    if unknown:
        raise CommandFailed(f"{unknown[0]} is not a scope: use {', '.join(SCOPES)}")
    try:
        title = visible_name(name.strip())
    except ValueError as error:
        raise CommandFailed(f"a key's name {error}") from None
    if not 0 < len(title) <= 200:
        raise CommandFailed("a key's name has 1 to 200 characters")
    require_tenant(tenant)
    key, digest = ApiKeys.make(tenant)
    body = {"name": title, "role": role, "scopes": scope, "expires_in_days": days, "key_hash": digest.hex()}
    database.in_database(
        lambda pool: database.call(pool, tenant, "pulse key create", "select ingest.create_api_key($1)", body)
    )
    print(key)


@app.command("list")
def show(*, tenant: Tenant = "demo") -> None:
    """List the keys of a tenant, including expired and revoked ones."""
    require_tenant(tenant)
    query = "select key_id, name, role, scopes, expires_at, last_used_at, revoked_at from api.api_keys order by key_id"
    for row in database.in_database(lambda pool: database.rows_of(pool, tenant, query)):
        end = f"revoked {row['revoked_at']:%Y-%m-%d}" if row["revoked_at"] else f"until {row['expires_at']:%Y-%m-%d}"
        used = f"used {row['last_used_at']:%Y-%m-%d %H:%M}Z" if row["last_used_at"] else "never used"
        print(f"{row['key_id']:>6}  {row['name']}  {row['role']}  {','.join(row['scopes'])}  {end}  {used}")


@app.command()
def revoke(
    key_id: Annotated[
        int, typer.Argument(metavar="ID", min=1, help="Number of the key, as `pulse key list` shows it.")
    ],
    *,
    tenant: Tenant = "demo",
) -> None:
    """Revoke a key, in every API process within 5 seconds."""
    require_tenant(tenant)
    database.in_database(
        lambda pool: database.call(pool, tenant, "pulse key revoke", "select ingest.revoke_api_key($1)", key_id)
    )
    print(f"Key {key_id} is revoked.")
