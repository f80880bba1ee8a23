"""Imports that the first shard would otherwise have to wait for, as short as they can be made.

XGBoost imports scikit-learn and pandas if it finds them, which takes three times as long as all the
rest and gives nothing to a worker that predicts from arrays. So it is imported while those two seem
not to be there, and only if a model needs it: Augury's own kernel scores most of them without. A
pickled scikit-learn pipeline may hold XGBoost's estimators, which are only whole with scikit-learn:
before such a model is loaded, XGBoost is imported anew.
"""

from __future__ import annotations

import importlib
import sys

_HEAVY = ("sklearn", "pandas")
_lean: list[str] = []


def warm_up() -> None:
    """Imports what most shards need. Idempotent; takes a second or two of CPU the first time."""
    for name in ("augury.inference.planning", "augury.inference.score", "augury.models.cache"):
        importlib.import_module(name)
    forest = importlib.import_module("augury.models.forest")
    if not forest.available():
        import_xgboost()


def import_xgboost() -> None:
    """Imports XGBoost, without what it takes along. Idempotent."""
    if "xgboost" not in sys.modules and not any(name in sys.modules for name in _HEAVY):
        _import_lean()


def _import_lean() -> None:
    for name in _HEAVY:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        importlib.import_module("xgboost")
        _lean.append("xgboost")
    finally:
        for name in _HEAVY:
            sys.modules.pop(name, None)


def complete() -> None:
    """Makes XGBoost whole; boosters that are loaded already go on working. Idempotent."""
    if not _lean:
        return
    _lean.clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "xgboost"]:
        del sys.modules[name]
    importlib.import_module("xgboost")
