"""The dashboard of the audit trail, refused requests and attacks."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from deploy.grafana.panels import Query, dashboard, graph, number, quantiles

EVENTS = "pulse_audit_events"
OF = 'job=~"$job", instance=~"$instance"'


def audit_and_auth() -> Dashboard:
    """Return the dashboard of the audit trail and authentication."""
    return dashboard(
        "pulse-audit-and-auth",
        "Pulse / Audit and auth",
        "Writing, sealing and retention of the audit trail; refused requests and attacks.",
        [
            (
                "Now",
                [
                    number(
                        "Log broken",
                        "max(pulse_audit_log_broken)",
                        bad_above=1,
                        says="1: the stored rows contradict a signed checkpoint.",
                    ),
                    number("Seal lag", "max(pulse_audit_seal_lag_seconds)", unit="s", bad_above=60),
                    number("Tables unguarded", "max(pulse_tracked_tables_unguarded)", bad_above=1),
                    number("Records of losses, last day", "max(pulse_audit_gaps_last_day)", bad_above=1),
                    number("Attacks going on", "sum(max by (kind) (pulse_attack_findings_open))", bad_above=1),
                    number("Legal holds", "max(pulse_audit_holds)"),
                ],
            ),
            (
                "Writing",
                [
                    graph(
                        "Events kept a second",
                        Query(
                            f"sum by (buffer) (rate(pulse_audit_events_written_total{{{OF}}}[$__rate_interval]))",
                            "{{buffer}}",
                        ),
                        unit="cps",
                        says="Events written by processes. Events that SQL functions write are not included.",
                    ),
                    graph(
                        "Events lost",
                        Query(
                            f"sum by (buffer) (increase(pulse_audit_events_dropped_total{{{OF}}}[$__rate_interval]))",
                            "{{buffer}} lost",
                        ),
                        Query(
                            f"sum by (job) (increase(pulse_audit_events_blocked_total{{{OF}}}[$__rate_interval]))",
                            "{{job}} blocked",
                        ),
                        Query(
                            f"sum by (buffer) (increase({EVENTS}_quarantined_total{{{OF}}}[$__rate_interval]))",
                            "{{buffer}} quarantined",
                        ),
                    ),
                    graph(
                        "How long an event waits",
                        *quantiles("pulse_audit_record_wait_seconds", 0.5, 0.99, of=OF, exemplars=False),
                        unit="s",
                        says="Until the event is durable. Callers wait for that.",
                    ),
                    graph(
                        "Events not durable yet",
                        Query(f"sum by (buffer) (pulse_audit_buffer_events{{{OF}}})", "{{buffer}}"),
                    ),
                    graph(
                        "Spool",
                        Query(f"pulse_audit_spool_bytes{{{OF}}}", "{{instance}}"),
                        unit="bytes",
                        says="Events on the local disk that wait for the database.",
                    ),
                    graph(
                        "Spooled and drained",
                        Query(f"sum(rate(pulse_audit_events_spooled_total{{{OF}}}[$__rate_interval]))", "spooled"),
                        Query(f"sum(rate(pulse_audit_events_drained_total{{{OF}}}[$__rate_interval]))", "drained"),
                        unit="cps",
                    ),
                ],
            ),
            (
                "Sealing and keeping",
                [
                    graph(
                        "Seal lag",
                        Query("max(pulse_audit_seal_lag_seconds)", "age of the oldest event that is not sealed"),
                        unit="s",
                    ),
                    graph(
                        "Sealed a second",
                        Query("max(rate(pulse_audit_sealed_events_total[$__rate_interval]))", "events"),
                        Query("max(rate(pulse_audit_sealed_blocks_total[$__rate_interval]))", "blocks"),
                        unit="cps",
                    ),
                    graph("Events in the trail", Query("max(pulse_audit_rows)", "events")),
                    graph(
                        "Months past their retention",
                        Query("max by (reason) (pulse_audit_retention_overdue_months)", "{{reason}}"),
                        says="held: a legal hold; due: the next pass drops it.",
                    ),
                    graph(
                        "Since the last retention pass",
                        Query("max(pulse_audit_retention_last_run_age_seconds)", "age"),
                        unit="s",
                    ),
                ],
            ),
            (
                "Refused requests",
                [
                    graph(
                        "Refused a second",
                        Query(
                            f"sum by (reason) (rate(pulse_auth_failures_total{{{OF}}}[$__rate_interval]))", "{{reason}}"
                        ),
                        unit="cps",
                        says="Counted by the processes.",
                    ),
                    graph(
                        "On record within an hour",
                        Query("max by (reason) (pulse_auth_failures_last_hour)", "{{reason}}"),
                        says="Counted in the audit trail.",
                    ),
                    graph("Attacks going on", Query("max by (kind) (pulse_attack_findings_open)", "{{kind}}")),
                    graph(
                        "Attacks found within a day",
                        Query("max by (kind) (pulse_attack_findings_last_day)", "{{kind}}"),
                    ),
                ],
            ),
        ],
        instances=True,
    )
