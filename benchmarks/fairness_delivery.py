"""One tenant's hanging receivers beside another tenant's notifications: milliseconds from job to request.

The delivery worker runs as its own process on a durable database. A tenant has 80 channels that lead to a receiver
which accepts requests and never answers; another tenant gets a notification every so often. The reference is the same
without the first tenant's jobs, measured in the same run. The clock starts when the job is committed and stops when the
request's last byte is at the receiver.

    pulse bench fairness_delivery [--seconds N] [--rate N] [--channels N] [--jobs N]
"""

import argparse
import asyncio
import time

import asyncpg

from benchmarks._bench import (
    ACTOR,
    conclude,
    percentile,
    require_effect,
    running_services,
    scratch_database,
    until_listening,
)
from benchmarks.reading_to_webhook import Receiver

_SLOTS = 64
_SETTINGS = {"PULSE_DELIVERY_CONCURRENCY": str(_SLOTS), "PULSE_DELIVERY_TIMEOUT_SECONDS": "2"}
MAKE_JOBS = """
with a as (
  insert into alerts (tenant_id, fingerprint, rule_name, severity, message, opened_at, trace_id)
  select $1, gen_random_uuid()::text, 'r', 'info', 'm', now(), coalesce($3, md5(random()::text))
  from generate_series(1, $2::integer)
  returning *
), e as (
  insert into alert_events (tenant_id, alert_id, kind, occurred_at, dispatched_at, trace_id)
  select a.tenant_id, a.alert_id, 'opened', now(), now(), a.trace_id from a
  returning *
), placed as (
  select e.*, row_number() over (order by e.event_id) as place from e
), channel as (
  select c.channel_id, row_number() over (order by c.channel_id) as place, count(*) over () as channels
  from notification_channels c
  where c.tenant_id = $1
), made as (
  insert into notification_jobs (tenant_id, event_id, alert_id, channel_id, kind, trace_id, payload)
  select p.tenant_id, p.event_id, p.alert_id, c.channel_id, 'opened', p.trace_id, jsonb_build_object(
    'kind', 'opened', 'tenant_id', p.tenant_id, 'event_id', p.event_id, 'occurred_at', now(),
    'alert', jsonb_build_object(
      'alert_id', p.alert_id, 'fingerprint', p.alert_id::text, 'rule_name', 'r', 'severity', 'info', 'status', 'open',
      'message', 'm', 'opened_at', now()))
  from placed p
  join channel c on c.place = p.place % c.channels + 1
)
select pg_notify('pulse_delivery', '')
"""


class Hanging:
    """A receiver that reads requests and never answers."""

    def __init__(self) -> None:
        self.requests = 0
        self.now = 0
        self.most = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hold one connection until the caller gives up."""
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.requests += 1
            await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.now -= 1
            writer.close()


async def add_channels(owner: asyncpg.Connection, tenant_id: str, count: int, port: int) -> None:
    """Make a tenant with webhook channels to a port of this machine."""
    await owner.execute("insert into tenants (tenant_id, name) values ($1, $1)", tenant_id)
    await owner.execute(
        "insert into notification_channels (tenant_id, name, kind, config)"
        " select $1, 'c' || n, 'webhook', jsonb_build_object('url', $3::text, 'secret',"
        " 'whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz') from generate_series(1, $2) n",
        tenant_id,
        count,
        f"http://127.0.0.1:{port}/hook",
    )


async def measure(owner: asyncpg.Connection, receiver: Receiver, options: argparse.Namespace) -> list[float]:
    """Return the milliseconds of each notification of the quiet tenant at the given rate."""
    committed: dict[str, float] = {}
    first = len(receiver.arrived)
    total = int(options.seconds * options.rate)
    started = time.perf_counter()
    for number in range(total):
        await asyncio.sleep(max(0.0, started + number / options.rate - time.perf_counter()))
        trace_id = f"{first + number + 1:032x}"
        await owner.execute(MAKE_JOBS, "quiet", 1, trace_id)
        committed[trace_id] = time.perf_counter()
    deadline = time.perf_counter() + 60
    while len(receiver.arrived) < first + total and time.perf_counter() < deadline:
        await asyncio.sleep(0.05)
    require_effect("notifications received", found=len(committed.keys() & receiver.arrived.keys()), expected=total)
    return [(receiver.arrived[trace_id] - at) * 1000 for trace_id, at in committed.items()]


async def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    receiver, hanging = Receiver(), Hanging()
    servers = [await asyncio.start_server(end.handle, "127.0.0.1", 0) for end in (receiver, hanging)]
    with scratch_database() as url:
        owner = await asyncpg.connect(url, server_settings=ACTOR)
        await add_channels(owner, "quiet", 1, servers[0].sockets[0].getsockname()[1])
        await add_channels(owner, "evil", options.channels, servers[1].sockets[0].getsockname()[1])
        with running_services(url, "services.delivery_worker", **_SETTINGS):
            await until_listening(owner, "delivery_worker")
            await measure(
                owner, receiver, argparse.Namespace(seconds=1.0, rate=options.rate)
            )  # warms plans and sockets
            reference = await measure(owner, receiver, options)
            await owner.execute(MAKE_JOBS, "evil", options.channels * options.jobs, None)
            while not hanging.requests:
                await asyncio.sleep(0.01)
            attacked = await measure(owner, receiver, options)
        left = await owner.fetchval(
            "select count(*) from notification_jobs where tenant_id = 'evil' and state = 'pending'"
        )
        await owner.close()
    for server in servers:
        server.close()
    half = min(_SLOTS // 2, options.channels * options.jobs)
    require_effect("slots that hung at most", found=hanging.most, expected=half)
    for name, values in (("reference", reference), ("pulse", attacked)):
        print(
            f"{name:10} p50 {percentile(values, 0.5):7.1f} ms   p99 {percentile(values, 0.99):7.1f} ms"
            f"   max {max(values):7.1f} ms   of {len(values)}"
        )
    print(
        f"attack     {hanging.requests} requests hung, {hanging.most} of {_SLOTS} slots at most, {left} jobs still wait"
    )
    print(f"ratio      p99 {percentile(attacked, 0.99) / percentile(reference, 0.99):.2f} x without the attack")


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(prog="pulse bench fairness_delivery", description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each measurement (default 10)")
    parser.add_argument(
        "--rate", type=float, default=50.0, help="notifications a second of the quiet tenant (default 50)"
    )
    parser.add_argument("--channels", type=int, default=80, help="channels whose receiver hangs (default 80)")
    parser.add_argument("--jobs", type=int, default=20, help="pending notifications for each channel (default 20)")
    conclude(run(parser.parse_args()))


if __name__ == "__main__":
    main()
