"""One root for every error that Augury raises on purpose.

Each class carries a stable `code` (what programs compare), a message that names what was expected,
what was found and what to do (what people read), and `attributes` (what logs and the API show).
HTTP status codes are `api/errors.py`'s business, exit codes the CLI's: this module knows neither.

    AuguryError
    ├── InvalidError        the input is wrong; carries every fault found, not only the first
    │   ├── ContractError   data and model signature do not fit
    │   ├── BadRowError     a row breaks what the job expects, and may not be rejected
    │   ├── PatternError    a rule's pattern says something that no pattern may
    │   └── UnsupportedError  a model that no kernel of Augury's scores; its library does
    ├── UnauthorizedError   whoever asks did not prove who they are
    ├── NotFoundError       a named thing does not exist
    ├── ConflictError       the thing exists in a state that forbids this
    ├── UnavailableError    a service or store did not answer; trying again may help
    ├── IdentityError       an object is not the one that was planned
    ├── CorruptError        bytes that cannot be what they claim to be
    ├── LimitError          a stated limit was reached (run time, memory, size)
    │   └── RejectLimitError  more rows were rejected than the job allows
    ├── ConservationError   rows were lost or doubled: a law of the design is broken
    └── LostLeaseError      the caller no longer owns the work it is reporting on
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing wrong with an input.

    Attributes:
        path: where, as a dotted path or JSON path; empty for the whole input.
        message: what was expected and what was found.
        line: 1-based line in the source text, if there is one.
    """

    path: str
    message: str
    line: int | None = None

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line is not None else ""
        return f"{where}{self.path}: {self.message}" if self.path else f"{where}{self.message}"


class AuguryError(Exception):
    """Root of all errors raised on purpose."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str, /, **attributes: object) -> None:
        super().__init__(message)
        self.message = message
        self.attributes = attributes


class InvalidError(AuguryError):
    """The input is wrong. `faults` lists everything wrong with it, in the order of the input."""

    code = "invalid"

    def __init__(self, message: str, /, faults: Sequence[Fault] = (), **attributes: object) -> None:
        self.faults = tuple(faults)
        text = "; ".join(str(fault) for fault in self.faults)
        super().__init__(f"{message}: {text}" if text else message, **attributes)


class UnsupportedError(InvalidError):
    """No kernel of Augury's scores this model, its own library does; `reason` says why."""

    code = "unsupported"

    def __init__(self, reason: str) -> None:
        super().__init__(f"not supported by Augury's kernels because {reason}", reason=reason)
        self.reason = reason


class UnauthorizedError(AuguryError):
    """Whoever asks did not prove who they are: a signature or token is missing or wrong."""

    code = "unauthorized"


class NotFoundError(AuguryError):
    """A named thing does not exist."""

    code = "not_found"


class ConflictError(AuguryError):
    """The thing exists in a state that forbids what was asked."""

    code = "conflict"


class UnavailableError(AuguryError):
    """A service or store did not answer; trying again may help."""

    code = "unavailable"


class ContractError(InvalidError):
    """Data and model signature do not fit; `faults` names every column."""

    code = "contract"


class BadRowError(InvalidError):
    """A row breaks what the job expects of it, and the job does not reject such rows."""

    code = "bad_row"


class PatternError(InvalidError):
    """A pattern says something that its dialect does not allow; `faults` names every place.

    Each fault's `path` is the JSON path (`$.data.key[0].prefix`), its message says what is allowed
    and what was found.
    """

    code = "pattern"


class IdentityError(AuguryError):
    """An object is not the one that was planned; attributes `expected` and `found` name both."""

    code = "identity"


class CorruptError(AuguryError):
    """Bytes that cannot be what they claim to be."""

    code = "corrupt"


class LimitError(AuguryError):
    """A stated limit was reached (run time, memory, size)."""

    code = "limit"


class RejectLimitError(LimitError):
    """More rows were rejected than the job's `max_rejected` allows; the first ones are named."""

    code = "max_rejected"


class ConservationError(AuguryError):
    """Rows went in that did not come out, or the reverse; nothing is committed."""

    code = "conservation"


class LostLeaseError(AuguryError):
    """The caller no longer owns the work it is reporting on; its report changes nothing."""

    code = "lost_lease"
