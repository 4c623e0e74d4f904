"""Connections to Postgres: what a URL means, which host is tried, what each session relies on, what an error means."""
