"""`augury audit`: are both conservation laws kept? Answered from evidence, not from counters.

`audit` takes a cut of the running system and compares the ledger with what lies outside its own
bookkeeping: the entries of the stream, the rules run again over the stored events, the bytes and
footers of the files. Every check is one entry of `CHECKS`, and a section of docs/audit.md.
"""

from augury.monitoring.audit.auditor import CHECKS, audit
from augury.monitoring.audit.incidents import acknowledge
from augury.monitoring.audit.report import (
    AuditReport,
    Cut,
    Incident,
    InFlight,
    RuleBalance,
    Unknown,
    Violation,
)

__all__ = [
    "CHECKS",
    "AuditReport",
    "Cut",
    "InFlight",
    "Incident",
    "RuleBalance",
    "Unknown",
    "Violation",
    "acknowledge",
    "audit",
]
