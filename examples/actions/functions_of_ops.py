"""A function that rules may call; AUGURY_FUNCTIONS names this module."""

from __future__ import annotations

import sys
from pathlib import Path

import augury

RESULTS = Path("results")


@augury.function
def remember_result(call: augury.FunctionCall) -> None:
    """Keeps one file per result; called again for the same one, it changes nothing."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{call.id}.txt").write_text(f"{call.arguments['manifest']}\n")
    sys.stderr.write(f"result {call.id}, attempt {call.attempt}\n")
