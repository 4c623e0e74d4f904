"""Addresses and secrets of channels: changes, output and encryption."""

import asyncio
import getpass
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from pydantic import ValidationError
from typer.testing import CliRunner

from services.cli.secret_keys import add_key, make_keys
from services.cli.secrets import app
from services.shared.db import Pool
from services.shared.secret_box import (
    KeyRing,
    NotOpened,
    UnknownKey,
    is_sealed,
    protection,
    public_file,
    read_public_key,
    seal_config,
    sealed_for,
    shown_url,
)
from services.shared.settings import DeliverySettings, UiSettings
from services.ui_iot.resources.channel_sealing import report_protection
from tests.support import seed
from tests.support.api_client import Api, open_api
from tests.support.delivery import job, states
from tests.support.delivery_process import Start
from tests.support.migrator import Migrator
from tests.support.receiver import Receiver
from tests.support.wait import until

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
NEWER = "whsec_OTg3NjU0MzIxMDk4NzY1NDMyMTA5ODc2"
ROUTING_KEY = "R0UT1NGKEYR0UT1NGKEYR0UT1NGKEY32"
PATHS = {
    "discord": "https://discord.com/api/webhooks/1122334455667788/aBcDeFgHiJkLmNoPqRsTuVwXyZ",
    "zapier": "https://hooks.zapier.com/hooks/catch/12345/a1b2c3/",
    "slack": "https://hooks.slack.com/services/T0001/B0001/xYzSecret",
    "query": "https://a.example/in?token=hush-hush&x=1",
}
CONFIGS: dict[str, dict[str, Any]] = {
    "webhook": {"url": PATHS["discord"], "secret": SECRET, "previous_secrets": [NEWER]},
    "slack": {"url": PATHS["slack"]},
    "teams": {"url": PATHS["query"]},
    "pagerduty": {"routing_key": ROUTING_KEY, "url": "https://relay.example/enqueue/s3cr3t"},
}


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """A key file with its public key."""
    file = tmp_path / "keys" / "channel.key"
    assert make_keys(file)
    return file


@pytest.fixture
async def sealing(app_url: str, conn: asyncpg.Connection, key_file: Path) -> AsyncIterator[Api]:
    """The API, with a key."""
    await seed.tenant(conn)
    async with open_api(app_url, secrets_key_file=key_file) as api:
        yield api


@pytest.fixture
async def plain(app_url: str, conn: asyncpg.Connection) -> AsyncIterator[Api]:
    """The API, without one."""
    await seed.tenant(conn)
    async with open_api(app_url) as api:
        yield api


@pytest.fixture(params=["plain", "sealed"])
def api(request: pytest.FixtureRequest) -> Api:
    """Both."""
    found: Api = request.getfixturevalue({"plain": "plain", "sealed": "sealing"}[request.param])
    return found


async def stored(conn: asyncpg.Connection, channel_id: int) -> dict[str, Any]:
    """Return a channel's configuration as it is in the table."""
    query = "select config from notification_channels where channel_id = $1"
    config: dict[str, Any] = orjson.loads(await conn.fetchval(query, channel_id))
    return config


async def make(api: Api, kind: str, config: dict[str, Any], name: str = "c") -> dict[str, Any]:
    """Return a channel through the API."""
    made: dict[str, Any] = await api.make("/api/v1/channels", {"name": name, "kind": kind, "config": config})
    return made


# A new address needs its secret


@pytest.mark.parametrize(
    ("kind", "change", "needed"),
    [
        ("webhook", {"url": "https://evil.example/x"}, "secret"),
        ("webhook", {"url": PATHS["discord"]}, "secret"),
        ("webhook", {"url": "https://evil.example/x", "previous_secrets": [NEWER]}, "secret"),
        ("pagerduty", {"url": "https://evil.example/x"}, "routing_key"),
    ],
)
async def test_a_new_address_needs_the_secret_anew(
    api: Api, conn: asyncpg.Connection, kind: str, change: dict[str, Any], needed: str
) -> None:
    """The response is 422 and names the missing member. The channel stays unchanged."""
    made = await make(api, kind, CONFIGS[kind])
    path = f"/api/v1/channels/{made['channel_id']}"
    before = await stored(conn, made["channel_id"])
    for body in ({"config": change}, {"config": change, "name": "n", "enabled": True}):
        refused = await api.call("PATCH", path, json=body)
        assert refused.status_code == 422
        assert refused.headers["content-type"] == "application/problem+json"
        assert f"needs config.{needed} in the same request" in refused.json()["detail"]
    assert await stored(conn, made["channel_id"]) == before


@pytest.mark.parametrize(
    ("kind", "member", "value"), [("webhook", "secret", SECRET), ("pagerduty", "routing_key", ROUTING_KEY)]
)
async def test_a_new_address_keeps_nothing_of_the_old_configuration(
    api: Api, conn: asyncpg.Connection, key_file: Path, kind: str, member: str, value: str
) -> None:
    """An old secret would sign requests to the new address."""
    made = await make(api, kind, CONFIGS[kind])
    path = f"/api/v1/channels/{made['channel_id']}"
    moved = await api.call("PATCH", path, json={"config": {"url": "https://new.example/y", member: value}})
    assert moved.status_code == 200
    config = await stored(conn, made["channel_id"])
    opened = KeyRing(key_file).open_config(config, tenant_id="acme", channel_id=made["channel_id"])
    assert opened == {"url": "https://new.example/y", member: value}


async def test_old_secrets_go_out_of_use(api: Api, conn: asyncpg.Connection, key_file: Path) -> None:
    """An empty list ends a rotation and is a valid initial value."""
    made = await make(api, "webhook", CONFIGS["webhook"])
    path = f"/api/v1/channels/{made['channel_id']}"
    assert (await api.call("PATCH", path, json={"config": {"previous_secrets": []}})).status_code == 200
    other = await make(api, "webhook", {**CONFIGS["webhook"], "previous_secrets": []}, "other")
    for channel_id in (made["channel_id"], other["channel_id"]):
        config = KeyRing(key_file).open_config(await stored(conn, channel_id), tenant_id="acme", channel_id=channel_id)
        assert config == {**CONFIGS["webhook"], "previous_secrets": []}


@pytest.mark.parametrize("kind", ["slack", "teams"])
async def test_an_address_that_is_the_secret_can_be_changed(api: Api, kind: str) -> None:
    """A request that contains the address replaces it."""
    made = await make(api, kind, CONFIGS[kind])
    path = f"/api/v1/channels/{made['channel_id']}"
    moved = await api.call("PATCH", path, json={"config": {"url": "https://new.example/y"}})
    assert moved.status_code == 200
    assert moved.json()["config"]["url"].startswith("https://new.example/… (")


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "slack", "config": {"url": "https://evil.example/x"}},
        {"kind": "slack"},
        {"channel_id": 7},
        {"tenant_id": "other"},
        {"shown_url": "https://a.example/… (00000000)"},
        {"config": {"proxy": "http://evil.example"}},
        {"config": {"headers": {"host": "evil.example"}}},
        {"config": {"url": None}},
        {"config": {"url": "https://evil.example/x", "secret": None}},
        {"config": {"url": "https://evil.example/x", "routing_key": ROUTING_KEY}},
        {"config": {"url": "https://evil.example/x", "secret": "sealed:1:0123456789abcdef:" + "A" * 100}},
        {"config": None},
    ],
    ids=str,
)
async def test_no_way_around_it(api: Api, conn: asyncpg.Connection, body: dict[str, Any]) -> None:
    """Attempts: other kinds, numbers, proxies, headers, null, another kind's secret, a foreign box."""
    made = await make(api, "webhook", CONFIGS["webhook"])
    before = await stored(conn, made["channel_id"])
    answer = await api.call("PATCH", f"/api/v1/channels/{made['channel_id']}", json=body)
    assert answer.status_code == 422, answer.text
    assert await stored(conn, made["channel_id"]) == before


@pytest.mark.parametrize("patch", ['{"config": {"url": null}}', '{"config": {"url": "https://evil.example"}}'])
async def test_the_database_holds_the_rule(conn: asyncpg.Connection, patch: str) -> None:
    """The rule holds for every caller. A null URL would send a PagerDuty key to another service."""
    config = json.dumps(CONFIGS["pagerduty"])
    channel = await seed.channel(conn, kind="pagerduty", config=config)
    async with conn.transaction():
        await conn.execute("select core.act('acme', 'user', 'ann', 'Ann', '', '', 'ui_iot')")
        with pytest.raises(asyncpg.PostgresError, match=r"needs config\.routing_key") as refused:
            async with conn.transaction():
                await conn.execute("select delivery.update_channel($1, $2::text::jsonb)", channel, patch)
    assert refused.value.sqlstate == "PU422"


# What is shown


@pytest.mark.parametrize("url", PATHS.values(), ids=PATHS)
async def test_paths_are_shown_to_no_one(
    api: Api, conn: asyncpg.Connection, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Answers, errors, lists, the trail, logs and views show scheme, host and a fingerprint only."""
    caplog.set_level("DEBUG")
    made = await make(api, "webhook", {"url": url, "secret": SECRET})
    path = f"/api/v1/channels/{made['channel_id']}"
    again = await make(api, "webhook", {"url": url, "secret": SECRET}, "again")
    other = await make(api, "webhook", {"url": url + "x", "secret": SECRET}, "other")
    shown = made["config"]["url"]
    assert re.fullmatch(r"https://[a-z.]+/… \([0-9a-f]{8}\)", shown)
    assert (again["config"]["url"], other["config"]["url"] == shown) == (shown, False)
    key = await conn.fetchval("select fingerprint_key from installation")
    assert shown == shown_url(url, key) == await conn.fetchval("select delivery._shown_url($1)", url)
    outputs = [
        (await api.call("GET", path)).text,
        (await api.call("GET", "/api/v1/channels")).text,
        (await api.call("PATCH", path, json={"config": {"url": url}})).text,
        (await api.call("PATCH", path, json={"config": {"url": url, "secret": "short"}})).text,
        (await api.call("PATCH", path, json={"config": {"url": url.replace("https", "ftp")}})).text,
        (await api.call("PATCH", path, json={"config": {"url": url, "secret": NEWER}})).text,
        (await api.call("DELETE", path)).text,
        (await api.call("GET", "/api/v1/audit/events")).text,
    ]
    outputs += [str(tuple(row)) for row in await conn.fetch("select l::text from audit_log l")]
    outputs.append(caplog.text)
    secret_part = url.split("/", 3)[3]
    pieces = [piece for piece in re.split(r"[/?#&=]", secret_part) if len(piece) > 4 and piece not in WORDS]
    assert pieces
    assert [piece for piece in [secret_part, *pieces] for text in outputs if piece in text] == []


WORDS = {"webhooks", "services", "hooks", "catch", "token"}


@pytest.mark.parametrize(
    "said",
    [
        "no hook {path}",
        "no hook {last}",
        "NO HOOK {upper}",
        '{{"path": "{escaped}"}}',
        "no hook {percent}",
        "no hook {entity}",
        "no hook {unicode}",
        "no hook {spaced}",
    ],
)
async def test_what_a_receiver_repeats_is_not_recorded(
    conn: asyncpg.Connection,
    start: Start,
    said: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No attempt, channel, event or log line contains the address, in any form that the receiver repeats."""
    token = "a1B2c3D4e5"
    forms = {
        "path": f"/hooks/12345/{token}",
        "last": token,
        "upper": token.upper(),
        "escaped": f"\\/hooks\\/12345\\/{token}",
        "percent": "%2Fhooks%2F12345%2F" + "".join(f"%{ord(character):02x}" for character in token),
        "entity": "".join(f"&#{ord(character)};" for character in token),
        "unicode": "".join(f"\\u{ord(character):04x}" for character in token),
        "spaced": "\x00".join(token),
    }
    async with Receiver() as receiver:
        receiver.default = (404, {}, said.format(**forms).encode())
        config = json.dumps({"url": f"{receiver.url}/hooks/12345/{token}", "secret": SECRET})
        await job(conn, await seed.channel(conn, config=config))
        worker = await start()
        assert await worker.claim() == 1
        await until(lambda: conn.fetchval("select count(*) from delivery_attempts"))
    found = await conn.fetchval("select error from delivery_attempts")
    trail = [row[0] for row in await conn.fetch("select l::text from audit_log l")]
    for text in (found, caplog.text, *trail):
        assert not [form for form in forms.values() if form in text]
    assert found.startswith("HTTP 404: ")


# Sealing


@pytest.mark.parametrize("kind", CONFIGS)
async def test_a_sealed_channel_is_read_by_the_worker_alone(
    sealing: Api, conn: asyncpg.Connection, key_file: Path, kind: str
) -> None:
    """The row holds ciphertexts, even after a change of one member. The key file opens only that channel's."""
    made = await make(sealing, kind, CONFIGS[kind])
    number = made["channel_id"]
    config = await stored(conn, number)
    assert config.keys() == CONFIGS[kind].keys()
    assert all(is_sealed(member) for member in config.values())
    keys = KeyRing(key_file)
    assert keys.open_config(config, tenant_id="acme", channel_id=number) == CONFIGS[kind]
    for tenant_id, channel_id in (("acme", number + 1), ("else", number)):
        with pytest.raises(NotOpened):
            keys.open_config(config, tenant_id=tenant_id, channel_id=channel_id)
    if kind == "webhook":
        swapped = {"url": config["secret"], "secret": config["url"]}
        with pytest.raises(NotOpened):
            keys.open_config(swapped, tenant_id="acme", channel_id=number)
        path = f"/api/v1/channels/{number}"
        assert (await sealing.call("PATCH", path, json={"config": {"secret": NEWER}})).status_code == 200
        opened = keys.open_config(await stored(conn, number), tenant_id="acme", channel_id=number)
        assert opened == {**CONFIGS[kind], "secret": NEWER}


def test_an_altered_box_does_not_open(key_file: Path) -> None:
    """Every byte is authenticated, and the API's public key opens nothing."""
    keys = KeyRing(key_file)
    place: dict[str, Any] = {"tenant_id": "acme", "channel_id": 7}
    sealed = seal_config(read_public_key(key_file), {"secret": SECRET}, **place)["secret"]
    assert sealed is not None
    head, _, box = sealed.rpartition(":")
    for at in range(0, len(box) - 1, 7):
        other = "A" if box[at] != "A" else "B"
        with pytest.raises(NotOpened):
            keys.open_config({"secret": f"{head}:{box[:at]}{other}{box[at + 1 :]}"}, **place)
    with pytest.raises(UnknownKey):
        keys.open_config({"secret": sealed.replace(sealed_for(sealed), "0" * 16)}, **place)
    with pytest.raises(UnknownKey, match="PULSE_SECRETS_KEY_FILE is not set"):
        KeyRing(None).open_config({"secret": sealed}, **place)
    assert key_file.stat().st_mode & 0o777 == 0o600
    key_file.unlink()
    assert isinstance(read_public_key(key_file), X25519PublicKey)


async def test_the_worker_sends_what_was_sealed(
    conn: asyncpg.Connection,
    app_url: str,
    start: Start,
    key_file: Path,
) -> None:
    """A worker without the key keeps the jobs and their attempts. A copied row is refused and not sent."""
    await seed.tenant(conn)
    async with (
        Receiver() as receiver,
        open_api(app_url, secrets_key_file=key_file, allow_private_destinations=True) as api,
    ):
        config = {"url": f"{receiver.url}/in/hush-hush", "secret": SECRET}
        made = await make(api, "webhook", config)
        waits = await job(conn, made["channel_id"])
        without = await start()
        assert "plain text" in without.process.facts["channel_secrets"]()
        assert await without.claim() == 1
        await until(lambda: conn.fetchval("select count(*) from delivery_attempts"))
        attempt = await conn.fetchrow("select outcome, error from delivery_attempts")
        assert attempt is not None
        assert attempt["outcome"] == "limited"
        assert "PULSE_SECRETS_KEY_FILE is not set" in attempt["error"]
        assert await conn.fetchval("select attempts from notification_jobs") == 0
        await without.stop()
        await conn.execute("update delivery.lanes set paused_until = now() - interval '1 second'")
        having = await start(secrets_key_file=key_file)
        assert "sealed for key" in having.process.facts["channel_secrets"]()
        assert await having.claim() == 1

        async def delivered() -> bool:
            return (await states(conn))[waits] == "delivered"

        await until(delivered)
        copy = await seed.channel(conn, "copy", enabled=False)
        await conn.execute(
            "update notification_channels c set enabled = true, config = o.config, shown_url = o.shown_url"
            " from notification_channels o where c.channel_id = $1 and o.channel_id = $2",
            copy,
            made["channel_id"],
        )
        refused = await job(conn, copy)
        assert await having.claim() == 1

        async def dead() -> bool:
            return (await states(conn))[refused] == "dead"

        await until(dead)
        assert len(receiver.requests) == 1


async def test_a_sealed_address_shows_no_more_than_its_form_allows(sealing: Api, conn: asyncpg.Connection) -> None:
    """The sealing program sets the visible form. The table accepts scheme, host and fingerprint only."""
    made = await make(sealing, "slack", CONFIGS["slack"])
    for shown in (PATHS["slack"], "https://a.example/x… (00000000)", "https://u:p@a.example/… (00000000)"):
        with pytest.raises(asyncpg.PostgresError) as refused:
            await conn.execute(
                "update notification_channels set shown_url = $1 where channel_id = $2", shown, made["channel_id"]
            )
        assert refused.value.sqlstate == "PU422"


async def test_only_a_reserved_number_is_taken(conn: asyncpg.Connection) -> None:
    """A caller cannot choose the number of a channel that another caller creates next."""
    await seed.tenant(conn)
    body = {"name": "c", "kind": "slack", "config": CONFIGS["slack"]}
    async with conn.transaction():
        await conn.execute("select core.act('acme', 'user', 'ann', 'Ann', '', '', 'ui_iot')")
        for number in (1, 0, -5, 2**40):
            made = orjson.dumps({**body, "channel_id": number}).decode()
            with pytest.raises(asyncpg.PostgresError) as refused:
                async with conn.transaction():
                    await conn.execute("select delivery.create_channel($1::text::jsonb)", made)
            assert refused.value.sqlstate == "PU422"


# Keys


@pytest.mark.parametrize("settings", [UiSettings, DeliverySettings])
def test_a_key_file_that_cannot_be_used_is_an_error(tmp_path: Path, settings: type, key_file: Path) -> None:
    """The error at start names the file without its content. The API needs only the public key."""
    url = "postgresql://u@h/d"
    for content in (None, "", "# nothing\n", "secret-words\n", "0123 c2VjcmV0LXdvcmRz\n"):
        file = tmp_path / "bad.key"
        for place in (file, public_file(file)):
            if content is not None:
                place.write_text(content)
        with pytest.raises(ValidationError) as refused:
            settings(database_url=url, secrets_key_file=file)
        assert "bad.key" in str(refused.value)
        assert "secret-words" not in str(refused.value)
    (public_file(key_file) if settings is DeliverySettings else key_file).unlink()
    assert settings(database_url=url, secrets_key_file=key_file).secrets_key_file == key_file


Run = Callable[[str, Path], Awaitable[tuple[int, str]]]


@pytest.fixture
def secrets(app_url: str) -> Run:
    """Runs `pulse secrets` with a key file; its exit status, and what it printed or raised."""

    async def run(command: str, key_file: Path) -> tuple[int, str]:
        settings = {
            "PULSE_DATABASE_URL": app_url,
            "PULSE_SECRETS_KEY_FILE": str(key_file),
            "PULSE_ALLOW_UNSAFE_DATABASE": "true",
        }
        done = await asyncio.to_thread(CliRunner().invoke, app, [command], env=settings)
        return done.exit_code, f"{done.output}{done.exception or ''}"

    return run


async def channels_of(conn: asyncpg.Connection, key_file: Path) -> tuple[set[str], list[dict[str, Any]]]:
    """Names of the keys that all members are sealed for, plain among them, and the opened configurations."""
    keys = KeyRing(key_file)
    names: set[str] = set()
    opened = []
    for row in await conn.fetch("select tenant_id, channel_id, config from notification_channels order by 1, 2"):
        config = orjson.loads(row["config"])
        names |= {sealed_for(member) if is_sealed(member) else "plain" for member in config.values()}
        opened.append(keys.open_config(config, tenant_id=row["tenant_id"], channel_id=row["channel_id"]))
    return names, opened


async def test_health_of_the_api_names_the_key_after_a_rotation(sealing: Api, key_file: Path) -> None:
    report_protection(sealing.process, key_file)

    async def shown() -> str:
        return str((await sealing.client.get("/health")).json()["channel_secrets"])

    first = await shown()
    assert first == protection(read_public_key(key_file))
    add_key(key_file)
    assert await shown() == protection(read_public_key(key_file)) != first
    public_file(key_file).unlink()
    assert (await shown()).startswith(f"unknown: {public_file(key_file)}")
    report_protection(sealing.process, None)
    assert "plain text" in await shown()


async def test_existing_secrets_are_sealed_and_keys_rotated(
    conn: asyncpg.Connection, secrets: Run, tmp_path: Path
) -> None:
    """Channels look unchanged. A repeated run continues after an interruption and creates no second key."""
    file = tmp_path / "new" / "channel.key"
    for tenant in ("acme", "else"):
        for kind, config in CONFIGS.items():
            await seed.channel(conn, kind, tenant_id=tenant, kind=kind, config=json.dumps(config))
    metric = "select value from metrics.channel_secrets where protection = 'plain'"
    assert await conn.fetchval(metric) == 8
    public = "select to_jsonb(c) - 'config' from notification_channels c order by channel_id"
    before = await conn.fetch(public)
    assert "create it with ./pulse secrets init" in (await secrets("encrypt", file))[1]
    assert (await secrets("init", file))[0] == 0
    made = file.read_text()
    assert "is unchanged" in (await secrets("init", file))[1]
    assert file.read_text() == made
    status, said = await secrets("encrypt", file)
    assert (status, "8 channels read, 8 sealed" in said) == (0, True), said
    assert "8 channels read, 0 sealed" in (await secrets("encrypt", file))[1]
    first, opened = await channels_of(conn, file)
    assert (len(first), "plain" in first, opened) == (1, False, [*CONFIGS.values()] * 2)
    assert (await conn.fetchval(metric), await conn.fetch(public)) == (0, before)
    assert await conn.fetchval("select count(*) from audit_log l where l::text like '%hush%'") == 0
    reason = "select distinct details ->> 'reason' from audit_log where event_type = 'config.channel_updated'"
    assert await conn.fetchval(reason) == f"the secrets were sealed with another key by cli:{getpass.getuser()}"

    # Interrupted after the new key and some channels.
    add_key(file)
    ring = KeyRing(file)
    row = await conn.fetchrow("select tenant_id, channel_id, config from notification_channels limit 1")
    assert row is not None
    assert ring.newest is not None
    place: dict[str, Any] = {"tenant_id": row["tenant_id"], "channel_id": row["channel_id"]}
    config = orjson.loads(row["config"])
    new = seal_config(ring.newest, ring.open_config(config, **place), **place)
    query = "select delivery.reseal_channel($1, $2, $3::text::jsonb, $4::text::jsonb, 'cli:x')"
    texts = [json.dumps(config), json.dumps(new)]
    assert await conn.fetchval(query, *place.values(), *texts)
    assert not await conn.fetchval(query, *place.values(), *texts)
    status, said = await secrets("rotate", file)
    assert (status, "sealed for an older key" in said, "7 sealed" in said) == (0, True, True), said
    second, opened = await channels_of(conn, file)
    assert (len(second), second & first, opened) == (1, set(), [*CONFIGS.values()] * 2)
    assert len(KeyRing(file).names) == 2
    status, said = await secrets("rotate", file)
    assert (status, "8 sealed" in said) == (0, True), said
    assert len(KeyRing(file).names) == 3
    # A missing key is reported, its channels are skipped, and the others are sealed.
    lost, _ = await channels_of(conn, file)
    add_key(file)
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if line.split()[0] not in lost))
    status, said = await secrets("encrypt", file)
    assert (status, f"sealed for key {lost.pop()}" in said) == (1, True), said


@pytest.mark.parametrize(
    "new",
    [
        '{"url": "https://evil.example/"}',
        "{}",
        '{"url": "sealed:1:0123456789abcdef:x"}',
        '{"url": null}',
        '{"secret": "s"}',
    ],
)
async def test_resealing_takes_the_same_members_sealed(conn: asyncpg.Connection, new: str) -> None:
    """The set of members stays the same, and none is plain."""
    channel = await seed.channel(conn, kind="slack", config=json.dumps(CONFIGS["slack"]))
    query = "select delivery.reseal_channel('acme', $1, $2::text::jsonb, $3::text::jsonb, 'cli:x')"
    with pytest.raises(asyncpg.PostgresError) as refused:
        await conn.fetchval(query, channel, json.dumps(CONFIGS["slack"]), new)
    assert refused.value.sqlstate == "PU422"


async def test_a_worker_finds_a_key_that_was_added(key_file: Path, app_pool: Pool) -> None:
    """A worker reads the file again if a key is missing, so a rotation needs no restart."""
    assert app_pool
    ring = KeyRing(key_file)
    place: dict[str, Any] = {"tenant_id": "acme", "channel_id": 7}
    old = seal_config(read_public_key(key_file), {"url": PATHS["slack"]}, **place)
    add_key(key_file)
    new = seal_config(read_public_key(key_file), {"url": PATHS["slack"]}, **place)
    assert old["url"] is not None
    assert new["url"] is not None
    assert sealed_for(old["url"]) != sealed_for(new["url"])
    for config in (old, new):
        assert ring.open_config(config, **place) == {"url": PATHS["slack"]}


def test_old_rows_survive_the_revision_and_the_way_back(empty_url: str) -> None:
    """Addresses are shown without paths, and in full after a downgrade. Reasons stay."""
    migrator = Migrator(empty_url)
    migrator.upgrade("0008")
    with psycopg.connect(empty_url, autocommit=True) as owner:
        owner.execute("set pulse.actor_id = 'test'")
        owner.execute("insert into tenants (tenant_id, name) values ('acme', 'Acme')")
        for kind, config in CONFIGS.items():
            owner.execute(
                "insert into notification_channels (tenant_id, name, kind, config, disabled_reason)"
                " values ('acme', %s, %s, %s, 'HTTP 410')",
                [kind, kind, json.dumps(config)],
            )
        query = "select name, config, shown_url, disabled_reason from notification_channels order by channel_id"
        before = owner.execute(query).fetchall()
        assert before[0][2] == PATHS["discord"]
        migrator.upgrade()
        key = owner.execute("select fingerprint_key from installation").fetchone()
        assert key is not None
        assert owner.execute(query).fetchall() == [
            (name, config, shown_url(config["url"], key[0]) if "url" in config else None, reason)
            for name, config, _shown, reason in before
        ]
        migrator.downgrade("0008")
        assert owner.execute(query).fetchall() == before
