"""`pulse tenant`: creates tenants, lists them and sets their limits."""

from typing import Annotated

import typer

from services.cli import database
from services.cli.app import new_app
from services.cli.errors import CommandFailed
from services.cli.home import PROGRAM, Home
from services.cli.signing_key import signs_tokens
from services.cli.state_file import is_running
from services.shared import db
from services.shared.tenant_id import is_tenant_id
from services.shared.visible_text import terminal_text, visible_name

app = new_app("Create tenants, list them and set their limits.")
_LONGEST_LIMIT = 12


@app.command()
def create(
    tenant_id: Annotated[str, typer.Argument(metavar="ID", help="Lower-case letters, digits and dashes.")],
    *,
    name: Annotated[str | None, typer.Option(help="Display name, by default the id.")] = None,
) -> None:
    """Create a tenant."""
    if not is_tenant_id(tenant_id):
        raise CommandFailed(
            f"{tenant_id} is no tenant id: use up to 63 lower-case letters, digits and dashes, and no dash at the start"
        )
    try:
        title = visible_name(tenant_id if name is None else name.strip())
    except ValueError as error:
        raise CommandFailed(f"a tenant's name {error}") from None
    if not title:
        raise CommandFailed("a tenant's name must contain a visible character")
    if not database.in_database(lambda pool: create_tenant(pool, tenant_id, title)):
        raise CommandFailed(f"tenant {tenant_id} exists already")
    print(f"Tenant {tenant_id} is created. {_sign_in_hint(Home.find(), tenant_id)}")


@app.command("list")
def show() -> None:
    """List all tenants."""
    for tenant_id, name in database.in_database(list_tenants):
        print(terminal_text(f"{tenant_id:<20} {name}"))


@app.command()
def limits(tenant_id: Annotated[str, typer.Argument(metavar="ID", help="Tenant id.")]) -> None:
    """Show the limits of a tenant, their use and the number of refusals."""
    require_tenant(tenant_id)
    rows = database.in_database(lambda pool: pool.fetch("select * from ops.tenant_limits($1)", tenant_id))
    print(f"{'limit':<24} {'value':>13} {'used':>12} {'refused':>12}")
    for row in rows:
        value = "none" if row["value"] == 0 else str(row["value"])
        origin = "" if row["is_default"] else "  set for this tenant"
        print(f"{row['limit_name']:<24} {value:>13} {row['used']:>12} {row['refused']:>12}{origin}")


@app.command()
def limit(
    tenant_id: Annotated[str, typer.Argument(metavar="ID", help="Tenant id.")],
    name: Annotated[str, typer.Argument(metavar="LIMIT", help="Name of a limit, as `pulse tenant limits` shows it.")],
    value: Annotated[str, typer.Argument(metavar="VALUE", help="A number, 0 for no limit, or `default`.")],
) -> None:
    """Set a limit of a tenant. It takes effect at once."""
    if value != "default" and not (value.isascii() and value.isdigit() and len(value) <= _LONGEST_LIMIT):
        raise CommandFailed(f"{value} is no limit: use a number of up to {_LONGEST_LIMIT} digits, or default")
    number = None if value == "default" else int(value)
    if database.in_database(lambda pool: set_limit(pool, tenant_id, name, number)):
        print(f"The limit {name} of tenant {tenant_id} is now {value}.")
    else:
        print(f"The limit {name} of tenant {tenant_id} was {value} already.")


def require_tenant(tenant_id: str) -> None:
    """Raise CommandFailed if there is no such tenant."""
    if tenant_id not in {known_id for known_id, _ in database.in_database(list_tenants)}:
        raise CommandFailed(f"there is no tenant {tenant_id}: see {PROGRAM} tenant list")


async def set_limit(pool: db.Pool, tenant_id: str, name: str, value: int | None) -> bool:
    """Set a limit of a tenant, None for the default. Return False if that changes nothing."""
    query = "select ops.set_limit($1, $2, $3)"
    return bool(await database.call(pool, tenant_id, "pulse tenant limit", query, tenant_id, name, value))


async def create_tenant(pool: db.Pool, tenant_id: str, name: str) -> bool:
    """Create a tenant. Return False if the id is taken."""
    query = "select ingest.create_tenant($1, $2)"
    return bool(await database.call(pool, tenant_id, "pulse tenant create", query, tenant_id, name))


async def list_tenants(pool: db.Pool) -> list[tuple[str, str]]:
    """Return id and name of each tenant, by id."""
    rows = await pool.fetch("select tenant_id, name from ingest.tenants()")
    return [(row["tenant_id"], row["name"]) for row in rows]


def _sign_in_hint(home: Home, tenant_id: str) -> str:
    if signs_tokens(home) and (is_running(home) or database.given_url() is None):
        return f"{PROGRAM} token --tenant {tenant_id} --role admin prints a token for it."
    return f"Sign in with a token of your identity provider that has the claims tenant_id: {tenant_id} and role: admin."
