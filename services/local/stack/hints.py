"""Hints that `pulse up` prints when all processes are ready: addresses and commands to paste."""

import os
import shlex
from collections.abc import Iterator

from services.cli.home import PROGRAM, Home
from services.local.demo.factory import FREE_DEVICE, TENANT_ID
from services.local.stack.roster import SERVICES, SINK, Ports, kind_of

EXAMPLE_TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
FIRST_TENANT = f"""Create a first tenant and a token for it:
   {PROGRAM} tenant create acme --name "Acme"
   {PROGRAM} token --tenant acme --role admin"""


def addresses(ports: Ports, *, demo: bool) -> Iterator[tuple[str, str]]:
    """Yield label and URL of each address to open."""
    yield "API", ports.url("ui_iot") + "/docs"
    yield "Metrics", ports.url("exporter") + "/metrics"
    if demo:
        yield "Webhooks received", ports.url(SINK) + "/received"


def checks(ports: Ports, home: Home, *, demo: bool) -> Iterator[tuple[str, list[str]]]:
    """Yield title and commands of the things to try, ready to paste into a shell."""
    api = f"localhost:{ports['ui_iot']}"
    expired = f"$({PROGRAM} token --tenant {TENANT_ID} --role admin --expired)"
    # The variable is printed, not its value, which would end up in logs and on screens.
    shown = '-H "Authorization: Bearer $PULSE_METRICS_TOKEN" ' if os.environ.get("PULSE_METRICS_TOKEN") else ""
    failures = "SELECT * FROM audit_log WHERE event_type LIKE 'auth.%' ORDER BY timestamp DESC LIMIT 5;"
    yield (
        "Failed logins are in the audit trail, with reason and address",
        [
            f'curl -s -H "Authorization: Bearer {expired}" {api}/api/v1/alerts',
            f'curl -s -H "Authorization: Bearer not-a-token" {api}/api/v1/alerts',
            f'{PROGRAM} psql -- -c "{failures}"',
        ],
    )
    measured_at = [str(ports.metrics(name)) for name in ports.services if kind_of(name) == "ui_iot"]
    metrics = f"{api}/metrics" if len(measured_at) == 1 else f'"localhost:{{{",".join(measured_at)}}}/metrics"'
    yield "Every request is measured", [f"curl -s {shown}{metrics} | grep http_request_duration_seconds"]
    if demo:
        yield "One trace id leads from the reading to the webhook", list(_trace_commands(ports, home))
    workers = ",".join(str(ports[name]) for name in list(SERVICES)[1:5])
    measured = "pulse_(processing_duration_seconds|db_pool|queue_depth)"
    yield "Every worker is measured", [f'curl -s {shown}"localhost:{{{workers}}}/metrics" | grep -E "{measured}"']


def _trace_commands(ports: Ports, home: Home) -> Iterator[str]:
    token = f"$({PROGRAM} token --device {FREE_DEVICE})"
    reading = f'{{"readings":[{{"device_id":"{FREE_DEVICE}","metric":"temperature","value":120}}]}}'
    yield (
        f'curl -s -H "Authorization: Bearer {token}" -H "X-Trace-ID: {EXAMPLE_TRACE_ID}"'
        f" -H 'Content-Type: application/json' -d '{reading}' localhost:{ports['ui_iot']}/ingest/v1/readings"
    )
    yield f"{PROGRAM} trace {EXAMPLE_TRACE_ID}"
    yield f"grep -l {EXAMPLE_TRACE_ID} {shlex.quote(str(home.root / 'log'))}/*.log"
    yield f"curl -s 'localhost:{ports[SINK]}/received?trace_id={EXAMPLE_TRACE_ID}'"
