"""Rules that hold for every route of the API, tried on each route of the OpenAPI document."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import asyncpg
import pytest
from fastapi.routing import iter_route_contexts

from services.ui_iot.app import create_api
from services.ui_iot.middleware.auth import OPEN_PATHS
from tests.support import seed
from tests.support.api_client import Api, open_api
from tests.support.bad_values import NOT_NUMBERS, NOT_TIMES
from tests.support.problem import assert_problem
from tests.support.wait import until

OTHER = '"0000000000000000.0000000000000000"'
MALFORMED = ("", ",", "abc", '"a', 'a"', '*, "a"', '"a" "b"', 'w/"a"', "'a'", '"a\tb"', '"a b"')
TRACE = "0af7651916cd43dd8448eb211c80319c"


@dataclass(frozen=True)
class Operation:
    """One method of one address, with the ids of things that exist in it."""

    method: str
    template: str
    path: str
    described: dict[str, Any]
    schemas: dict[str, Any]

    def parameters(self, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Name and schema of its parameters in the path, the query or the headers."""
        for parameter in self.described.get("parameters", ()):
            if parameter["in"] == place:
                yield parameter["name"], parameter["schema"]

    @property
    def headers(self) -> set[str]:
        """Headers it takes."""
        return {name for name, _ in self.parameters("header")}

    @property
    def bodies(self) -> list[Any]:
        """Its examples of a body."""
        content = self.described.get("requestBody", {}).get("content", {}).get("application/json")
        if content is None:
            return []
        if "examples" in content:
            return [example["value"] for example in content["examples"].values()]
        return [content["example"]] if "example" in content else self.resolve(content["schema"])["examples"][:1]

    def resolve(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Return the schema that a reference names."""
        return dict(self.schemas[schema["$ref"].rpartition("/")[2]]) if "$ref" in schema else schema

    @property
    def has_tag(self) -> bool:
        """True if its answer carries an ETag."""
        return any("ETag" in answer.get("headers", ()) for answer in self.described["responses"].values())


@pytest.fixture
async def api(app_url: str, conn: asyncpg.Connection) -> AsyncIterator[Api]:
    """With one of everything: channels 1 to 4, policy 1, rule 1, route 1, alert 1 and its dead delivery."""
    await seed.device(conn, "d1", tags=("attic",))
    for number in range(1, 5):
        await seed.channel(conn, f"channel {number}")
    await seed.rule(conn)
    await seed.route(conn, 1)
    await conn.execute("insert into escalation_policies (tenant_id, name) values ('acme', 'p')")
    await conn.execute(
        "with alert as (insert into alerts (tenant_id, fingerprint, rule_name, severity, message, opened_at)"
        " values ('acme', 'f', 'r', 'info', 'm', now()) returning *),"
        " event as (insert into alert_events (tenant_id, alert_id, kind, occurred_at, trace_id)"
        f" select tenant_id, alert_id, 'opened', now(), '{TRACE}' from alert returning *)"
        " insert into notification_jobs (tenant_id, event_id, alert_id, channel_id, kind, payload, state, finished_at)"
        " select tenant_id, event_id, alert_id, 1, 'opened', '{}', 'dead', now() from event"
    )
    await conn.execute(
        "insert into api_keys (tenant_id, name, role, scopes, key_hash, expires_at)"
        " values ('acme', 'k', 'viewer', '{devices:read}', sha256('k'), now() + interval '1 day')"
    )
    await conn.execute(
        "insert into revocations (tenant_id, subject, reason, expires_at)"
        " values ('acme', 'mallory', 'r', now() + interval '1 day')"
    )
    async with open_api(app_url) as opened:
        yield opened


@pytest.fixture
def operations(api: Api) -> list[Operation]:
    """Every operation; a new parameter of a path needs its line here."""
    ids = {
        "device_id": "d1",
        "rule_id": "1",
        "channel_id": "1",
        "route_id": "1",
        "policy_id": "1",
        "alert_id": "1",
        "job_id": "1",
        "key_id": "1",
        "revocation_id": "1",
        "trace_id": TRACE,
    }
    document = create_api(api.backend).openapi()
    return [
        Operation(method.upper(), template, template.format(**ids), described, document["components"]["schemas"])
        for template, path in document["paths"].items()
        for method, described in path.items()
    ]


def sample(schema: dict[str, Any]) -> str:
    """Return a value that the schema of a query parameter takes."""
    for choice in schema.get("anyOf", ()):
        if choice.get("type") != "null":
            return sample(choice)
    if schema.get("type") == "array":
        return sample(schema["items"])
    if "enum" in schema:
        return str(schema["enum"][0])
    known = {"date-time": "2026-01-05T12:00:00Z", "ipvanyaddress": "198.51.100.7", "ipv4": "198.51.100.7"}
    if schema.get("format") in known:
        return known[schema["format"]]
    if schema.get("type") in ("integer", "boolean"):
        return "1" if schema["type"] == "integer" else "true"
    return "x" if re.search(schema.get("pattern", ""), "x") else TRACE


def test_the_document_names_every_route(api: Api, operations: list[Operation]) -> None:
    """The other tests cover only the routes in the document."""
    declared = [
        getattr(route, "starlette_route", None) or route
        for route in iter_route_contexts(create_api(api.backend).routes)
    ]
    expected = {(method, route.path_format) for route in declared for method in route.methods or () if method != "HEAD"}
    unlisted = {path for _, path in expected if path in OPEN_PATHS and path != "/auth/refresh"}
    found = {(operation.method, operation.template) for operation in operations}
    assert found == {(method, path) for method, path in expected if path not in unlisted}


async def test_head_is_get_without_a_body(api: Api, operations: list[Operation]) -> None:
    for operation in operations:
        head = await api.call("HEAD", operation.path)
        if operation.method != "GET":
            continue
        assert (head.status_code, head.content) == (200, b""), operation.path
        if "text/event-stream" in operation.described["responses"]["200"]["content"]:
            assert head.headers["content-type"].startswith("text/event-stream")
            continue
        got = await api.call("GET", operation.path)
        assert (head.status_code, head.headers.keys()) == (got.status_code, got.headers.keys()), operation.path
        assert head.headers.get("etag") == got.headers.get("etag")
        assert head.headers["content-type"] == got.headers["content-type"]


async def test_only_numbers_are_ids(api: Api, operations: list[Operation]) -> None:
    asked = 0
    for operation in operations:
        for name, schema in operation.parameters("path"):
            for text in NOT_NUMBERS if schema.get("type") == "integer" else ():
                path = operation.template.replace(f"{{{name}}}", text)
                if text:
                    problem = assert_problem(await api.call(operation.method, path, json={}), 422)
                    assert f"/path/{name}" in {error["pointer"] for error in problem["errors"]}, path
                    asked += 1
    assert asked > 100


async def test_every_query_parameter_works_and_is_read_strictly(api: Api, operations: list[Operation]) -> None:
    asked = 0
    for operation in operations:
        endless = "text/event-stream" in str(
            operation.described["responses"][
                "200" if operation.method == "GET" else next(iter(operation.described["responses"]))
            ]
        )
        method = "HEAD" if endless else operation.method
        for name, schema in operation.parameters("query"):
            asked += 1
            if name not in ("cursor", "after"):
                response = await api.call(method, operation.path, params={name: sample(schema)})
                assert response.status_code == 200, (operation.path, name, sample(schema), response.text)
            wrong = NOT_NUMBERS if "'integer'" in str(schema) else NOT_TIMES if "'date-time'" in str(schema) else ()
            for text in wrong:
                refused = await api.call(operation.method, f"{operation.path}?{name}={text}")
                assert refused.status_code == 422, (operation.path, name, text)
        if operation.method == "GET" and dict(operation.parameters("query")):
            assert_problem(await api.call("GET", operation.path, params={"surprise": "1"}), 422)
    assert asked > 40


async def test_a_body_is_json_and_has_no_member_that_is_not_listed(api: Api, operations: list[Operation]) -> None:
    with_body = [operation for operation in operations if "requestBody" in operation.described]
    assert len(with_body) > 10
    for operation in with_body:
        assert {"400", "413", "415", "422"} <= operation.described["responses"].keys()
        for media in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x"):
            response = await api.call(operation.method, operation.path, content=b"a=1", headers={"Content-Type": media})
            assert_problem(response, 415)
        assert operation.bodies, operation.path
        for body in operation.bodies:
            problem = assert_problem(
                await api.call(operation.method, operation.path, json={**body, "surprise": 1}), 422
            )
            pointers = {error["pointer"].rpartition("/")[2] for error in problem.get("errors", ())}
            assert operation.template.startswith("/ingest") or "surprise" in pointers, problem


async def test_an_address_without_a_body_ignores_no_member(api: Api, operations: list[Operation]) -> None:
    without = [one for one in operations if one.method != "GET" and "requestBody" not in one.described]
    assert len(without) >= 8
    for operation in without:
        for content in (b'{"surprise": 1}', b"[]", b"1", b"{"):
            refused = await api.call(operation.method, operation.path, content=content)
            assert "no members" in assert_problem(refused, 422)["detail"]
        for content in (b" {} ", b"null"):
            taken = await api.call(operation.method, operation.path, content=content)
            assert taken.status_code != 422, operation.path


def test_the_document_says_that_members_are_closed(operations: list[Operation]) -> None:
    """This covers every object in a request body, at any depth."""

    def objects(schema: Any, operation: Operation) -> Iterator[dict[str, Any]]:
        if isinstance(schema, list):
            for part in schema:
                yield from objects(part, operation)
        elif isinstance(schema, dict):
            resolved = operation.resolve(schema)
            if resolved.get("type") == "object":
                yield resolved
            for name, part in resolved.items():
                if name not in ("examples", "example"):
                    yield from objects(part, operation)

    closed = 0
    for operation in operations:
        content = operation.described.get("requestBody", {}).get("content", {})
        assert content.keys() <= {"application/json"}
        for found in objects([media["schema"] for media in content.values()], operation):
            assert found.get("additionalProperties") is False, (operation.path, found.get("title"))
            closed += 1
    assert closed > 20


def test_every_change_takes_preconditions_and_every_post_a_key(operations: list[Operation]) -> None:
    """The test fails for a new route without them."""
    changed = {operation.template for operation in operations if operation.method in ("PATCH", "PUT", "DELETE")}
    for operation in operations:
        if not operation.template.startswith("/api/v1"):
            continue
        has_id = "{" in operation.template
        assert ("If-Match" in operation.headers) == (has_id and operation.method != "GET"), operation
        assert ("Idempotency-Key" in operation.headers) == (operation.method == "POST"), operation
        shows = operation.method in ("POST", "PATCH", "PUT")
        if shows or (operation.method == "GET" and operation.template in changed):
            assert operation.has_tag, operation
        assert ("If-None-Match" in operation.headers) == (operation.method == "GET" and operation.has_tag), operation


async def test_a_get_is_answered_by_its_entity_tag(api: Api, operations: list[Operation]) -> None:
    tagged = [operation for operation in operations if operation.method == "GET" and operation.has_tag]
    assert len(tagged) >= 7
    for operation in tagged:
        whole = await api.call("GET", operation.path)
        tag = whole.headers["etag"]
        assert re.fullmatch(r'"[0-9a-f]{16}\.[0-9a-f]{16}"', tag)
        for known in (tag, f"W/{tag}", "*", f"{OTHER}, {tag}", f',, "x" ,W/{tag},'):
            for method in ("GET", "HEAD"):
                same = await api.call(method, operation.path, headers={"If-None-Match": known})
                assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag), (known, same.text)
                assert "content-type" not in same.headers
        for other in (OTHER, f"W/{OTHER}", '""', tag.replace(".", "")):
            again = await api.call("GET", operation.path, headers={"If-None-Match": other})
            assert (again.status_code, again.headers["etag"], again.content) == (200, tag, whole.content)
        for name in ("If-None-Match", "If-Match"):
            for wrong in MALFORMED:
                assert_problem(await api.call("GET", operation.path, headers={name: wrong}), 400)
        assert_problem(await api.call("GET", operation.path, headers={"If-Match": OTHER}), 412)
        assert (await api.call("GET", operation.path, headers={"If-Match": tag})).status_code == 200


async def test_a_stale_entity_tag_changes_nothing(
    api: Api, conn: asyncpg.Connection, operations: list[Operation]
) -> None:
    paths = {operation.template: operation.path for operation in operations if operation.method == "GET"}
    guarded = [operation for operation in operations if "If-Match" in operation.headers]
    assert len(guarded) >= 15
    written = "select count(*) from audit_log where category not in ('auth', 'system')"
    before = await conn.fetchval(written)
    for operation in guarded:
        assert {"400", "412"} <= operation.described["responses"].keys()
        item = paths[operation.template if operation.template in paths else operation.template.rpartition("/")[0]]
        tag = (await api.call("GET", item)).headers["etag"]
        rest = {"json": operation.bodies[0]} if operation.bodies else {}
        for stale in (OTHER, f"W/{tag}", f'{OTHER}, "x"', '""', '"."'):
            refused = await api.call(operation.method, operation.path, headers={"If-Match": stale}, **rest)
            assert_problem(refused, 412)
        for wrong in MALFORMED:
            malformed = await api.call(operation.method, operation.path, headers={"If-Match": wrong}, **rest)
            assert_problem(malformed, 400)
        unwanted = await api.call(operation.method, operation.path, headers={"If-None-Match": tag}, **rest)
        assert_problem(unwanted, 412)
        assert (await api.call("GET", item)).headers["etag"] == tag, operation
    assert await conn.fetchval(written) == before


async def test_the_entity_tag_of_a_get_admits_one_change(api: Api, operations: list[Operation]) -> None:
    """The ETag in the response to a change is the one that a GET then returns."""
    changing = [operation for operation in operations if operation.method == "PATCH"]
    assert len(changing) >= 5
    for operation in changing:
        tag = (await api.call("GET", operation.path)).headers["etag"]
        body = operation.bodies[0]
        done = await api.call("PATCH", operation.path, headers={"If-Match": f'"x", {tag}'}, json=body)
        assert done.status_code == 200, done.text
        assert done.headers["etag"] != tag
        assert (await api.call("GET", operation.path)).headers["etag"] == done.headers["etag"]
        assert_problem(await api.call("PATCH", operation.path, headers={"If-Match": tag}, json=body), 412)
        again = await api.call("PATCH", operation.path, headers={"If-Match": "*"}, json=body)
        assert again.status_code == 200
        # A change that changes nothing keeps the tag.
        assert again.headers["etag"] == done.headers["etag"], operation.path


async def test_a_precondition_takes_the_locks_of_its_change_in_their_order(
    api: Api, conn: asyncpg.Connection, database_url: str, operations: list[Operation]
) -> None:
    """One of two changes that wait for the lanes has If-Match. With the row locked first they would deadlock."""
    guarded = [one for one in operations if "If-Match" in one.headers and one.method != "DELETE"]
    assert len(guarded) >= 7
    other = await asyncpg.connect(database_url)
    try:
        for operation in guarded:
            rest = {"json": operation.bodies[0]} if operation.bodies else {}
            async with other.transaction():
                await other.execute("select evaluator._lock_lanes('acme')")
                tasks = []
                for headers in ({}, {"If-Match": "*"}):
                    call = api.call(operation.method, operation.path, headers=headers, **rest)
                    tasks.append(asyncio.create_task(call))
                    await until(partial(_is_settled, conn, tasks))
            answers = await asyncio.gather(*tasks)
            # Acknowledging an alert twice is a conflict. A deadlock is 503.
            assert {answer.status_code for answer in answers} <= {200, 409, 412, 422}, (operation, answers)
    finally:
        await other.close()


async def _is_settled(conn: asyncpg.Connection, tasks: list[asyncio.Task[Any]]) -> bool:
    """Return whether each task has ended or waits for a lock."""
    waiting = await conn.fetchval("select count(distinct pid) from pg_locks where not granted")
    return bool(sum(task.done() for task in tasks) + waiting >= len(tasks))


async def test_a_creation_with_a_key_happens_once(api: Api, operations: list[Operation]) -> None:
    keyed = [operation for operation in operations if "Idempotency-Key" in operation.headers]
    creating = [operation for operation in keyed if "{" not in operation.template]
    assert len(creating) >= 5
    for operation in creating:
        for number, body in enumerate(operation.bodies):
            headers = {"Idempotency-Key": f"key-{number}"}
            first = await api.call("POST", operation.path, json=body, headers=headers)
            assert first.status_code == 201, first.text
            before = (await api.call("GET", operation.path)).json()
            again = await api.call("POST", operation.path, json=body, headers=headers)
            for name in ("location", "etag", "content-type"):
                assert again.headers[name] == first.headers[name]
            assert again.headers.get("cache-control") == first.headers.get("cache-control")
            assert (again.status_code, again.json()) == (201, first.json())
            assert (await api.call("GET", operation.path)).json() == before
            assert (await api.call("GET", first.headers["location"])).headers["etag"] == first.headers["etag"]
            other = await api.call("POST", operation.path, json={**body, "enabled": False}, headers=headers)
            assert_problem(other, 422)
            for wrong in ("", " ", "x" * 256, '"open', "a\tb", "é", '""', 'a"b'):
                value = wrong.encode("latin-1")
                refused = await api.call("POST", operation.path, json=body, headers={"Idempotency-Key": value})
                assert_problem(refused, 400)
