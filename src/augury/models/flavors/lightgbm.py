"""LightGBM models in text form (`Booster.save_model`), through `Booster.predict`.

Nothing in such a file is code. The library is an extra (`augury[lightgbm]`): it is needed to
register a model, whose predictions the kernel's are compared with, and to score what the kernel
declines. Categorical columns are pandas' codes: the position among the categories that the file
stores; a value that is none of them is missing, as in the library.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from augury.errors import CorruptError, InvalidError
from augury.models.inputs import check_categories, check_names, named_inputs, reconcile
from augury.models.lightgbm_file import LightGBMFile, read_file
from augury.models.signature import Dtype, InputColumn, Signature, Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from augury.models.port import Kernel

_CLASSES = {"binary": Task.BINARY, "multiclass": Task.MULTICLASS, "multiclassova": Task.MULTICLASS}
# below this, threads wait for each other longer than they compute
_PARALLEL_ROWS = 8192


class LightGBMModel:
    """A booster ready to predict."""

    def __init__(self, booster: Any, signature: Signature, *, num_threads: int) -> None:
        import lightgbm

        self.signature = signature
        self.backend = f"lightgbm {lightgbm.__version__}"
        self._booster = booster
        self._num_threads = num_threads

    def predict(self, matrix: NDArray[Any]) -> NDArray[np.floating[Any]]:
        """One batch; see `Model.predict`. The native code releases the GIL."""
        import numpy as np

        if len(matrix) == 0:
            wide = self.signature.task is Task.MULTICLASS
            return np.empty((0, len(self.signature.classes)) if wide else 0, dtype=np.float64)
        threads = self._num_threads if len(matrix) >= _PARALLEL_ROWS else 1
        found: NDArray[np.float64] = self._booster.predict(matrix, num_threads=threads)
        return found


class LightGBMFlavor:
    """The format; see `Flavor`."""

    name = "lightgbm"
    trusted_only = False
    suffixes: ClassVar[tuple[str, ...]] = (".txt", ".lgb")

    def native_dtype(self, path: Path) -> Dtype:
        """See `Flavor.native_dtype`."""
        return "float64"

    def load(self, path: Path, signature: Signature, *, num_threads: int) -> LightGBMModel:
        """Loads a booster, after its file was checked: the library follows wrong indices."""
        import numpy as np

        raw = path.read_bytes()
        _check(_read(raw, path), signature, path)
        model = LightGBMModel(_booster(raw, path), signature, num_threads=num_threads)
        model.predict(np.zeros((1, signature.num_features)))
        return model

    def kernel(self, path: Path, signature: Signature) -> Kernel:
        """The trees, read without the library."""
        from augury.models.forest import ForestKernel, from_lightgbm

        model = _read(path.read_bytes(), path)
        _check(model, signature, path)
        return ForestKernel(from_lightgbm(model))

    def infer(self, path: Path, sample: Mapping[str, InputColumn] | None = None) -> Signature:
        """Names and categories as the file stores them, types narrowed by the sample."""
        model = _read(path.read_bytes(), path)
        inputs = named_inputs(_inputs(model, path), model.num_features, sample, path)
        task = _task(model, path)
        signature = Signature(
            inputs=reconcile(inputs, sample, path),
            task=task,
            classes=tuple(range(_num_classes(model))),
            dtype="float64",
        )
        signature.check()
        return signature


FLAVOR = LightGBMFlavor()


def _read(raw: bytes, path: Path) -> LightGBMFile:
    try:
        return read_file(raw)
    except CorruptError as error:
        raise CorruptError(f"model {path}: {error}") from error


def _booster(raw: bytes, path: Path) -> Any:
    try:
        import lightgbm
    except ImportError as error:
        raise InvalidError(
            f"model {path}: expected the package lightgbm, which is not installed; install it with "
            "`pip install 'augury[lightgbm]'`"
        ) from error
    try:
        return lightgbm.Booster(model_str=raw.decode())
    except (lightgbm.basic.LightGBMError, ValueError) as error:
        raise CorruptError(f"model {path} cannot be loaded by LightGBM: {error}") from error


def _inputs(model: LightGBMFile, path: Path) -> list[InputColumn] | None:
    """Columns, if the model knows their names.

    Raises:
        InvalidError: it stores categories, and it cannot be told of which columns.
    """
    if not _tells_categories(model):
        raise InvalidError(
            f"model {path} stores the categories of {len(model.pandas_categories)} columns, but "
            f"has {len(model.categorical)} categorical ones, so it cannot be told whose they are; "
            "give a signature that lists them"
        )
    return _own(model)


def _tells_categories(model: LightGBMFile) -> bool:
    """The stored categories are in the order of the categorical columns, if that is all of them."""
    return len(model.pandas_categories) in {0, len(model.categorical)}


def _own(model: LightGBMFile) -> list[InputColumn] | None:
    """Columns as the file has them; None: the names are made up (`Column_0`, `Column_1`, ...)."""
    made_up = [f"Column_{number}" for number in range(model.num_features)]
    stored = model.pandas_categories if _tells_categories(model) else ()
    categories = dict(zip(model.categorical, stored, strict=False))
    if list(model.names) == made_up and not categories:
        return None
    return [_column(name, categories.get(number)) for number, name in enumerate(model.names)]


def _column(name: str, categories: tuple[Any, ...] | None) -> InputColumn:
    if categories is None:
        return InputColumn(name=name, type="double")
    kind = "string" if all(isinstance(value, str) for value in categories) else "int64"
    return InputColumn(name=name, type=kind, categories=categories)


def _task(model: LightGBMFile, path: Path) -> Task:
    if any(tree.is_linear for tree in model.trees):  # their lines cannot all be checked beforehand
        raise InvalidError(
            f"model {path}: its leaves are linear models, which are not scored; train without "
            "`linear_tree`"
        )
    task = _CLASSES.get(model.objective, Task.REGRESSION)
    if task is not Task.MULTICLASS and model.num_outputs != 1:
        raise InvalidError(
            f"model {path}: expected one output a row, found {model.num_outputs} (objective "
            f"{model.objective or 'of your own'}); train one model for each target"
        )
    return task


def _num_classes(model: LightGBMFile) -> int:
    task = _CLASSES.get(model.objective, Task.REGRESSION)
    return {Task.BINARY: 2, Task.MULTICLASS: model.num_outputs}.get(task, 0)


def _check(model: LightGBMFile, signature: Signature, path: Path) -> None:
    """An explicit signature must fit the model."""
    own = _own(model)
    names = tuple(column.name for column in own or ())
    check_names(names, model.num_features, signature, path)
    expected = (_task(model, path), _num_classes(model))
    if (signature.task, len(signature.classes)) != expected:
        raise InvalidError(
            f"model {path}: the signature says {signature.task} with {len(signature.classes)} "
            f"classes, the model is {expected[0]} with {expected[1]} ({model.objective})"
        )
    check_categories(own or (), signature, path)
