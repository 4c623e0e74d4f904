"""The proxy that cuts between two messages, seen from the server and the client."""

import asyncio

import asyncpg
import pytest
from asyncpg.prepared_stmt import PreparedStatement

from tests.chaos.cuts import Cuts, Order
from tests.chaos.proxy import MessageProxy

LOST = (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, ConnectionError)


@pytest.fixture
async def table(conn: asyncpg.Connection) -> asyncpg.Connection:
    """A superuser's connection to a database with an empty table t."""
    await conn.execute("create table t (n integer)")
    return conn


async def order(cuts: Cuts, cut: Order) -> "asyncio.Task[bool]":
    """Order a cut and return its task."""
    task = asyncio.create_task(cuts.make(cut, seconds=10))
    await asyncio.sleep(0)
    return task


async def write_in_block(client: asyncpg.Connection, insert: PreparedStatement) -> None:
    """Run the insert within a transaction block."""
    async with client.transaction():
        await insert.fetch(1)


@pytest.mark.parametrize(("cut", "rows"), [("before", 0), ("after", 1)])
@pytest.mark.parametrize("in_block", [False, True])
async def test_a_commit_is_cut_on_either_side(
    table: asyncpg.Connection, database_url: str, cut: str, rows: int, *, in_block: bool
) -> None:
    """A cut before the commit stores nothing. A cut after it stores the row without a response."""
    cuts = Cuts()
    async with MessageProxy(database_url, cuts) as proxy:
        client = await asyncpg.connect(proxy.url)
        insert = await client.prepare("insert into t values ($1)")
        made = await order(cuts, Order(cut, "client", only_commits=True, skip=0))  # type: ignore[arg-type]
        writing = write_in_block(client, insert) if in_block else insert.fetch(1)
        with pytest.raises(LOST):
            await writing
        assert await made
        client.terminate()
    assert await table.fetchval("select count(*) from t") == rows


async def test_an_answer_is_lost(table: asyncpg.Connection, database_url: str) -> None:
    """The server's message is cut after the work was done."""
    cuts = Cuts()
    async with MessageProxy(database_url, cuts) as proxy:
        client = await asyncpg.connect(proxy.url)
        insert = await client.prepare("insert into t values ($1)")
        made = await order(cuts, Order("before", "server", only_commits=False, skip=2))
        with pytest.raises(LOST):
            await insert.fetch(1)
        assert await made
        client.terminate()
    assert await table.fetchval("select count(*) from t") == 1


async def test_a_cut_that_finds_no_message_is_taken_back(database_url: str) -> None:
    """The withdrawn cut does not hit later messages."""
    cuts = Cuts()
    async with MessageProxy(database_url, cuts) as proxy:
        client = await asyncpg.connect(proxy.url)
        assert not await cuts.make(Order("before", "client", only_commits=False, skip=0), seconds=0.01)
        assert await client.fetchval("select 1") == 1
        await client.close()


async def test_a_stall_holds_back_answers_and_not_the_work(table: asyncpg.Connection, database_url: str) -> None:
    """The client waits although the row exists. Held messages arrive after the stall."""
    async with MessageProxy(database_url, Cuts()) as proxy:
        heard = asyncio.Event()
        await table.add_listener("stalled", lambda *_: heard.set())
        client = await asyncpg.connect(proxy.url)
        proxy.stall("server")
        waiting = asyncio.create_task(client.execute("notify stalled; insert into t values (1)"))
        async with asyncio.timeout(10):
            await heard.wait()
        assert not waiting.done()
        assert await table.fetchval("select count(*) from t") == 1
        proxy.resume()
        await waiting
        await client.close()


async def test_a_server_that_is_away_is_a_lost_connection() -> None:
    async with MessageProxy("postgresql://nobody@127.0.0.1:1/none", Cuts()) as proxy:
        with pytest.raises((*LOST, OSError)):
            await asyncpg.connect(proxy.url, timeout=10)
