"""Connections to Postgres: URLs, hosts, TLS, settings of a session, and the meaning of errors."""
