"""What a plan pins, and refusing to score where the pins do not hold.

Versions are read from the installed distributions, without importing them.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from typing import TYPE_CHECKING

from augury.errors import ConflictError, Fault
from augury.inference.plan import Pins, WriterSettings
from augury.models.backends import Verdict, library_name, pick, version

if TYPE_CHECKING:
    from augury.models.port import Model

_ALWAYS = ("augury", "numpy", "pyarrow")


def make_pins(flavor: str, verdict: Verdict, writer: WriterSettings) -> Pins:
    """The pins of a plan made here.

    Args:
        flavor: the model's.
        verdict: of its self-check.
        writer: how parts are written.
    """
    library = library_name(flavor)
    names = [*_ALWAYS, *([library] if library else [])]
    picked = pick(verdict, flavor)
    return Pins(
        backend=picked.backend,
        backend_reason=picked.reason,
        machine=platform.machine(),
        libraries={name: version(name) for name in names},
        writer=writer,
    )


def check_pins(pins: Pins, model: Model) -> None:
    """Refuses a plan whose bytes this process could not reproduce.

    Raises:
        ConflictError: naming every difference.
    """
    faults = list(_differences(pins, model))
    if faults:
        text = "; ".join(str(fault) for fault in faults)
        raise ConflictError(
            f"this worker cannot honour the plan's pins: {text}; run workers of one version, or "
            "start the run again so that it is planned anew",
            faults=text,
        )


def _differences(pins: Pins, model: Model) -> Iterator[Fault]:
    if pins.backend and model.backend != pins.backend:
        yield _difference("backend", pins.backend, model.backend)
    if platform.machine() != pins.machine:
        yield _difference("machine", pins.machine, platform.machine())
    for name, expected in pins.libraries.items():
        if version(name) != expected:
            yield _difference(name, expected, version(name))


def _difference(what: str, expected: str, found: str) -> Fault:
    return Fault(path=what, message=f"expected {expected}, found {found}")
