"""A server clock that tests set: core.now() returns the time in a table, for every session and role."""

from datetime import datetime

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
