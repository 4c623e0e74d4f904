"""All commands of `pulse audit`. Each module imported here adds its own to the group."""

from services.cli.audit import continuing, declaring, export, holds, keys, prove, tail, verify
from services.cli.audit.app import app

__all__ = ["app", "continuing", "declaring", "export", "holds", "keys", "prove", "tail", "verify"]
