"""Augury's own tree-ensemble kernel: the libraries' predictions bit for bit, several times faster.

`load_xgboost`, `from_lightgbm` and `from_sklearn` make a `Forest`; `verify` compares one with its
library.
`native/forest.h` explains how it works, `benchmarks/README.md` says how fast it is.
"""

from augury.models.forest.check import Mismatch, samples, verify
from augury.models.forest.forest import Forest, from_lightgbm, from_sklearn, load_xgboost
from augury.models.forest.model import FOREST, ForestKernel, ForestModel
from augury.models.forest.native import available, instructions, reason

__all__ = [
    "FOREST",
    "Forest",
    "ForestKernel",
    "ForestModel",
    "Mismatch",
    "available",
    "from_lightgbm",
    "from_sklearn",
    "instructions",
    "load_xgboost",
    "reason",
    "samples",
    "verify",
]
