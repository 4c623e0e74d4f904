"""The dashboard of the database and the exporter."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from deploy.grafana.panels import Query, dashboard, graph, number

LEFT_OUT = "count by (instance) (pulse_exporter_view_success == 0) or 0 * max by (instance) (pulse_exporter_up)"


def database() -> Dashboard:
    """Return the dashboard of the database."""
    return dashboard(
        "pulse-database",
        "Pulse / Database",
        "Size, sessions, partitions, vacuum, replication, and the cost of scraping.",
        [
            (
                "Now",
                [
                    number("Database is read", "max(pulse_exporter_up)", says="1: an exporter reads it."),
                    number("Size", "max(pulse_database_size_bytes)", unit="bytes"),
                    number("Connections in use", "pulse:database_connections:ratio", unit="percentunit", bad_above=0.8),
                    number(
                        "Oldest transaction",
                        "max(pulse_oldest_transaction_age_seconds)",
                        unit="s",
                        bad_above=1800,
                        says="Needs pg_read_all_stats for pulse_exporter.",
                    ),
                    number(
                        "NOTIFY queue", "max(pulse_notification_queue_usage_ratio)", unit="percentunit", bad_above=0.5
                    ),
                    number(
                        "Rows in default partitions",
                        "sum(max by (table_name) (pulse_default_partition_rows))",
                        bad_above=1,
                    ),
                ],
            ),
            (
                "Sessions",
                [
                    graph(
                        "Connections",
                        Query("max by (state) (pulse_database_connections)", "{{state}}"),
                        Query("max(pulse_database_connections_limit)", "limit"),
                    ),
                    graph("Oldest transaction", Query("max(pulse_oldest_transaction_age_seconds)", "age"), unit="s"),
                ],
            ),
            (
                "Tables",
                [
                    graph(
                        "Size", Query("max by (table_name) (pulse_table_size_bytes)", "{{table_name}}"), unit="bytes"
                    ),
                    graph("Dead rows", Query("max by (table_name) (pulse_table_dead_tuples)", "{{table_name}}")),
                    graph(
                        "Since the last vacuum",
                        Query("max by (table_name) (pulse_table_last_vacuum_age_seconds) < Inf", "{{table_name}}"),
                        unit="s",
                        says="Tables that were never vacuumed are not shown.",
                    ),
                    graph(
                        "Partitions ahead",
                        Query("min by (table_name) (pulse_partitions_ahead_seconds)", "{{table_name}}"),
                        unit="s",
                    ),
                    graph("Partitions", Query("max by (table_name) (pulse_partitions)", "{{table_name}}")),
                    graph(
                        "Rows in default partitions",
                        Query("max by (table_name) (pulse_default_partition_rows)", "{{table_name}}"),
                    ),
                ],
            ),
            (
                "Replication",
                [
                    graph("Standbys", Query("max(pulse_replication_standbys)", "connected")),
                    graph("Slowest standby is behind", Query("max(pulse_replication_lag_seconds)", "lag"), unit="s"),
                    graph("Log not replayed", Query("max(pulse_replication_lag_bytes)", "bytes"), unit="bytes"),
                    graph(
                        "Log kept for slots", Query("max(pulse_replication_slot_retained_bytes)", "bytes"), unit="bytes"
                    ),
                ],
            ),
            (
                "Cost of scraping",
                [
                    graph(
                        "One scrape",
                        Query("max by (instance) (pulse_exporter_scrape_duration_seconds)", "{{instance}}"),
                        unit="s",
                    ),
                    graph(
                        "Slowest views",
                        Query("topk(8, max by (view) (pulse_exporter_view_duration_seconds))", "{{view}}"),
                        unit="s",
                    ),
                    graph("Widest views", Query("topk(8, max by (view) (pulse_exporter_view_rows))", "{{view}}")),
                    graph("Views left out", Query(LEFT_OUT, "{{instance}}")),
                ],
            ),
        ],
        instances=False,
    )
