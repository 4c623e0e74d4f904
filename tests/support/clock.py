"""The server's clock for decisions, core.now(), as tests set it: by a table for many moments, or stopped at one."""

from datetime import datetime

import asyncpg

CREATE = """
create table core.clock as select $1::timestamptz as now;
grant select on core.clock to public;
create or replace function core.now() returns timestamptz language sql stable as 'select now from core.clock';
"""


def create_clock(now: datetime) -> str:
    """Return the statements that stop the clock at a time."""
    return CREATE.replace("$1", f"'{now.isoformat()}'")


def set_clock(now: datetime) -> str:
    """Return the statement that sets the stopped clock."""
    return f"update core.clock set now = '{now.isoformat()}'"


async def stop_clock(conn: asyncpg.Connection, moment: str) -> None:
    """Stop the clock at a moment, for every session and role."""
    await conn.execute(
        f"create or replace function core.now() returns timestamptz language sql stable return '{moment}'::timestamptz"
    )
