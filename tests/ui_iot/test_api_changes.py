"""Preconditions and idempotency keys: concurrent callers, several processes, expiry and secrets."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from services.shared.db import Pool
from services.ui_iot.http.problems import BadRequest
from services.ui_iot.resources.entity_tags import Tags
from tests.support import seed
from tests.support.api_client import Api, open_api
from tests.support.plans import rows_read
from tests.support.problem import assert_problem
from tests.support.wait import until

RULE = {"name": "hot", "metric": "heat", "operator": ">", "threshold": 80}
HOOK = {"name": "h", "kind": "webhook", "config": {"url": "https://hooks.example.com/pulse"}}
KEYS = "select count(*) from ingest.idempotency_keys"


@pytest.fixture
async def api(app_url: str, conn: asyncpg.Connection) -> AsyncIterator[Api]:
    await seed.device(conn)
    async with open_api(app_url) as opened:
        yield opened


async def post(api: Api, path: str, body: Any = None, *, key: str = "k", **rest: Any) -> httpx.Response:
    """Return a POST with an idempotency key."""
    content = {} if body is None else {"json": body}
    response: httpx.Response = await api.call("POST", path, headers={"Idempotency-Key": key}, **content, **rest)
    return response


async def wait_for_a_lock(conn: asyncpg.Connection, count: int = 1) -> None:
    """Wait until so many sessions wait for a lock."""

    async def waits() -> bool:
        query = "select count(distinct pid) from pg_locks where not granted"
        return bool(await conn.fetchval(query) >= count)

    await until(waits)


async def test_of_two_changes_of_one_state_one_is_made(
    api: Api, app_url: str, conn: asyncpg.Connection, database_url: str
) -> None:
    """Both name the same ETag and wait for the same row. A comparison before the lock would let both through."""
    rule = await api.make("/api/v1/rules", RULE)
    path = f"/api/v1/rules/{rule['rule_id']}"
    tag = (await api.call("GET", path)).headers["etag"]
    other = await asyncpg.connect(database_url)
    async with open_api(app_url) as second:
        async with other.transaction():
            await other.execute("select from alert_rules for update")
            changes = [
                asyncio.create_task(one.call("PATCH", path, json={"threshold": number}, headers={"If-Match": tag}))
                for number, one in ((81, api), (82, second))
            ]
            await wait_for_a_lock(conn, 2)
        answers = await asyncio.gather(*changes)
    await other.close()
    assert sorted(answer.status_code for answer in answers) == [200, 412]
    made = next(answer for answer in answers if answer.status_code == 200)
    assert (await api.call("GET", path)).json()["threshold"] == made.json()["threshold"]
    assert await conn.fetchval("select count(*) from audit_log where event_type = 'config.rule_updated'") == 1


async def test_a_change_between_get_and_change_is_412_and_a_report_is_not(api: Api, conn: asyncpg.Connection) -> None:
    """A device report does not change the ETag, although the next GET shows it."""
    path = "/api/v1/devices/boiler-1"
    tag = (await api.call("GET", path)).headers["etag"]
    reading = {"device_id": "boiler-1", "metric": "heat", "value": 1}
    assert (await api.call("POST", "/ingest/v1/readings", json=reading)).status_code == 202
    shown = await api.call("GET", path, headers={"If-None-Match": tag})
    assert (shown.status_code, shown.json()["last_seen_at"] is None) == (200, False)
    assert shown.headers["etag"] != tag
    renamed = await api.call("PATCH", path, json={"name": "a"}, headers={"If-Match": tag})
    assert renamed.status_code == 200
    await api.call("PATCH", path, json={"name": "b"})
    for method, place, body in (
        ("PATCH", path, {"name": "c"}),
        ("POST", f"{path}/token", None),
        ("DELETE", path, None),
    ):
        current = renamed.headers["etag"]
        response = await api.call(method, place, json=body, headers={"If-Match": current})
        assert_problem(response, 412)
    assert await conn.fetchval("select (name, token_hash is null)::text from devices") == "(b,t)"
    assert (await api.call("DELETE", path, headers={"If-Match": "*"})).status_code == 204
    assert_problem(await api.call("DELETE", path, headers={"If-Match": "*"}), 404)


async def test_hidden_changes_within_one_tick_have_different_tags(api: Api, conn: asyncpg.Connection) -> None:
    """The clock is set back, so that only the database keeps the times distinct."""
    channel = await api.make("/api/v1/channels", HOOK)
    await conn.execute("update notification_channels set updated_at = 'tomorrow'")
    await conn.execute("update devices set updated_at = 'tomorrow', token_hash = sha256('x')")
    tags = set()
    for number in range(3):
        secret = "whsec_" + str(number) * 32
        path = f"/api/v1/channels/{channel['channel_id']}"
        tags.add((await api.call("PATCH", path, json={"config": {"secret": secret}})).headers["etag"])
        tags.add((await api.call("POST", "/api/v1/devices/boiler-1/token")).headers["etag"])
    assert len(tags) == 6


async def test_an_alert_is_acknowledged_as_it_was_seen(api: Api, conn: asyncpg.Connection) -> None:
    alert_id = await conn.fetchval(
        "insert into alerts (tenant_id, fingerprint, rule_name, device_id, severity, message, opened_at)"
        " values ('acme', 'f', 'r', 'boiler-1', 'info', 'm', now()) returning alert_id"
    )
    path = f"/api/v1/alerts/{alert_id}"
    tag = (await api.call("GET", path)).headers["etag"]
    taken = await api.call("POST", f"{path}/acknowledge", headers={"If-Match": tag})
    assert taken.status_code == 200
    assert_problem(await api.call("POST", f"{path}/close", json={"reason": "x"}, headers={"If-Match": tag}), 412)
    closed = await api.call("POST", f"{path}/close", json={"reason": "x"}, headers={"If-Match": taken.headers["etag"]})
    assert (closed.status_code, closed.json()["status"]) == (200, "closed")


async def test_a_repeated_request_is_answered_alike_in_whatever_process(
    api: Api, app_url: str, conn: asyncpg.Connection
) -> None:
    """The order of members and whitespace do not matter. Caller, tenant and address are part of the key."""
    await seed.tenant(conn, "other")
    first = await post(api, "/api/v1/rules", RULE)
    async with open_api(app_url) as second:
        again = await post(second, "/api/v1/rules", dict(reversed(RULE.items())), key='"k"')
    assert (again.status_code, again.content) == (201, first.content)
    assert (again.headers["location"], again.headers["etag"]) == (first.headers["location"], first.headers["etag"])
    assert await conn.fetchval("select count(*) from alert_rules") == 1
    problem = assert_problem(await post(api, "/api/v1/rules", {**RULE, "threshold": 81}), 422)
    assert problem["detail"] == "this Idempotency-Key was used with another body"
    assert (await post(api, "/api/v1/rules", RULE, key="other")).status_code == 201
    assert (await post(api, "/api/v1/rules", RULE, tenant="other")).status_code == 201
    assert (await post(api, "/api/v1/devices", {"device_id": "d"})).status_code == 201
    assert await conn.fetchval("select count(*) from alert_rules") == 3
    # The answer is the one of the first request, without later changes.
    await conn.execute("update alert_rules set name = 'renamed'")
    assert (await post(api, "/api/v1/rules", RULE)).content == first.content


async def test_the_answer_is_stored_for_the_key_of_the_tenant(conn: asyncpg.Connection) -> None:
    """Another tenant's key with the same digest, claimed in the same transaction, has no answer from it."""
    for tenant_id in ("acme", "other"):
        await seed.tenant(conn, tenant_id)
    transaction = conn.transaction()
    await transaction.start()
    for tenant_id in ("other", "acme"):
        await conn.execute("select set_config('pulse.tenant_id', $1, true)", tenant_id)
        assert await conn.fetch("select * from ingest.claim_idempotency_key($1, $2)", b"k" * 32, b"f" * 32) == []
    await conn.execute("select ingest.keep_answer($1, '{}', null)", b"k" * 32)
    rows = await conn.fetch("select tenant_id from ingest.idempotency_keys where answer is not null")
    assert [row["tenant_id"] for row in rows] == ["acme"]
    await transaction.rollback()


async def test_of_two_at_once_the_second_waits_and_gets_the_answer_of_the_first(
    api: Api, app_url: str, conn: asyncpg.Connection, database_url: str
) -> None:
    other = await asyncpg.connect(database_url)
    async with open_api(app_url) as second:
        async with other.transaction():
            await other.execute("lock table alert_rules in exclusive mode")
            tasks = [asyncio.create_task(post(one, "/api/v1/rules", RULE)) for one in (api, second, api, second)]
            await wait_for_a_lock(conn, 4)
        answers = await asyncio.gather(*tasks)
    await other.close()
    assert {(answer.status_code, answer.content) for answer in answers} == {(201, answers[0].content)}
    assert await conn.fetchval("select count(*) from alert_rules") == 1
    assert await conn.fetchval("select count(*) from audit_log where event_type = 'config.rule_created'") == 1


async def test_a_request_that_failed_has_used_no_key(api: Api, conn: asyncpg.Connection) -> None:
    route = {"name": "r", "channel_id": 7}
    assert_problem(await post(api, "/api/v1/routes", route), 422)
    assert_problem(await post(api, "/api/v1/routes", {**route, "surprise": 1}), 422)
    assert_problem(await post(api, "/api/v1/devices", {"device_id": "boiler-1"}), 409)
    assert await conn.fetchval(KEYS) == 0
    channel_id = await seed.channel(conn)
    assert (await post(api, "/api/v1/routes", {**route, "channel_id": channel_id})).status_code == 201


async def test_a_waiting_request_goes_on_when_the_first_one_fails(
    api: Api, app_url: str, conn: asyncpg.Connection, database_url: str
) -> None:
    """The first request holds the key until its session is terminated."""
    other = await asyncpg.connect(database_url)
    async with open_api(app_url) as second:
        async with other.transaction():
            await other.execute("lock table alert_rules in exclusive mode")
            first = asyncio.create_task(post(api, "/api/v1/rules", RULE))
            await wait_for_a_lock(conn, 1)
            holder = await conn.fetchval("select pid from pg_locks where not granted")
            waiting = asyncio.create_task(post(second, "/api/v1/rules", RULE))
            await wait_for_a_lock(conn, 2)
            await conn.execute("select pg_cancel_backend($1)", holder)
            assert_problem(await first, 503)
        assert (await waiting).status_code == 201
    await other.close()
    assert await conn.fetchval("select count(*) from alert_rules") == 1


async def test_a_secret_is_shown_again_only_to_the_key_and_stands_nowhere(api: Api, conn: asyncpg.Connection) -> None:
    device = await post(api, "/api/v1/devices", {"device_id": "d"}, key="4e2f-1")
    hook = await post(api, "/api/v1/channels", HOOK, key="4e2f-2")
    rotated = await post(api, "/api/v1/devices/d/token", key="4e2f-3")
    secrets = [device.json()["token"], hook.json()["secret"], rotated.json()["token"]]
    again = [
        (await post(api, "/api/v1/devices", {"device_id": "d"}, key="4e2f-1")).json()["token"],
        (await post(api, "/api/v1/channels", HOOK, key="4e2f-2")).json()["secret"],
        (await post(api, "/api/v1/devices/d/token", key="4e2f-3")).json()["token"],
    ]
    assert again == secrets
    assert await conn.fetchval(KEYS) == 3
    kept = "".join(row[0] for row in await conn.fetch("select k::text from ingest.idempotency_keys k"))
    for secret in (*secrets, "4e2f-1"):
        assert secret not in kept
        assert secret.encode().hex() not in kept
    # The second answer repeats the first one's token, so it works.
    headers = {"Authorization": f"Bearer {rotated.json()['token']}"}
    assert (await api.client.post("/ingest/v1/readings", json=[], headers=headers)).status_code == 202


async def test_acts_are_repeated_without_a_second_act(api: Api, conn: asyncpg.Connection) -> None:
    """Without a key the second acknowledgement is 409."""
    alert_id = await conn.fetchval(
        "insert into alerts (tenant_id, fingerprint, rule_name, severity, message, opened_at)"
        " values ('acme', 'f', 'r', 'info', 'm', now()) returning alert_id"
    )
    path = f"/api/v1/alerts/{alert_id}"
    tag = (await api.call("GET", path)).headers["etag"]
    for _ in range(2):
        headers = {"Idempotency-Key": "k", "If-Match": tag}
        taken = await api.call("POST", f"{path}/acknowledge", headers=headers)
        assert (taken.status_code, taken.json()["status"]) == (200, "acknowledged")
    assert_problem(await api.call("POST", f"{path}/acknowledge"), 409)
    assert await conn.fetchval("select count(*) from alert_events where kind = 'acknowledged'") == 1


async def test_a_key_ends_after_a_day_and_goes(api: Api, conn: asyncpg.Connection, ops_pool: Pool) -> None:
    """An expired key is a new one, whether it was pruned or not."""
    await post(api, "/api/v1/rules", RULE)
    await conn.execute("update ingest.idempotency_keys set created_at = created_at - interval '23:59'")
    assert await ops_pool.fetch("select * from ops.prune(30, 30)") == []
    await post(api, "/api/v1/rules", RULE)
    assert await conn.fetchval("select count(*) from alert_rules") == 1
    await conn.execute("update ingest.idempotency_keys set created_at = created_at - interval '00:02'")
    assert (await post(api, "/api/v1/rules", {**RULE, "threshold": 5})).status_code == 201
    assert await conn.fetchval("select count(*) from alert_rules") == 2
    for number in range(5):
        await post(api, "/api/v1/rules", RULE, key=f"k{number}")
    await conn.execute("update ingest.idempotency_keys set created_at = created_at - interval '25 hours'")
    removed = [tuple(row) for row in await ops_pool.fetch("select * from ops.prune(30, 30, 4)")]
    assert removed == [("idempotency_keys", 4)]
    assert await conn.fetchval(KEYS) == 2


async def test_a_webhook_gets_a_secret_when_it_brings_none(api: Api, conn: asyncpg.Connection) -> None:
    made = await api.make("/api/v1/channels", HOOK)
    stored = "select config ->> 'secret' from notification_channels where channel_id = $1"
    assert made["secret"] == await conn.fetchval(stored, made["channel_id"])
    assert made["secret"].startswith("whsec_")
    path = f"/api/v1/channels/{made['channel_id']}"
    assert made["secret"] not in (await api.call("GET", path)).text
    renamed = await api.call("PATCH", path, json={"name": "renamed", "config": {"previous_secrets": []}})
    assert renamed.status_code == 200
    assert await conn.fetchval(stored, made["channel_id"]) == made["secret"]
    given = {**HOOK, "name": "g", "config": {**HOOK["config"], "secret": "whsec_" + "A" * 32}}  # type: ignore[dict-item]
    assert "secret" not in await api.make("/api/v1/channels", given)
    assert "secret" not in await api.make(
        "/api/v1/channels", {**given, "name": "s", "kind": "slack", "config": {"url": "https://a.example"}}
    )


async def test_pruning_reads_old_keys_only(conn: asyncpg.Connection) -> None:
    await seed.tenant(conn)
    await conn.execute(
        "insert into ingest.idempotency_keys (tenant_id, key_hash, fingerprint, created_at)"
        " select 'acme', sha256(n::text::bytea), sha256('x'), now() - (n < 4)::int * interval '2 days'"
        " from generate_series(1, 5000) n"
    )
    await conn.execute("analyze ingest.idempotency_keys")
    old = "select ctid from ingest.idempotency_keys where created_at < now() - interval '1 day'"
    read = await rows_read(conn, f"{old} order by created_at limit 9")
    assert read["idempotency_keys"] <= 3


def tags_of(*values: str) -> Tags | None:
    """Return if-Match with these lines."""
    headers = [(b"if-match", value.encode("latin-1")) for value in values]
    return Tags.read(Request({"type": "http", "headers": headers}), "If-Match")


TAG = st.from_regex(r'\A(W/)?"[!#-~\x80-\xff]{0,8}"\Z')
GAP = st.sampled_from([",", ", ", " ,\t", ",,", " , , "])


@given(st.lists(st.tuples(TAG, GAP), min_size=1, max_size=6), st.integers(0, 6))
def test_a_list_of_tags_is_read_whole_however_it_is_cut(parts: list[tuple[str, str]], cut: int) -> None:
    """Empty members are ignored, and several lines form one list."""
    lines = ["".join(tag + gap for tag, gap in some) for some in (parts[:cut], parts[cut:]) if some]
    read = tags_of(*lines)
    assert read is not None
    assert {f'"{tag}"' for tag in read.strong} | {f'W/"{tag}"' for tag in read.weak} == {tag for tag, _ in parts}


@given(st.text(st.characters(max_codepoint=255), max_size=20))
def test_no_header_breaks_the_reading_of_tags(value: str) -> None:
    with contextlib.suppress(BadRequest):
        assert tags_of(value) is not None
