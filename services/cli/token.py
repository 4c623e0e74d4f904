"""`pulse token`: prints a token for the local stack, and revokes user tokens of a tenant."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from services.cli import database
from services.cli.errors import LocalError
from services.cli.home import Home
from services.cli.tenant import make_token, require_tenant
from services.local.demo import seed
from services.local.stack import signing_key as keys
from services.shared import db
from services.shared.oidc_settings import OidcSettings
from services.ui_iot.auth.principal import token_mark
from services.ui_iot.auth.revocations import lasting_seconds
from services.ui_iot.resources.fields import visible_name

app = typer.Typer(
    help="Print a bearer token for the local stack, or revoke user tokens.",
    invoke_without_command=True,
    no_args_is_help=False,
)
Tenant = Annotated[str, typer.Option("--tenant", help="Tenant of the tokens.")]


@app.callback()
def token(
    context: typer.Context,
    *,
    tenant: Annotated[str, typer.Option(help="Tenant the token is for.")] = "demo",
    role: Annotated[keys.Role, typer.Option(help="What its holder may do.")] = "viewer",
    expired: Annotated[bool, typer.Option("--expired", help="A token that ended an hour ago.")] = False,
    device: Annotated[str | None, typer.Option(help="The API token of this device of the demo instead.")] = None,
) -> None:
    """Print a bearer token for the local stack, or revoke user tokens."""
    if context.invoked_subcommand is not None:
        return
    home = Home.find()
    if device is not None:
        print(seed.device_token(home, device))
    else:
        print(make_token(home, tenant_id=tenant, role=role, expired=expired))


@app.command()
def revoke(
    *,
    tenant: Tenant = "demo",
    subject: Annotated[str | None, typer.Option(help="Claim sub of the tokens.")] = None,
    session: Annotated[str | None, typer.Option(help="Claim sid or session_state of the tokens.")] = None,
    token_id: Annotated[str | None, typer.Option("--jti", help="Claim jti of the token.")] = None,
    issued_before: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%dT%H:%M:%SZ"], help="Time in UTC before which the tokens were issued."),
    ] = None,
    logout: Annotated[bool, typer.Option("--logout", help="Tokens issued before now: new ones are accepted.")] = False,
    days: Annotated[int | None, typer.Option(min=1, max=3660, help="How long they are refused.")] = None,
    reason: Annotated[str, typer.Option(help="Why; it stands in the audit trail.")],
) -> None:
    """Refuse the user tokens that meet every named condition, on every process of the API within 5 seconds."""
    require_tenant(tenant)
    before = datetime.now(UTC) if logout else issued_before.replace(tzinfo=UTC) if issued_before else None
    conditions = {"subject": subject, "session": token_mark(session), "token_id": token_mark(token_id)}
    if before is None and not any(conditions.values()):
        raise LocalError("name the tokens: --subject, --session, --jti, --issued-before, --logout or several of these")
    body: dict[str, Any] = {
        **conditions,
        "issued_before": before.isoformat() if before else None,
        "reason": _visible(reason),
        "expires_in_seconds": lasting_seconds(
            days=days,
            ends_by_itself=token_id is not None or before is not None,
            max_token_seconds=OidcSettings().max_token_seconds,
        ),
    }
    query = "select ingest.create_revocation($1)"
    made = database.in_database(lambda pool: database.call(pool, tenant, "pulse token revoke", query, body))
    print(f"Revocation {made['revocation_id']} is in force until {made['expires_at']}.")


@app.command("revocations")
def show(*, tenant: Tenant = "demo") -> None:
    """List the revocations of a tenant that are in force."""

    async def read(pool: db.Pool) -> list[Any]:
        async with db.read_as(pool, tenant_id=tenant) as connection:
            found: list[Any] = await connection.fetch(
                "select revocation_id, subject, session, token_id, issued_before, expires_at, reason"
                " from api.revocations order by revocation_id"
            )
            return found

    require_tenant(tenant)
    for row in database.in_database(read):
        names = ("subject", "session", "token_id", "issued_before")
        # A claim of a token may hold any character.
        conditions = ascii(" ".join(f"{name}={row[name]}" for name in names if row[name] is not None))[1:-1]
        print(f"{row['revocation_id']:>6}  {conditions}  until {row['expires_at']:%Y-%m-%d %H:%M}Z  {row['reason']}")


@app.command()
def restore(
    revocation_id: Annotated[int, typer.Argument(metavar="ID", min=1, help="Number of the revocation.")],
    *,
    tenant: Tenant = "demo",
) -> None:
    """Lift a revocation: the tokens that it named are accepted again until they expire."""
    require_tenant(tenant)
    query = "select ingest.delete_revocation($1)"
    database.in_database(lambda pool: database.call(pool, tenant, "pulse token restore", query, revocation_id))
    print(f"Revocation {revocation_id} is lifted.")


def _visible(reason: str) -> str:
    try:
        return visible_name(reason.strip()[:200])
    except ValueError as error:
        raise LocalError(f"the reason {error}") from None
