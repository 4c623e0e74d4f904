"""Revoked user tokens: selection, start, propagation between processes, and behavior without the database."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.shared.db import Pool
from services.ui_iot.auth.principal import Grant, Principal
from services.ui_iot.auth.revocations import (
    OLDEST_SECONDS,
    RENEW_SECONDS,
    Condition,
    Revocations,
    lasting_seconds,
    sort_conditions,
)
from services.ui_iot.backend import pool_of
from tests.support import seed
from tests.support.api_client import Api, token
from tests.support.problem import assert_problem
from tests.support.stepped_clock import SteppedClock
from tests.support.wait import until

REVOCATIONS = "/api/v1/revocations"
DEVICES = "/api/v1/devices"


async def status(api: Api, bearer: str) -> tuple[int, str | None]:
    """Status and reason of a request with the token."""
    response = await api.client.get(DEVICES, headers={"Authorization": f"Bearer {bearer}"})
    return response.status_code, response.json().get("reason")


async def revoke(api: Api, **conditions: Any) -> dict[str, Any]:
    return await api.make(REVOCATIONS, {"reason": "Laptop stolen", **conditions})


REFUSED = (401, "revoked")
OPEN = (200, None)


async def test_a_token_is_refused_by_each_of_its_marks_although_it_is_remembered(api: Api) -> None:
    now = int(time.time())
    mine = token(sub="alice", sid="s1", jti="j1", iat=now - 30)
    marks: list[tuple[dict[str, Any], str]] = [
        ({"subject": "alice"}, token(sub="bob", sid="s1", jti="j1", iat=now - 30)),
        ({"session": "s1"}, token(sub="alice", sid="s2", jti="j1", iat=now - 30)),
        ({"token_id": "j1"}, token(sub="alice", sid="s1", jti="j2", iat=now - 30)),
        ({"issued_before": moment(now - 29)}, token(sub="alice", sid="s1", jti="j1", iat=now - 29)),
        ({"subject": "alice", "issued_before": moment(now - 29)}, token(sub="bob", sid="s1", iat=now - 30)),
        ({"subject": "alice", "session": "s1"}, token(sub="bob", sid="s1", iat=now - 30)),
        ({"subject": "alice", "token_id": "j1"}, token(sub="alice", jti="j3", iat=now - 30)),
    ]
    for conditions, other in marks:
        assert (await status(api, mine), await status(api, other)) == (OPEN, OPEN), conditions
        # The revoking admin's own token is newer than every issued_before here.
        made = await revoke(api, **conditions)
        assert (await status(api, mine), await status(api, other)) == (REFUSED, OPEN), conditions
        assert (await api.call("DELETE", f"{REVOCATIONS}/{made['revocation_id']}")).status_code == 204
    assert await status(api, mine) == OPEN
    old_keycloak = token(sub="carol", session_state="s9")
    await revoke(api, session="s9")
    assert await status(api, old_keycloak) == REFUSED


@pytest.mark.parametrize(
    ("claim", "named"),
    [(7, "7"), (7.0, "7"), (2**62, str(2**62)), (7.5, "7.5"), ("j" * 256, "j" * 256), ("é" * 500, "é" * 500)],
)
@pytest.mark.parametrize("name", ["jti", "sid", "session_state"])
async def test_a_number_or_a_long_id_is_revoked_by_its_value(api: Api, name: str, claim: object, named: str) -> None:
    mine, other = token(**{name: claim}), token(**{name: "7 " if isinstance(claim, float | int) else f"{claim}j"})
    await revoke(api, **{"token_id" if name == "jti" else "session": named})
    assert (await status(api, mine), await status(api, other)) == (REFUSED, OPEN)


def moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


async def test_a_refusal_names_the_account_and_each_change_is_on_record(api: Api, conn: asyncpg.Connection) -> None:
    now = int(time.time())
    made = await revoke(api, subject="alice", issued_before=moment(now))
    assert await status(api, token(sub="alice", name="Alice", iat=now - 1)) == REFUSED
    row: Any = await conn.fetchrow(
        "select tenant_id, actor_type, actor_id from audit_log where details ->> 'reason' = 'revoked'"
    )
    assert tuple(row) == ("acme", "user", "alice")
    assert (await api.call("DELETE", f"{REVOCATIONS}/{made['revocation_id']}")).status_code == 204
    assert_problem(await api.call("DELETE", f"{REVOCATIONS}/{made['revocation_id']}"), 404)
    rows = await conn.fetch(
        "select event_type, actor_id from audit_log where category = 'config' order by timestamp, event_id"
    )
    assert [tuple(row) for row in rows] == [
        ("config.revocation_created", "admin@acme"),
        ("config.revocation_deleted", "admin@acme"),
    ]
    assert api.process.metrics.registry.get_sample_value("pulse_auth_failures_total", {"reason": "revoked"}) == 1


async def test_a_revocation_is_of_one_tenant(api: Api, conn: asyncpg.Connection) -> None:
    await seed.tenant(conn, "other")
    made = await revoke(api, subject="alice")
    await revoke(api, issued_before=moment(time.time() - 5))
    foreign = token(sub="alice", tenant_id="other", iat=int(time.time()) - 10)
    assert await status(api, foreign) == OPEN
    assert (await api.call("GET", REVOCATIONS, tenant="other")).json()["items"] == []
    assert_problem(await api.call("DELETE", f"{REVOCATIONS}/{made['revocation_id']}", tenant="other"), 404)
    assert await status(api, token(sub="alice")) == REFUSED


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"subject": None},
        {"subject": ""},
        {"subject": "a" * 256},
        {"subject": "a\x00"},
        {"subject": 7},
        {"jti": "j1"},
        {"issued_before": 1767614400},
        {"issued_before": "tomorrow"},
        {"issued_before": "2226-01-05T12:00:00Z"},
        {"issued_before": "99999-01-05T12:00:00Z"},
        {"subject": "alice", "expires_in_days": 0},
        {"subject": "alice", "expires_in_days": 3661},
        {"subject": "alice", "expires_in_days": 1e18},
        {"subject": "alice", "reason": ""},
        {"subject": "alice", "reason": "a\nb"},
        {"subject": "alice", "tenant_id": "other"},
    ],
)
async def test_a_wrong_revocation_is_refused(api: Api, body: dict[str, Any]) -> None:
    assert_problem(await api.call("POST", REVOCATIONS, json={"reason": "r", **body}), 422)
    assert (await api.call("GET", REVOCATIONS)).json()["items"] == []


async def test_a_revocation_ends_when_no_such_token_can_be_valid(api: Api, conn: asyncpg.Connection) -> None:
    cases: list[tuple[dict[str, Any], timedelta]] = [
        ({"token_id": "j1"}, timedelta(seconds=86_400 + 120)),
        ({"subject": "a", "issued_before": moment(time.time())}, timedelta(seconds=86_400 + 120)),
        ({"subject": "alice"}, timedelta(days=30)),
        ({"session": "s1", "expires_in_days": 3660}, timedelta(days=3660)),
    ]
    for conditions, lasts in cases:
        made = await revoke(api, **conditions)
        ends = datetime.fromisoformat(made["expires_at"]) - datetime.fromisoformat(made["created_at"])
        assert ends == lasts, conditions
    assert await status(api, token(sub="alice")) == REFUSED
    await conn.execute(
        "update revocations set created_at = created_at - interval '31 days', expires_at = now() - interval '1 second'"
        " where subject = 'alice'"
    )
    await api.backend.authenticator.revocations.renew()
    assert await status(api, token(sub="alice")) == OPEN
    assert len((await api.call("GET", REVOCATIONS)).json()["items"]) == 3
    removed = await conn.fetch("select what, removed from ops.prune(365, 30, 10)")
    assert [tuple(row) for row in removed] == [("revocations", 1)]
    assert await conn.fetchval("select count(*) from revocations") == 3


def test_the_default_end_follows_the_longest_token() -> None:
    assert lasting_seconds(days=None, ends_by_itself=True, max_token_seconds=300) == 420
    assert lasting_seconds(days=2, ends_by_itself=True, max_token_seconds=300) == 172_800


async def test_a_revocation_elsewhere_is_in_force_within_seconds(api: Api, conn: asyncpg.Connection) -> None:
    """Another process wrote the row. A request reloads the list without a notification."""
    clock = SteppedClock()
    revocations = Revocations(lambda: pool_of(api.process), clock=clock)
    users = api.backend.authenticator.users
    assert users is not None
    alice = await users.check(token(sub="alice"))
    assert isinstance(alice, Principal)
    assert await revocations.are_known()
    assert not revocations.cover(alice)
    await conn.execute(
        "insert into revocations (tenant_id, subject, reason, expires_at)"
        " values ('acme', 'alice', 'r', now() + interval '1 day')"
    )
    clock.now += RENEW_SECONDS
    assert await revocations.are_known()  # the list in memory is young enough; a read has begun

    async def is_covered() -> bool:
        return revocations.cover(alice)

    await until(is_covered)
    # A manual change keeps the number of rows and their ids.
    await conn.execute("update revocations set subject = 'bob'")
    clock.now += OLDEST_SECONDS
    assert await revocations.are_known()
    assert not revocations.cover(alice)
    await conn.execute("update revocations set subject = 'alice'")
    clock.now += OLDEST_SECONDS
    assert await revocations.are_known()
    assert revocations.cover(alice)
    await conn.execute("delete from revocations")
    clock.now += OLDEST_SECONDS
    assert await revocations.are_known()
    assert not revocations.cover(alice)
    assert RENEW_SECONDS < OLDEST_SECONDS < 5


async def test_a_list_that_the_caller_has_is_not_sent_again(conn: asyncpg.Connection) -> None:
    await seed.tenant(conn)
    read = "select ingest.read_revocations($1)"
    empty = orjson.loads(await conn.fetchval(read, None))
    assert empty["revocations"] == []
    assert await conn.fetchval(read, empty["version"]) is None
    await conn.execute(
        "insert into revocations (tenant_id, subject, reason, expires_at)"
        " values ('acme', 'alice', 'r', now() + interval '1 day')"
    )
    changed = orjson.loads(await conn.fetchval(read, empty["version"]))
    assert [one["subject"] for one in changed["revocations"]] == ["alice"]
    assert await conn.fetchval(read, changed["version"]) is None


async def test_the_database_refuses_a_revocation_from_the_future(conn: asyncpg.Connection) -> None:
    await seed.tenant(conn)
    body = '{"issued_before": "2226-01-05T12:00:00Z", "reason": "r", "expires_in_seconds": 60}'
    async with conn.transaction():
        await conn.execute("select set_config('pulse.tenant_id', 'acme', true)")
        with pytest.raises(asyncpg.PostgresError, match="must not lie in the future"):
            await conn.execute("select ingest.create_revocation($1::text::jsonb)", body)


async def test_an_old_list_is_not_used_while_the_database_is_away(api: Api, conn: asyncpg.Connection) -> None:
    """Fail closed, because newer revocations are unknown. Revoked tokens stay refused."""
    clock = SteppedClock()
    away = False

    def pool() -> Pool:
        if away:
            raise ConnectionError("away")
        return pool_of(api.process)

    revocations = Revocations(pool, clock=clock)
    object.__setattr__(api.backend.authenticator, "revocations", revocations)
    await revoke(api, subject="mallory")
    assert await status(api, token(sub="alice")) == OPEN
    away = True
    clock.now += OLDEST_SECONDS - 0.1
    assert (await status(api, token(sub="alice")), await status(api, token(sub="mallory"))) == (OPEN, REFUSED)
    clock.now += 0.2
    for _ in range(2):
        response = await api.client.get(DEVICES, headers={"Authorization": f"Bearer {token(sub='alice')}"})
        assert assert_problem(response, 503)["reason"] == "auth_unavailable"
        assert response.headers["retry-after"] == "2"
    assert await status(api, token(exp=int(time.time()) - 1, iat=int(time.time()) - 9)) == (401, "expired")
    away = False
    clock.now += 1
    assert (await status(api, token(sub="alice")), await status(api, token(sub="mallory"))) == (OPEN, REFUSED)


async def test_the_number_of_revocations_is_bounded(api: Api, conn: asyncpg.Connection) -> None:
    await conn.execute(
        "insert into revocations (tenant_id, token_id, reason, expires_at)"
        " select 'acme', n::text, 'r', now() + interval '1 day' from generate_series(1, 1000) n"
    )
    body = {"reason": "r", "subject": "alice"}
    assert "issued_before" in assert_problem(await api.call("POST", REVOCATIONS, json=body), 409)["detail"]
    await conn.execute("delete from revocations where token_id = '1'")
    at_once = await asyncio.gather(*(api.call("POST", REVOCATIONS, json=body) for _ in range(4)))
    assert sorted(each.status_code for each in at_once) == [201, 409, 409, 409]


names = st.sampled_from([None, "a", "b"])
texts = st.sampled_from(["a", "b", "c"])


@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {
                "tenant_id": st.sampled_from(["t", "u"]),
                "subject": names,
                "session": names,
                "token_id": names,
                "issued_before": st.sampled_from([None, 10, 20.5]),
            }
        ),
        max_size=6,
    ),
    subject=texts,
    grant=st.builds(
        Grant,
        issued_at=st.sampled_from([9, 10, 20, 20.5, 21]),
        token_id=st.one_of(st.none(), texts),
        sessions=st.lists(texts, max_size=2, unique=True).map(tuple),
    ),
)
def test_the_sorted_list_finds_what_a_search_finds(rows: list[dict[str, Any]], subject: str, grant: Grant) -> None:
    rows = [row for row in rows if any(row[name] for name in ("subject", "session", "token_id", "issued_before"))]
    expected = any(row["tenant_id"] == "t" and Condition.read(row).is_met(subject, grant) for row in rows)
    conditions = sort_conditions(rows).get("t")
    assert (conditions is not None and conditions.cover(subject, grant)) == expected


@pytest.mark.parametrize("member", ["subject", "session", "token_id"])
def test_a_token_issued_after_the_moment_is_not_revoked(member: str) -> None:
    """A user who signs in again after a revocation of all earlier tokens may work."""
    row = dict.fromkeys(("subject", "session", "token_id")) | {member: "x", "tenant_id": "t", "issued_before": 100.0}
    conditions = sort_conditions([row])["t"]
    covered = [conditions.cover("x", Grant(issued_at, token_id="x", sessions=("x",))) for issued_at in (99.0, 100.0)]
    assert covered == [True, False]
