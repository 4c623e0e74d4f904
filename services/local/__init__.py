"""The one-machine default: an embedded Postgres, a supervisor of all processes, and a demo.

It is for trying Pulse and developing it. In production an operator's own Postgres and process manager take its place;
the commands in services/cli work there without it.
"""
