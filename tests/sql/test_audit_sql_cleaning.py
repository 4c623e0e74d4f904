"""Text that a person writes into the trail by psql is cleaned like text from a service."""

import asyncpg
import orjson
import pytest

from services.shared import db
from services.shared.audit_writer import cleaning

SECRETS = [
    "because password=hunter2 and Bearer abcdefghijklmnop",
    "basic dXNlcjpwYXNzd29yZA==, then nothing",
    'WWW-Authenticate: Bearer realm="pulse"',
    "a token eyJhbGciOiJub25lIn0.eyJzdWIiOiJtYWxsb3J5In0.x was lost",
    "device pdt_acme_AAAAAAAAAAAA signs whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "postgresql://ada:hush@db.example/pulse and https://ada@a.example/x",
    "https://hooks.slack.com/services/T0/B0/hush is the address",
    "Set-Cookie: session=hush; Path=/",
    "GET /in?api_key=hush&x=1 and secret=hush,b=2 TOKEN=hush",
]
HARMLESS = ["too noisy", "ticket 4711: the pump's key is lost", "see https://wiki.example/a=b", "größer = besser"]
FORGED = "a\nb\u202e\u200b"
SHOWN = "a\ufffdb\ufffd\ufffd"


@pytest.mark.parametrize("text", SECRETS + HARMLESS)
async def test_secrets_are_found_as_everywhere_else(conn: asyncpg.Connection, text: str) -> None:
    """In SQL and in Python by the same patterns."""
    found = await conn.fetchval("select audit._redacted($1)", text)
    assert found == cleaning.clean_text(text, 2000)
    assert (found == text) == (text in HARMLESS or "realm" in text)
    assert "hush" not in found


async def test_nothing_forged_or_secret_comes_in_by_psql(conn: asyncpg.Connection) -> None:
    """Neither in the actor and the reason nor in the event itself."""
    async with conn.transaction():
        await conn.execute("select audit.act($1, $2)", f"psql:{FORGED}", f"{FORGED} password=hush")
        await conn.execute(
            "select audit.write(array[audit.event('acme', 'alert.opened', $1, $1, $1, 'token=hush',"
            ' \'{"API_KEY": "hush", "token": 1, "old_password": "hush", "Authorisation": "hush", "signing_key": "hush",'
            ' "has_secret": true, "state": "x"}\', p_trace_id => $1)])',
            FORGED,
        )
        await conn.execute(
            "select audit.write(array[audit.event('acme', 'alert.closed', p_actor_type => 'user', p_actor_id => $1)])",
            FORGED,
        )
    opened, closed = await conn.fetch("select * from audit_log order by event_type desc")
    assert orjson.loads(opened["details"]) == {
        "reason": f"{SHOWN} password=[redacted]",
        "API_KEY": "[redacted]",
        "token": "[redacted]",
        "old_password": "[redacted]",
        "Authorisation": "[redacted]",
        "signing_key": "[redacted]",
        "has_secret": True,
        "state": "x",
    }
    assert (opened["actor_id"], closed["actor_id"]) == (f"psql:{SHOWN}", SHOWN)
    assert {opened[name] for name in ("entity_type", "entity_id", "entity_name", "trace_id")} == {SHOWN}
    assert opened["message"] == "token=[redacted]"


async def test_a_services_own_words_stay(app_pool: db.Pool, conn: asyncpg.Connection) -> None:
    """A service cleans client text before the call; a second search would slow each of its events."""
    await app_pool.execute(
        "select audit.write(array[audit.event('acme', 'alert.opened', p_details => $1)])", {"token_count": 3}
    )
    assert orjson.loads(await conn.fetchval("select details from audit_log")) == {"token_count": 3}


async def test_a_long_context_costs_no_transaction(conn: asyncpg.Connection) -> None:
    """An index entry has a maximum length, a reason has none."""
    async with conn.transaction():
        await conn.execute("select audit.act($1, $2)", "x" * 10_000, "y" * 10_000)
        await conn.execute("select audit.write(array[audit.event('acme', 'alert.opened')])")
    row = await conn.fetchrow("select actor_id, details ->> 'reason' as reason from audit_log")
    assert (row["actor_id"], row["reason"]) == ("x" * 256, "y" * 2000)
