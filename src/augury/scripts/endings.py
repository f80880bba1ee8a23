r"""How an attempt ended, in words and as a failure with its code; pure.

The texts of `lifecycle_details` are OCI's where OCI has one: its SDK finds the exit code with
`exit code (\\d+)`.
"""

from __future__ import annotations

from augury.jobs.reports import Failure
from augury.jobs.script_spec import ScriptSpec
from augury.scripts.process import Ended

_FAILED = "Job run artifact execution failed"
_SIZES = ("bytes", "KiB", "MiB", "GiB", "TiB")


def failure_of(ended: Ended, spec: ScriptSpec) -> Failure | None:
    """Why an attempt failed; None if it succeeded.

    A limit that was passed would be passed again, so that is permanent; everything else may be
    tried again if the job asks for that.
    """
    if ended.error is not None:
        message = f"{_FAILED}: it cannot be started: {ended.error}."
        return Failure(code="not_started", message=message, is_permanent=True)
    if ended.why in _LIMITS:
        message = f"{_FAILED}: {_limit_text(ended, spec)}."
        return Failure(code=ended.why, message=message, is_permanent=True)
    if ended.why == "stopped":
        message = f"{_FAILED}: the worker was stopped."
        return Failure(code="worker_stopped", message=message, is_permanent=False)
    if ended.signal is not None:
        message = f"{_FAILED}: ended by signal {ended.signal}."
        return Failure(code="signal", message=message, is_permanent=False)
    if ended.exit_code != 0:
        message = f"{_FAILED} with exit code {ended.exit_code}."
        return Failure(code="exit_code", message=message, is_permanent=False)
    return None


_LIMITS = frozenset({"maximum_runtime", "out_of_memory", "out_of_storage", "too_many_processes"})


def _limit_text(ended: Ended, spec: ScriptSpec) -> str:
    if ended.why == "maximum_runtime":
        return f"maximum runtime of {spec.maximum_runtime_s:g} s exceeded"
    if ended.why == "out_of_memory":
        limit, peak = shown_size(spec.shape.memory), shown_size(ended.peak_memory_bytes)
        return f"out of memory: limit {limit}, peak {peak}"
    if ended.why == "out_of_storage":
        limit, found = shown_size(spec.block_storage), shown_size(ended.found)
        return f"out of block storage: limit {limit}, found {found}"
    return f"too many processes: found {ended.found}"


def shown_size(size_bytes: int) -> str:
    """Bytes in the largest unit that gives at least 1."""
    value, unit = float(size_bytes), 0
    while value >= 1024 and unit < len(_SIZES) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.4g} {_SIZES[unit]}"
