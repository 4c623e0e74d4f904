"""The audit trail's writer: events from Python to audit_log, exactly once, durable before who reports them goes on."""

from services.shared.audit.auth_events import Facts, device_account
from services.shared.audit.event import AuditEvent
from services.shared.audit.logger import AuditBlocked, AuditLogger, open_audit_logger

__all__ = ["AuditBlocked", "AuditEvent", "AuditLogger", "Facts", "device_account", "open_audit_logger"]
