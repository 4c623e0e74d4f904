"""Every command of `pulse audit`: a module that is imported here adds its own."""

from services.local.audit import continuing, declaring, export, holds, keys, prove, tail, verify
from services.local.audit.app import app

__all__ = ["app", "continuing", "declaring", "export", "holds", "keys", "prove", "tail", "verify"]
