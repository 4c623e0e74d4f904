"""The overview dashboard: the promises to users first, then the processes."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from deploy.grafana.panels import Query, dashboard, graph, number, quantiles, snapshot_quantiles, text

HTTP = "pulse_http_request_duration_seconds"
OF = 'job=~"$job", instance=~"$instance"'

TRACES = (
    "A dot in *How long requests take* is an exemplar: one request with its trace id. "
    "`./pulse trace ID` or `GET /api/v1/traces/ID` shows its whole course, from the reading to the webhook's answer; "
    "the data source in `deploy/grafana/datasource.yml` links there."
)


def overview() -> Dashboard:
    """Return the dashboard to open first."""
    return dashboard(
        "pulse-overview",
        "Pulse / Overview",
        "Promises to users, requests, notifications and processes.",
        [
            (
                "Promises",
                [
                    number(
                        "Failed requests",
                        "max(job:pulse_http_errors:ratio_rate1h)",
                        unit="percentunit",
                        bad_above=0.001,
                        says="Share of 5xx within an hour; 0.1 % are allowed.",
                    ),
                    number(
                        "Slow requests",
                        "max(job:pulse_http_slow:ratio_rate1h)",
                        unit="percentunit",
                        bad_above=0.01,
                        says="Share above 250 ms within an hour; 1 % is allowed.",
                    ),
                    number(
                        "Late notifications",
                        "pulse:reading_delivery_late:ratio_1h",
                        unit="percentunit",
                        bad_above=0.01,
                        says="Share above 10 s from reading to answer within an hour; 1 % is allowed.",
                    ),
                    number(
                        "Audit events lost",
                        "pulse:audit_events_lost:ratio_rate1h",
                        unit="percentunit",
                        bad_above=0.00001,
                        says="Share within an hour, of those that must be kept.",
                    ),
                    number(
                        "Pages",
                        'count(ALERTS{alertname=~"Pulse.+", alertstate="firing", severity="page"}) or vector(0)',
                        bad_above=1,
                        says="Firing alerts of severity page.",
                    ),
                    number(
                        "Tickets",
                        'count(ALERTS{alertname=~"Pulse.+", alertstate="firing", severity="ticket"}) or vector(0)',
                        bad_above=1,
                        says="Firing alerts of severity ticket.",
                    ),
                ],
            ),
            (
                "Requests",
                [
                    graph(
                        "Requests a second",
                        Query(
                            f"sum by (status_code) (rate({HTTP}_count{{{OF}}}[$__rate_interval]))", "{{status_code}}"
                        ),
                        unit="reqps",
                        says="By status. 499: the client disconnected.",
                    ),
                    graph(
                        "How long requests take",
                        *quantiles(HTTP, 0.5, 0.95, 0.99, of=OF),
                        unit="s",
                        says="From arrival to the last byte. The dots are single requests with their trace ids.",
                    ),
                    graph(
                        "Requests by route",
                        *quantiles(
                            HTTP, 0.95, of=OF, by="method, path_template", legend="{{method}} {{path_template}}"
                        ),
                        unit="s",
                        says="95 % of the requests to each are faster.",
                    ),
                    graph(
                        "Requests being answered",
                        Query(f"sum by (instance) (pulse_http_requests_in_progress{{{OF}}})", "{{instance}}"),
                    ),
                    text(TRACES, height=3),
                ],
            ),
            (
                "From reading to notification",
                [
                    graph(
                        "Readings a second",
                        Query("max(rate(pulse_ingest_readings_total[$__rate_interval]))", "readings"),
                        unit="cps",
                    ),
                    graph(
                        "Reading to notification, last hour",
                        *snapshot_quantiles("pulse_reading_delivery_latency_seconds", 0.5, 0.99),
                        unit="s",
                        says="Each sample covers the deliveries of the last hour.",
                    ),
                    graph("Alerts that are open", Query("max by (severity) (pulse_alerts_open)", "{{severity}}")),
                    graph("Devices", Query("max by (status) (pulse_devices)", "{{status}}")),
                ],
            ),
            (
                "Processes",
                [
                    graph(
                        "Processes that respond",
                        Query('sum by (job) (up{job=~"$job", instance=~"$instance"})', "{{job}}"),
                    ),
                    graph(
                        "What the health monitor sees",
                        Query("max by (service) (pulse_service_up)", "{{service}}"),
                        says="1: /health answers ok.",
                    ),
                    graph(
                        "Starts and clean stops within 30 minutes",
                        Query("max by (service) (increase(pulse_process_starts_total[30m]))", "{{service}} started"),
                        Query("max by (service) (increase(pulse_process_stops_total[30m]))", "{{service}} stopped"),
                        says="Counted in the database. A start without a stop is a crash or another copy.",
                    ),
                    graph(
                        "Memory", Query(f"process_resident_memory_bytes{{{OF}}}", "{{job}} {{instance}}"), unit="bytes"
                    ),
                    graph(
                        "Processor",
                        Query(f"rate(process_cpu_seconds_total{{{OF}}}[$__rate_interval])", "{{job}} {{instance}}"),
                        unit="percentunit",
                        says="1 is one core.",
                    ),
                ],
            ),
        ],
        instances=True,
    )
