"""`pulse key`: creates, lists and revokes API keys of machines."""

from typing import Annotated, Any

import typer

from services.cli import database
from services.cli.errors import LocalError
from services.cli.tenant import require_tenant
from services.local.stack import signing_key as keys
from services.shared import db
from services.ui_iot.auth.api_keys import SCOPES, new_api_key
from services.ui_iot.resources.fields import visible_name

app = typer.Typer(help="Create, list and revoke API keys of machines.", no_args_is_help=True)
Tenant = Annotated[str, typer.Option("--tenant", help="Tenant of the key.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Name for people.")],
    *,
    tenant: Tenant = "demo",
    role: Annotated[keys.Role, typer.Option(help="Role of the requests made with the key.")] = "viewer",
    scope: Annotated[list[str], typer.Option(help="Part of the API, such as devices:read; repeatable.")],
    days: Annotated[int, typer.Option(min=1, max=366, help="Days until it ends.")] = 90,
) -> None:
    """Create a key and print it, this once."""
    unknown = [each for each in scope if each not in SCOPES]
    if unknown:
        raise LocalError(f"{unknown[0]} is no scope: it takes {', '.join(SCOPES)}")
    try:
        title = visible_name(name.strip())
    except ValueError as error:
        raise LocalError(f"a key's name {error}") from None
    if not 0 < len(title) <= 200:
        raise LocalError("a key's name has 1 to 200 characters")
    require_tenant(tenant)
    key, digest = new_api_key(tenant)
    body = {"name": title, "role": role, "scopes": scope, "expires_in_days": days, "key_hash": digest.hex()}
    database.in_database(
        lambda pool: database.call(pool, tenant, "pulse key create", "select ingest.create_api_key($1)", body)
    )
    print(key)


@app.command("list")
def show(*, tenant: Tenant = "demo") -> None:
    """List the keys of a tenant, also those that have ended."""

    async def read(pool: db.Pool) -> list[Any]:
        async with db.read_as(pool, tenant_id=tenant) as connection:
            found: list[Any] = await connection.fetch(
                "select key_id, name, role, scopes, expires_at, last_used_at, revoked_at"
                " from api.api_keys order by key_id"
            )
            return found

    require_tenant(tenant)
    for row in database.in_database(read):
        end = f"revoked {row['revoked_at']:%Y-%m-%d}" if row["revoked_at"] else f"until {row['expires_at']:%Y-%m-%d}"
        used = f"used {row['last_used_at']:%Y-%m-%d %H:%M}Z" if row["last_used_at"] else "never used"
        print(f"{row['key_id']:>6}  {row['name']}  {row['role']}  {','.join(row['scopes'])}  {end}  {used}")


@app.command()
def revoke(
    key_id: Annotated[int, typer.Argument(metavar="ID", min=1, help="Number of the key.")], *, tenant: Tenant = "demo"
) -> None:
    """Refuse a key from now on, on every process of the API within 5 seconds."""
    require_tenant(tenant)
    database.in_database(
        lambda pool: database.call(pool, tenant, "pulse key revoke", "select ingest.revoke_api_key($1)", key_id)
    )
    print(f"Key {key_id} is revoked.")
