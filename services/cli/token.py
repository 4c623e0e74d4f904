"""`pulse token`: prints a token for the local stack, and revokes user tokens of a tenant."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
import typer

from services.cli import database
from services.cli import signing_key as keys
from services.cli.app import new_app
from services.cli.errors import CommandFailed
from services.cli.home import PROGRAM, Home
from services.cli.state_file import NotRunningError
from services.cli.tenant import list_tenants, require_tenant
from services.shared.oidc_settings import OidcSettings
from services.shared.tenant_id import SYSTEM_TENANT
from services.shared.visible_text import visible_name
from services.ui_iot.auth.principal import token_mark
from services.ui_iot.auth.revocations import lasting_seconds

app = new_app("Print a bearer token for the local stack, or revoke user tokens.")
Tenant = Annotated[str, typer.Option("--tenant", help="Tenant of the tokens.")]


@app.callback(invoke_without_command=True, no_args_is_help=False)
def token(
    context: typer.Context,
    *,
    tenant: Annotated[str, typer.Option(help="Tenant of the user.")] = "demo",
    role: Annotated[keys.Role, typer.Option(help="Role of the user.")] = "viewer",
    expired: Annotated[bool, typer.Option("--expired", help="Print a token that expired an hour ago.")] = False,
    device: Annotated[str | None, typer.Option(help="Print the token of this device of the demo instead.")] = None,
) -> None:
    """Print a bearer token for the local stack, or revoke user tokens."""
    if context.invoked_subcommand is not None:
        return
    home = Home.find()
    if device is not None:
        print(device_token(home, device))
    else:
        print(make_token(home, tenant_id=tenant, role=role, expired=expired))


@app.command()
def revoke(
    *,
    tenant: Tenant = "demo",
    subject: Annotated[str | None, typer.Option(help="Revoke tokens with this claim sub.")] = None,
    session: Annotated[str | None, typer.Option(help="Revoke tokens with this claim sid or session_state.")] = None,
    token_id: Annotated[str | None, typer.Option("--jti", help="Revoke the token with this claim jti.")] = None,
    issued_before: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%dT%H:%M:%SZ"], metavar="TIME", help="Revoke tokens issued before 2026-01-31T12:00:00Z."
        ),
    ] = None,
    logout: Annotated[
        bool, typer.Option("--logout", help="Revoke tokens issued before now. New tokens are accepted.")
    ] = False,
    days: Annotated[int | None, typer.Option(min=1, max=3660, help="Days for which the tokens are refused.")] = None,
    reason: Annotated[str, typer.Option(help="Reason, for the audit trail.")],
) -> None:
    """Refuse user tokens within 5 seconds.

    A token is refused in every API process if it meets all given conditions.
    """
    require_tenant(tenant)
    before = datetime.now(UTC) if logout else issued_before.replace(tzinfo=UTC) if issued_before else None
    conditions = {"subject": subject, "session": token_mark(session), "token_id": token_mark(token_id)}
    if before is None and not any(conditions.values()):
        raise CommandFailed(
            "no tokens are named: give --subject, --session, --jti, --issued-before, --logout or several of these"
        )
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
    require_tenant(tenant)
    query = (
        "select revocation_id, subject, session, token_id, issued_before, expires_at, reason"
        " from api.revocations order by revocation_id"
    )
    for row in database.in_database(lambda pool: database.rows_of(pool, tenant, query)):
        names = ("subject", "session", "token_id", "issued_before")
        # Claims of a token may contain any character.
        conditions = ascii(" ".join(f"{name}={row[name]}" for name in names if row[name] is not None))[1:-1]
        print(f"{row['revocation_id']:>6}  {conditions}  until {row['expires_at']:%Y-%m-%d %H:%M}Z  {row['reason']}")


@app.command()
def restore(
    revocation_id: Annotated[
        int,
        typer.Argument(metavar="ID", min=1, help="Number of the revocation, as `pulse token revocations` shows it."),
    ],
    *,
    tenant: Tenant = "demo",
) -> None:
    """Lift a revocation. Its tokens are accepted again until they expire."""
    require_tenant(tenant)
    query = "select ingest.delete_revocation($1)"
    database.in_database(lambda pool: database.call(pool, tenant, "pulse token restore", query, revocation_id))
    print(f"Revocation {revocation_id} is lifted.")


def _visible(reason: str) -> str:
    try:
        return visible_name(reason.strip()[:200])
    except ValueError as error:
        raise CommandFailed(f"the reason {error}") from None


def make_token(home: Home, *, tenant_id: str, role: keys.Role, expired: bool) -> str:
    """Return a user's token. Raises CommandFailed if the services would refuse it or the tenant does not exist."""
    if not keys.signs_tokens(home):
        raise CommandFailed(f"the services accept tokens of your identity provider only, not those of {PROGRAM} token")
    if tenant_id == SYSTEM_TENANT:
        raise CommandFailed(
            f"the services refuse tokens for {SYSTEM_TENANT}, Pulse's own tenant: read its rows with {PROGRAM} psql"
        )
    try:
        known = [known_id for known_id, _ in database.in_database(list_tenants)]
    except NotRunningError:
        # Without a database only the tenant of the demo is known to exist, once the stack runs.
        known = ["demo"]
    if tenant_id not in known:
        raise CommandFailed(
            f"there is no tenant {tenant_id}: see {PROGRAM} tenant list, or create it with {PROGRAM} tenant create"
        )
    return keys.SigningKey(home.keys).token(tenant_id=tenant_id, role=role, expired=expired)


def device_token(home: Home, device_id: str) -> str:
    """Return the token of a device of the demo. Raises CommandFailed when there is none."""
    try:
        return read_device_tokens(home)[device_id]
    except KeyError:
        raise CommandFailed(f"the demo has no device {device_id} with a token: {PROGRAM} up creates probe-1") from None


def read_device_tokens(home: Home) -> Mapping[str, str]:
    """Return the tokens of the demo's devices by device id, none before the first start of the demo."""
    try:
        tokens: Mapping[str, str] = orjson.loads(home.fleet.read_bytes())["tokens"]
    except (OSError, ValueError, KeyError):
        return {}
    return tokens
