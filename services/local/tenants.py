"""`pulse tenant`: makes tenants and lists them, in the running stack's database or that of PULSE_DATABASE_URL."""

import asyncio
import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import asyncpg
import typer

from services.local import database
from services.local.demo import TENANT_ID
from services.local.errors import LocalError
from services.local.home import Home
from services.local.keys import Role, SigningKey
from services.local.lock import holder
from services.local.roster import uses_own_keys
from services.local.state_file import NotRunningError, read_state
from services.shared import db, tracing
from services.ui_iot.claims import SYSTEM_TENANT
from services.ui_iot.naming import visible_name

app = typer.Typer(help="Make tenants and list them.", no_args_is_help=True)
_TENANT_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
_ACTOR = db.Actor(type="service", id="local_stack", name="pulse tenant create")
_Result = TypeVar("_Result")


@app.command()
def create(
    tenant_id: Annotated[str, typer.Argument(metavar="ID", help="Lower-case letters, digits and dashes.")],
    *,
    name: Annotated[str | None, typer.Option(help="Name for people; the id when left out.")] = None,
) -> None:
    """Make a tenant."""
    if not _TENANT_ID.fullmatch(tenant_id):
        raise LocalError(
            f"{tenant_id} is no tenant id: it takes up to 63 lower-case letters, digits and dashes, no dash first"
        )
    try:
        title = visible_name(tenant_id if name is None else name.strip())
    except ValueError as error:
        raise LocalError(f"a tenant's name {error}") from None
    if not title:
        raise LocalError("a tenant's name must contain a visible character")
    if not _in_database(lambda pool: create_tenant(pool, tenant_id, title)):
        raise LocalError(f"there is a tenant {tenant_id} already")
    print(f"Tenant {tenant_id} is there; {_way_in(Home.find(), tenant_id)}.")


@app.command("list")
def show() -> None:
    """Show all tenants."""
    for tenant_id, name in _in_database(list_tenants):
        print(f"{tenant_id:<20} {name}")


async def create_tenant(pool: db.Pool, tenant_id: str, name: str) -> bool:
    """Make a tenant in a trace of its own; False when there is one of this id."""
    with tracing.use_trace_id(None):
        async with db.act(pool, tenant_id=tenant_id, actor=_ACTOR, service="local_stack") as connection:
            return bool(await connection.fetchval("select ingest.create_tenant($1, $2)", tenant_id, name))


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
        known = [known_id for known_id, _ in _in_database(list_tenants)]
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


def _in_database(work: Callable[[db.Pool], Awaitable[_Result]]) -> _Result:
    async def run() -> _Result:
        async with database.open_database(database.ui_url(Home.find())) as pool:
            return await work(pool)

    try:
        return asyncio.run(run())
    except (asyncpg.InvalidSchemaNameError, asyncpg.UndefinedFunctionError) as error:
        raise LocalError("the database is older than this checkout: ./pulse migrate brings it up") from error
    except asyncpg.PostgresError as error:
        raise LocalError(f"the database refuses: {error}") from error
