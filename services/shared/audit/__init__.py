"""The audit trail's writer: events from Python to audit_log, exactly once, never blocking who reports them."""

from services.shared.audit.event import AuditEvent
from services.shared.audit.logger import AuditLogger, Facts, open_audit_logger

__all__ = ["AuditEvent", "AuditLogger", "Facts", "open_audit_logger"]
