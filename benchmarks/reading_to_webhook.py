"""Reading committed to webhook request: milliseconds through evaluator, dispatcher and delivery worker.

Every service runs as its own process on a durable database. The clock starts when the call that stored the reading has
returned and stops when the request's last byte is at the receiver; both are on this machine. The reference is what the
hand-over alone costs in the same run: three processes' worth of NOTIFY wake-ups, each answered by a commit that
notifies the next.

    pulse bench reading_to_webhook [--seconds N] [--rate N]
"""

import argparse
import asyncio
import time
from datetime import UTC, datetime

import asyncpg

from benchmarks._bench import (
    ACTOR,
    as_role,
    conclude,
    percentile,
    require_effect,
    running_services,
    scratch_database,
    until_listening,
)

SERVICES = ("services.evaluator_iot", "services.dispatcher", "services.delivery_worker")
HOPS = 3
_COMMIT_A_ROW = """
insert into audit_log (timestamp, event_id, event_type, category, action, message, source_service)
values (now(), gen_random_uuid(), 'system.started', 'system', 'started', 'benchmark', 'benchmark')
"""


class Receiver:
    """An HTTP server that answers 204 and remembers when each request had arrived."""

    def __init__(self) -> None:
        self.arrived: dict[str, float] = {}

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until it is closed."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                headers = {
                    name.lower(): value.strip()
                    for name, _, value in (line.partition(":") for line in head.split("\r\n")[1:] if line)
                }
                await reader.readexactly(int(headers.get("content-length", "0")))
                self.arrived.setdefault(headers["x-trace-id"], time.perf_counter())
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        except asyncio.IncompleteReadError:
            writer.close()


async def seed(owner: asyncpg.Connection, port: int) -> None:
    """Insert one tenant with a rule and a webhook."""
    await owner.execute("insert into tenants (tenant_id, name) values ('acme', 'Acme')")
    await owner.execute(
        "insert into devices (tenant_id, device_id, name)"
        " select 'acme', 'd' || n, 'd' || n from generate_series(1, 1000) n"
    )
    await owner.execute(
        "insert into alert_rules (tenant_id, name, metric, operator, threshold)"
        " values ('acme', 'hot', 'temperature', '>', 80)"
    )
    await owner.execute(
        "insert into notification_channels (tenant_id, name, kind, config) values ('acme', 'sink', 'webhook',"
        " jsonb_build_object('url', $1::text, 'secret', 'whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz'))",
        f"http://127.0.0.1:{port}/hook",
    )
    await owner.execute(
        "insert into notification_routes (tenant_id, name, channel_id)"
        " select tenant_id, 'all', channel_id from notification_channels"
    )


async def measure(url: str, receiver: Receiver, options: argparse.Namespace) -> list[float]:
    """Return the milliseconds of every alert while devices breach or clear in turn at the given rate."""
    connection = await asyncpg.connect(as_role(url, "pulse_app"))
    committed: dict[str, float] = {}
    first = len(receiver.arrived)
    total = int(options.seconds * options.rate)
    started = time.perf_counter()
    for number in range(total):
        await asyncio.sleep(max(0.0, started + number / options.rate - time.perf_counter()))
        trace_id = f"{first + number + 1:032x}"
        value = 90.0 if (first + number) // 1000 % 2 == 0 else 20.0
        await connection.execute(
            "select from ingest.record_readings('acme', $1, array['temperature'], $2, $3, $4)",
            [f"d{(first + number) % 1000 + 1}"],
            [datetime.now(UTC)],
            [value],
            trace_id,
        )
        committed[trace_id] = time.perf_counter()
    await connection.close()
    deadline = time.perf_counter() + 30
    while len(receiver.arrived) < first + total and time.perf_counter() < deadline:
        await asyncio.sleep(0.05)
    lost = committed.keys() - receiver.arrived.keys()
    require_effect("notifications received", found=total - len(lost), expected=total)
    return [(receiver.arrived[trace_id] - at) * 1000 for trace_id, at in committed.items()]


async def measure_reference(url: str, options: argparse.Namespace) -> list[float]:
    """Return the milliseconds of HOPS wake-ups in a row, each a NOTIFY in a commit."""
    listener, sender = await asyncpg.connect(url), await asyncpg.connect(url)
    heard = asyncio.Event()
    await listener.add_listener("pulse_bench", lambda *_: heard.set())
    times = []
    for _ in range(int(options.seconds * options.rate / 5)):
        started = time.perf_counter()
        for _ in range(HOPS):
            heard.clear()
            async with sender.transaction():
                await sender.execute(_COMMIT_A_ROW)
                await sender.execute("select pg_notify('pulse_bench', '')")
            await heard.wait()
        times.append((time.perf_counter() - started) * 1000)
    await listener.close()
    await sender.close()
    return times


HOPS_IN_ROWS = """
select hop, percentile_cont(0.5) within group (order by ms), percentile_cont(0.99) within group (order by ms), count(ms)
from (
  select extract(epoch from e.recorded_at - t.received_at) * 1000 as evaluated,
    extract(epoch from j.created_at - e.recorded_at) * 1000 as dispatched,
    extract(epoch from a.started_at - j.created_at) * 1000 as claimed,
    a.duration_ms as answered
  from telemetry t
  join alert_events e using (trace_id)
  join notification_jobs j using (trace_id)
  join delivery_attempts a using (trace_id)
) rows
cross join lateral (values
  (1, 'evaluated', evaluated), (2, 'dispatched', dispatched), (3, 'sent', claimed), (4, 'answered', answered)
) as hops (place, hop, ms)
group by place, hop
order by place
"""


async def finished(owner: asyncpg.Connection, expected: int) -> None:
    """Wait until the last answers are recorded, which happens after the receiver has seen the requests."""
    deadline = time.perf_counter() + 30
    found = 0
    while found < expected and time.perf_counter() < deadline:
        found = await owner.fetchval("select count(*) from delivery_attempts where outcome = 'delivered'")
        await asyncio.sleep(0.05)
    require_effect("deliveries recorded", found=found, expected=expected)


async def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    receiver = Receiver()
    server = await asyncio.start_server(receiver.handle, "127.0.0.1", 0)
    with scratch_database() as url:
        owner = await asyncpg.connect(url, server_settings=ACTOR)
        await seed(owner, server.sockets[0].getsockname()[1])
        with running_services(url, *SERVICES, PULSE_LOG_LEVEL="INFO"):
            for name in ("evaluator_iot", "dispatcher", "delivery_worker"):
                await until_listening(owner, name)
            # Warms plans and sockets.
            warm = await measure(url, receiver, argparse.Namespace(seconds=1.0, rate=options.rate))
            await finished(owner, len(warm))
            await owner.execute("delete from delivery_attempts")
            times = await measure(url, receiver, options)
            await finished(owner, len(times))
        hops = await owner.fetch(HOPS_IN_ROWS)
        reference = await measure_reference(url, options)
        await owner.close()
    server.close()
    for name, values in (("pulse", times), ("reference", reference)):
        print(
            f"{name:10} p50 {percentile(values, 0.5):7.1f} ms   p99 {percentile(values, 0.99):7.1f} ms"
            f"   max {max(values):7.1f} ms   of {len(values)}"
        )
    for hop, middle, late, count in hops:
        require_effect(f"rows that show how long it took until {hop}", found=count, expected=len(times))
        print(f"  {hop:10} p50 {middle:7.1f} ms   p99 {late:7.1f} ms   by the rows' own times")
    print(
        f"ratio      p50 {percentile(times, 0.5) / percentile(reference, 0.5):.1f} x   at {options.rate:g} readings/s"
    )


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(prog="pulse bench reading_to_webhook", description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the measurement (default 20)")
    parser.add_argument("--rate", type=float, default=100.0, help="alerts or resolutions a second (default 100)")
    conclude(run(parser.parse_args()))


if __name__ == "__main__":
    main()
