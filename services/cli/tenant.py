"""`pulse tenant`: makes tenants, lists them, sets their limits; in the stack's database or PULSE_DATABASE_URL's."""

import os
from pathlib import Path
from typing import Annotated

import typer

from services.cli import database
from services.cli.errors import LocalError
from services.cli.home import Home
from services.cli.lock import holder
from services.cli.state_file import NotRunningError, read_state
from services.local.demo.factory import TENANT_ID
from services.local.stack.roster import uses_own_keys
from services.local.stack.signing_key import Role, SigningKey
from services.shared import db
from services.shared.tenant_id import SYSTEM_TENANT, is_tenant_id
from services.shared.visible_text import terminal_text
from services.ui_iot.resources.fields import visible_name

app = typer.Typer(help="Make tenants, list them and set their limits.", no_args_is_help=True)
_LONGEST_LIMIT = 12


@app.command()
def create(
    tenant_id: Annotated[str, typer.Argument(metavar="ID", help="Lower-case letters, digits and dashes.")],
    *,
    name: Annotated[str | None, typer.Option(help="Name for people; the id when left out.")] = None,
) -> None:
    """Make a tenant."""
    if not is_tenant_id(tenant_id):
        raise LocalError(
            f"{tenant_id} is no tenant id: it takes up to 63 lower-case letters, digits and dashes, no dash first"
        )
    try:
        title = visible_name(tenant_id if name is None else name.strip())
    except ValueError as error:
        raise LocalError(f"a tenant's name {error}") from None
    if not title:
        raise LocalError("a tenant's name must contain a visible character")
    if not database.in_database(lambda pool: create_tenant(pool, tenant_id, title)):
        raise LocalError(f"there is a tenant {tenant_id} already")
    print(f"Tenant {tenant_id} is there; {_way_in(Home.find(), tenant_id)}.")


@app.command("list")
def show() -> None:
    """Show all tenants."""
    for tenant_id, name in database.in_database(list_tenants):
        print(terminal_text(f"{tenant_id:<20} {name}"))


@app.command()
def limits(tenant_id: Annotated[str, typer.Argument(metavar="ID", help="Tenant.")]) -> None:
    """Show each limit of a tenant, its use, and the number of refusals."""
    require_tenant(tenant_id)
    rows = database.in_database(lambda pool: pool.fetch("select * from ops.tenant_limits($1)", tenant_id))
    print(f"{'limit':<24} {'value':>13} {'used':>12} {'refused':>12}")
    for row in rows:
        value = "none" if row["value"] == 0 else str(row["value"])
        origin = "" if row["is_default"] else "  set for this tenant"
        print(f"{row['limit_name']:<24} {value:>13} {row['used']:>12} {row['refused']:>12}{origin}")


@app.command()
def limit(
    tenant_id: Annotated[str, typer.Argument(metavar="ID", help="Tenant.")],
    name: Annotated[str, typer.Argument(metavar="LIMIT", help="A limit that `pulse tenant limits` shows.")],
    value: Annotated[str, typer.Argument(metavar="VALUE", help="Number, 0 for no limit, or `default`.")],
) -> None:
    """Give a tenant a limit of its own. It holds at once."""
    if value != "default" and not (value.isascii() and value.isdigit() and len(value) <= _LONGEST_LIMIT):
        raise LocalError(f"{value} is no limit: it takes a number of up to {_LONGEST_LIMIT} digits, or default")
    number = None if value == "default" else int(value)
    if database.in_database(lambda pool: set_limit(pool, tenant_id, name, number)):
        print(f"The limit {name} of tenant {tenant_id} is {value} now.")
    else:
        print(f"The limit {name} of tenant {tenant_id} was {value} already.")


def require_tenant(tenant_id: str) -> None:
    """Raise LocalError when there is no such tenant."""
    if tenant_id not in {known_id for known_id, _ in database.in_database(list_tenants)}:
        raise LocalError(f"there is no tenant {tenant_id}: ./pulse tenant list shows all")


async def set_limit(pool: db.Pool, tenant_id: str, name: str, value: int | None) -> bool:
    """Set a limit of a tenant, None for the default, in a trace of its own; False when that changes nothing."""
    query = "select ops.set_limit($1, $2, $3)"
    return bool(await database.call(pool, tenant_id, "pulse tenant limit", query, tenant_id, name, value))


async def create_tenant(pool: db.Pool, tenant_id: str, name: str) -> bool:
    """Make a tenant in a trace of its own; False when there is one of this id."""
    query = "select ingest.create_tenant($1, $2)"
    return bool(await database.call(pool, tenant_id, "pulse tenant create", query, tenant_id, name))


async def list_tenants(pool: db.Pool) -> list[tuple[str, str]]:
    """Id and name of every tenant, by id."""
    rows = await pool.fetch("select tenant_id, name from ingest.tenants()")
    return [(row["tenant_id"], row["name"]) for row in rows]


def make_token(home: Home, *, tenant_id: str, role: Role, expired: bool) -> str:
    """Return a user's token. Raises LocalError when the services would not accept it or there is no such tenant."""
    if not _signs_tokens(home):
        raise LocalError("tokens come from your identity provider: the services do not accept those of ./pulse token")
    if tenant_id == SYSTEM_TENANT:
        raise LocalError(
            f"the services refuse tokens for {SYSTEM_TENANT}, Pulse's own tenant: ./pulse psql shows its rows"
        )
    try:
        known = [known_id for known_id, _ in database.in_database(list_tenants)]
    except NotRunningError:
        # Nobody can look up a tenant now; the demo's is there when the stack is.
        known = [TENANT_ID]
    if tenant_id not in known:
        raise LocalError(
            f"there is no tenant {tenant_id}: ./pulse tenant list shows all, ./pulse tenant create makes one"
        )
    return SigningKey(home.keys).token(tenant_id=tenant_id, role=role, expired=expired)


def _signs_tokens(home: Home) -> bool:
    """Whether services take their keys from this stack: by default, or because PULSE_JWKS_FILE names its file."""
    named = os.environ.get("PULSE_JWKS_FILE")
    return uses_own_keys() or (named is not None and Path(named).resolve() == home.keys / "jwks.json")


def _way_in(home: Home, tenant_id: str) -> str:
    state = read_state(home)
    is_running = state is not None and state.pid == holder(home.lock)
    if _signs_tokens(home) and (is_running or database.given_url() is None):
        return f"./pulse token --tenant {tenant_id} --role admin signs in to it"
    return f"a token of your identity provider signs in to it with the claims tenant_id: {tenant_id} and role: admin"
