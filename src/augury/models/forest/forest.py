"""A forest ready to score: compiled trees, and what follows their sums."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augury.errors import ContractError, Fault
from augury.models.forest.ensemble import Ensemble
from augury.models.forest.native import INSTRUCTIONS, Compiled, library

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from augury.models.lightgbm_file import LightGBMFile

# fewer rows a thread are not worth starting one
_ROWS_A_THREAD = 4096
# threads share the rows in whole superblocks of the kernel
_ROWS_UNIT = 4096


class Forest:
    """A tree ensemble compiled to native code.

    Every bit of a row's prediction depends on that row only, any number of threads may predict at
    once, and the GIL is released while the kernel runs.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        finish: Callable[[Any], Any],
        *,
        refuses: int = 0,
        instructions: str = INSTRUCTIONS[-1],
    ) -> None:
        """Compiles the trees.

        Args:
            ensemble: the trees; kept, as `verify` needs their thresholds.
            finish: from margins to predictions; may overwrite the margins.
            refuses: what the input must not hold: 1 for NaN, 2 for infinite values, 3 for both.
            instructions: use no better instruction set than this one.

        Raises:
            UnsupportedError: the kernel is not there, or the ensemble is not for it.
            CorruptError: the arrays are no trees.
        """
        self.ensemble = ensemble
        self.num_features = ensemble.num_features
        self.num_outputs = ensemble.num_outputs
        self._compiled = Compiled(ensemble, instructions=instructions)
        self._finish = finish
        self.refuses = refuses

    def describe(self) -> dict[str, int]:
        """Numbers about the compiled form, for people and tests."""
        return self._compiled.describe()

    def predict_margin(
        self, matrix: NDArray[Any], out: NDArray[Any] | None = None, *, num_threads: int = 1
    ) -> NDArray[np.floating[Any]]:
        """The sums of the leaves' values, equal in every bit to the library's.

        Args:
            matrix: `(num_rows, num_features)`, float32 or float64 in any memory order; NaN is
                missing. Other types are converted first. Values are rounded as the library rounds.
            out: `(num_rows, num_outputs)`, C-contiguous, of the ensemble's `accumulate` type;
                overwritten and returned.
            num_threads: rows are shared among so many threads, if there are enough of them.

        Raises:
            ContractError: the matrix has another number of columns, or holds what the library
                refuses.
        """
        import numpy as np

        matrix = self._checked(matrix)
        if out is None:
            out = np.empty((len(matrix), self.num_outputs), dtype=self._compiled.dtype)
        _check_out(out, (len(matrix), self.num_outputs), self._compiled.dtype)
        if len(matrix) == 0:
            return out
        num_threads = max(1, min(num_threads, len(matrix) // _ROWS_A_THREAD))
        if num_threads == 1:
            self._compiled.predict(matrix, out)
        else:
            self._in_threads(matrix, out, num_threads)
        return out

    def predict(self, matrix: NDArray[Any], *, num_threads: int = 1) -> NDArray[Any]:
        """Predictions in the form of `models.port.Model.predict`.

        Raises:
            ContractError: see `predict_margin`.
        """
        predictions: NDArray[Any] = self._finish(
            self.predict_margin(matrix, num_threads=num_threads)
        )
        return predictions

    def _checked(self, matrix: NDArray[Any]) -> NDArray[Any]:
        import numpy as np

        if matrix.ndim != 2 or matrix.shape[1] != self.num_features:
            raise ContractError(
                f"expected a matrix of {self.num_features} columns, found {matrix.shape}"
            )
        if matrix.dtype not in (np.float32, np.float64) or not matrix.dtype.isnative:
            matrix = matrix.astype(self.ensemble.compare)  # one rounding, as the library does
        if not matrix.flags.aligned or any(step % matrix.itemsize for step in matrix.strides):
            matrix = np.ascontiguousarray(matrix)
        if self.refuses:
            if self.ensemble.compare == "float32":
                with np.errstate(over="ignore"):  # becomes infinite, and is refused below
                    matrix = np.ascontiguousarray(matrix, dtype=np.float32)
            self._refuse(np.ascontiguousarray(matrix))
        return matrix

    def _refuse(self, matrix: NDArray[Any]) -> None:
        """Raises if there is what the library would refuse."""
        import numpy as np

        find = library().forest_find_float
        if matrix.dtype == np.float64:
            find = library().forest_find_double
        if not find(matrix.ctypes.data, matrix.size) & self.refuses:
            return
        bad = np.isinf(matrix)
        if self.refuses & 1:
            bad |= np.isnan(matrix)
        faults = [
            Fault(path=f"column {column}", message="has missing or infinite values")
            for column in np.flatnonzero(bad.any(axis=0))
        ]
        raise ContractError("the model takes finite values only", faults)

    def _in_threads(self, matrix: NDArray[Any], out: NDArray[Any], num_threads: int) -> None:
        """Each thread scores a run of rows into its part of `out`."""
        share = -(-len(matrix) // num_threads)
        share = -(-share // _ROWS_UNIT) * _ROWS_UNIT
        failures: list[Exception] = []

        def score(first: int) -> None:
            try:
                self._compiled.predict(matrix[first : first + share], out[first : first + share])
            except Exception as error:  # raised again by the thread that waits
                failures.append(error)

        threads = [
            threading.Thread(target=score, args=(first,), daemon=True)
            for first in range(share, len(matrix), share)
        ]
        for thread in threads:
            thread.start()
        score(0)
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]


def _check_out(out: NDArray[Any], shape: tuple[int, int], dtype: str) -> None:
    if out.shape != shape or out.dtype.name != dtype or not out.flags.c_contiguous:
        raise ContractError(
            f"expected an output of {shape} {dtype} in C order, found {out.shape} {out.dtype.name}"
        )


def load_xgboost(source: str | Path | bytes, *, instructions: str = INSTRUCTIONS[-1]) -> Forest:
    """A forest from an XGBoost model in JSON or UBJSON form; the library is not imported.

    Args:
        source: the file, or its bytes.
        instructions: use no better instruction set than this one.

    Raises:
        UnsupportedError: the kernel does not score this model, and why.
        CorruptError: no XGBoost model.
    """
    from augury.models.forest.finish import FINISHES
    from augury.models.forest.xgboost_trees import read_xgboost

    ensemble, link = read_xgboost(source)
    return Forest(ensemble, FINISHES[link], instructions=instructions)


def from_lightgbm(model: LightGBMFile, *, instructions: str = INSTRUCTIONS[-1]) -> Forest:
    """A forest from a LightGBM model file that was read; the library is not imported.

    Args:
        model: as `lightgbm_file.read_file` gives it.
        instructions: use no better instruction set than this one.

    Raises:
        UnsupportedError: the kernel does not score this model, and why.
    """
    from augury.models.forest.lightgbm_trees import read_lightgbm

    ensemble, finish = read_lightgbm(model)
    return Forest(ensemble, finish, instructions=instructions)


def from_sklearn(
    estimator: Any, *, encoded: bool = False, instructions: str = INSTRUCTIONS[-1]
) -> Forest:
    """A forest from a fitted tree, RandomForest, ExtraTrees or (Hist)GradientBoosting.

    Args:
        estimator: classifier or regressor.
        encoded: the forest gets what the estimator's own preprocessor makes of its input.
        instructions: use no better instruction set than this one.

    Raises:
        UnsupportedError: the kernel does not score this estimator, and why.
    """
    from augury.models.forest.sklearn_trees import read_sklearn

    ensemble, finish, refuses = read_sklearn(estimator, encoded=encoded)
    return Forest(ensemble, finish, refuses=refuses, instructions=instructions)
