"""Functions as a user would register them; AUGURY_FUNCTIONS names this module."""

from __future__ import annotations

import threading

import augury
from augury.errors import InvalidError

CALLS: list[augury.FunctionCall] = []
RELEASE = threading.Event()


@augury.function
def remember(call: augury.FunctionCall) -> None:
    CALLS.append(call)


@augury.function("flaky-name")
def flaky(call: augury.FunctionCall) -> None:
    CALLS.append(call)
    if call.attempt < 3:
        raise RuntimeError("not yet")


@augury.function
def refuse(call: augury.FunctionCall) -> None:
    raise InvalidError("no such customer")


@augury.function
def hang(call: augury.FunctionCall) -> None:
    CALLS.append(call)
    RELEASE.wait(30)
