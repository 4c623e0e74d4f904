"""Every command of `pulse audit`: a module that is imported here adds its own."""

from services.local.audit import continuing, export, holds, keys, prove, tail, verify
from services.local.audit.app import app

__all__ = ["app", "continuing", "export", "holds", "keys", "prove", "tail", "verify"]
