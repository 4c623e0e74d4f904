"""Every command of `pulse audit`: a module that is imported here adds its own."""

from services.cli.audit import continuing, declaring, export, holds, keys, prove, tail, verify
from services.cli.audit.app import app

__all__ = ["app", "continuing", "declaring", "export", "holds", "keys", "prove", "tail", "verify"]
