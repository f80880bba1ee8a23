"""Pipelines of scikit-learn fused into few passes over the input's columns.

`fuse` makes a `Fused` of a fitted estimator: scalers, imputers and encoders become elementwise
operations on single columns, and what follows them is a weighted sum (linear models) or the forest
kernel (trees). `native/fused.h` explains how it works, `benchmarks/README.md` how fast it is.

What is exact: every elementwise operation is rounded as scikit-learn rounds it, so pipelines that
end in trees are bit-equal. A linear model's sum is not: scikit-learn leaves its order to BLAS. Both
sums lie near the true one, so for each row and output, with z the features after encoding, w the
weights, b the offset and n the number of features,

    |margin - scikit-learn's margin| <= 2 g (|z_1 w_1| + ... + |z_n w_n| + |b|),
    g = (n + 1) u / (1 - (n + 1) u),  u = 2^-53,

whatever the order of either (Higham, Accuracy and Stability of Numerical Algorithms, 3.1).
"""

from augury.models.fused.kernel import FusedKernel, FusedModel
from augury.models.fused.model import (
    LINEAR,
    FusedForest,
    FusedLinear,
    fuse,
    known_texts,
    known_values,
)
from augury.models.fused.native import available, instructions, reason

__all__ = [
    "LINEAR",
    "FusedForest",
    "FusedKernel",
    "FusedLinear",
    "FusedModel",
    "available",
    "fuse",
    "instructions",
    "known_texts",
    "known_values",
    "reason",
]
