"""`pulse tenant`: makes tenants and lists them, in the running stack's database or that of PULSE_DATABASE_URL."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import asyncpg
import typer

from services.local import database
from services.local.errors import LocalError
from services.local.home import Home
from services.shared import db, tracing
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
    print(f"Tenant {tenant_id} is there; ./pulse token --tenant {tenant_id} --role admin signs in to it.")


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


def _in_database(work: Callable[[db.Pool], Awaitable[_Result]]) -> _Result:
    async def run() -> _Result:
        async with database.open_database(database.app_url(Home.find())) as pool:
            return await work(pool)

    try:
        return asyncio.run(run())
    except (asyncpg.InvalidSchemaNameError, asyncpg.UndefinedFunctionError) as error:
        raise LocalError("the database is older than this checkout: ./pulse migrate brings it up") from error
    except asyncpg.PostgresError as error:
        raise LocalError(f"the database refuses: {error}") from error
