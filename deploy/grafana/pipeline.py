"""The dashboard of the pipeline from readings to notifications."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from deploy.grafana.panels import Query, dashboard, graph, number, quantiles, snapshot_quantiles

OF = 'job=~"$job", instance=~"$instance"'
OPEN = 'max by (severity) (pulse_alert_age_seconds_bucket{le="+Inf"})'
OPEN_A_DAY = 'max by (severity) (pulse_alert_age_seconds_bucket{le="86400.0"})'
PROCESSING = "pulse_processing_duration_seconds"
STEP = "service, operation"


def pipeline() -> Dashboard:
    """Return the dashboard of queues, workers and deliveries."""
    return dashboard(
        "pulse-pipeline",
        "Pulse / Pipeline",
        "Queues, workers and deliveries, from reading to notification.",
        [
            (
                "Now",
                [
                    number(
                        "Oldest due row",
                        "max(service_queue_name:pulse_queue_oldest_due_seconds:max)",
                        unit="s",
                        bad_above=60,
                    ),
                    number("Readings that wait", 'max(service_queue_name:pulse_queue_depth:max{queue_name="inbox"})'),
                    number(
                        "Notifications due", 'sum(max by (state, channel_kind) (pulse_notification_jobs{state="due"}))'
                    ),
                    number("Given up", "max(pulse_dead_letters)", bad_above=1, says="Neither redriven nor pruned."),
                    number("Evaluator behind", "max(pulse_evaluation_lag_seconds)", unit="s", bad_above=60),
                    number("Deaf listeners", 'sum(pulse_listener_state{state="deaf"})', bad_above=1),
                ],
            ),
            (
                "Queues",
                [
                    graph(
                        "Rows that wait",
                        Query("service_queue_name:pulse_queue_depth:max", "{{service}} {{queue_name}}"),
                    ),
                    graph(
                        "Oldest due row",
                        Query("service_queue_name:pulse_queue_oldest_due_seconds:max", "{{service}} {{queue_name}}"),
                        unit="s",
                        says="Time since a worker could have taken it.",
                    ),
                    graph(
                        "Oldest row",
                        Query(
                            "max by (service, queue_name) (pulse_queue_oldest_age_seconds)",
                            "{{service}} {{queue_name}}",
                        ),
                        unit="s",
                        says="Includes rows that wait for a retry.",
                    ),
                    graph(
                        "Device to arrival",
                        *snapshot_quantiles("pulse_ingest_lag_seconds", 0.5, 0.95),
                        unit="s",
                        says="By the devices' clocks; readings of the last 5 minutes.",
                    ),
                ],
            ),
            (
                "Workers",
                [
                    graph(
                        "Passes a second",
                        Query(
                            f"sum by ({STEP}) (rate(pulse_worker_passes_total{{{OF}}}[$__rate_interval]))",
                            "{{service}} {{operation}}",
                        ),
                        unit="cps",
                    ),
                    graph(
                        "Failed passes a second",
                        Query(
                            f"sum by ({STEP}) (rate(pulse_worker_failed_passes_total{{{OF}}}[$__rate_interval]))",
                            "{{service}} {{operation}}",
                        ),
                        unit="cps",
                    ),
                    graph(
                        "How long passes take",
                        *quantiles(PROCESSING, 0.95, of=OF, by=STEP, legend="{{service}} {{operation}}"),
                        unit="s",
                        says="95th percentile of the passes that found work.",
                    ),
                    graph(
                        "Rows a second",
                        Query(
                            f"sum by ({STEP}) (rate(pulse_worker_rows_per_pass_sum{{{OF}}}[$__rate_interval]))",
                            "{{service}} {{operation}}",
                        ),
                        unit="cps",
                    ),
                    graph(
                        "Since the last good pass",
                        Query(
                            f"min by ({STEP}) (pulse_worker_last_success_age_seconds{{{OF}}})",
                            "{{service}} {{operation}}",
                        ),
                        unit="s",
                    ),
                    graph(
                        "Listeners",
                        Query(f"sum by (service, state) (pulse_listener_state{{{OF}}})", "{{service}} {{state}}"),
                        Query(
                            f"sum by (service) (increase(pulse_listener_restarts_total{{{OF}}}[$__rate_interval]))",
                            "{{service}} restarts",
                        ),
                        says="A deaf listener receives nothing; its worker polls every second.",
                    ),
                    graph(
                        "Database connections",
                        Query(f"pulse_db_pool_size{{{OF}}}", "{{service}} {{instance}} open"),
                        Query(f"pulse_db_pool_free{{{OF}}}", "{{service}} {{instance}} free"),
                    ),
                ],
            ),
            (
                "Notifications",
                [
                    graph(
                        "Unfinished",
                        Query("max by (state, channel_kind) (pulse_notification_jobs)", "{{channel_kind}} {{state}}"),
                    ),
                    graph(
                        "Attempts within an hour",
                        Query("max by (outcome) (pulse_delivery_attempts_last_hour)", "{{outcome}}"),
                        says="The newest 10,000.",
                    ),
                    graph(
                        "Event to delivery, last hour",
                        *snapshot_quantiles("pulse_delivery_latency_seconds", 0.5, 0.95, 0.99),
                        unit="s",
                    ),
                    graph(
                        "Alerts open for more than a day", Query(f"{OPEN} - on (severity) {OPEN_A_DAY}", "{{severity}}")
                    ),
                ],
            ),
        ],
        instances=True,
    )
