"""The kernel against a plain walk down the trees, over random ensembles and awkward values."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from augury.errors import ContractError, CorruptError, UnsupportedError
from augury.models.forest import Forest, available
from augury.models.forest.ensemble import (
    CATEGORICAL,
    MISSING_RIGHT,
    OTHER_RIGHT,
    Ensemble,
    Tree,
)

pytestmark = pytest.mark.skipif(not available(), reason="the forest kernel was not built")

AWKWARD = np.array(
    [0.0, -0.0, 1.0, -1.0, 5e-324, -5e-324, 1e-45, -1e-45, 1e300, -1e300, 3e38, -3e38, np.inf,
     -np.inf, np.nan, 0.1, np.float32(0.1), 254.0, 255.0, 3.5]
)  # fmt: skip


def _grow(rng: Any, num_features: int, num_leaves: int, compare: str, kind: dict[str, Any]) -> Tree:
    """A random tree: leaves are split until there are enough."""
    left, right, feature, threshold, flags = [-1], [-1], [0], [0.0], [0]
    categories: dict[int, list[int]] = {}
    leaves = [0]
    while len(leaves) < num_leaves:
        # the newest leaf makes chains, any leaf makes bushes
        node = leaves.pop(-1 if rng.random() < kind["chain"] else int(rng.integers(len(leaves))))
        left[node], right[node] = len(left), len(left) + 1
        feature[node] = int(rng.integers(num_features))
        threshold[node] = float(rng.choice(kind["thresholds"]))
        flags[node] = int(rng.integers(2)) * MISSING_RIGHT
        if kind["categorical"] and feature[node] % 2:
            flags[node] |= CATEGORICAL | int(rng.integers(2)) * OTHER_RIGHT
            categories[node] = [int(word) for word in rng.integers(0, 2**32, 8)]
        leaves += [len(left), len(left) + 1]
        for array, value in ((left, -1), (right, -1), (feature, 0), (threshold, 0.0), (flags, 0)):
            array += [value, value]
    thresholds = np.array(threshold)
    if compare == "float32":
        with np.errstate(over="ignore", under="ignore"):
            thresholds = thresholds.astype(np.float32).astype(np.float64)
    return Tree(
        left=np.array(left, dtype=np.int32),
        right=np.array(right, dtype=np.int32),
        feature=np.array(feature, dtype=np.int32),
        threshold=thresholds,
        flags=np.array(flags, dtype=np.uint8),
        value=rng.normal(size=(len(left), kind["width"])).astype(np.float32).astype(np.float64),
        output=int(rng.integers(kind["outputs"])),
        categories=categories or None,
    )


def _ensemble(seed: int, compare: str, accumulate: str, **kind: Any) -> Ensemble:
    rng = np.random.default_rng(seed)
    num_features = int(rng.integers(1, 12))
    pool = np.concatenate([rng.normal(size=kind.pop("pool", 400)), AWKWARD])
    kind = {"chain": 0.0, "categorical": False, "width": 1, "outputs": 1, **kind}
    kind["thresholds"] = pool
    sizes = rng.integers(1, kind.pop("leaves", 60) + 1, kind.pop("trees", 12))
    return Ensemble(
        trees=[_grow(rng, num_features, int(size), compare, kind) for size in sizes],
        num_features=num_features,
        num_outputs=kind["outputs"],
        compare=compare,  # type: ignore[arg-type]
        accumulate=accumulate,  # type: ignore[arg-type]
        initial=rng.normal(size=kind["outputs"]).astype(np.float32).astype(np.float64),
        width=kind["width"],
    )


def _goes_right(tree: Tree, node: int, value: float) -> bool:
    flags = int(tree.flags[node])
    if np.isnan(value):
        return bool(flags & MISSING_RIGHT)
    if not flags & CATEGORICAL:
        return bool(value >= tree.threshold[node])
    assert tree.categories is not None
    if not 0 <= value < 255:
        return bool(flags & OTHER_RIGHT)
    return bool(tree.categories[node][int(value) // 32] >> (int(value) % 32) & 1)


def _walk(ensemble: Ensemble, matrix: Any) -> Any:
    """What the kernel should say."""
    with np.errstate(over="ignore", under="ignore"):
        values = matrix.astype(ensemble.compare)
    sums = np.tile(ensemble.initial.astype(ensemble.accumulate), (len(matrix), 1))
    for number, row in enumerate(values):
        for tree in ensemble.trees:
            node = 0
            while tree.left[node] >= 0:
                right = _goes_right(tree, node, row[tree.feature[node]])
                node = int((tree.right if right else tree.left)[node])
            added = tree.value[node].astype(ensemble.accumulate)
            if ensemble.width == 1:
                sums[number, tree.output] += added[0]
            else:
                sums[number] += added
    return sums


def _rows(ensemble: Ensemble, seed: int, num_rows: int, dtype: str) -> Any:
    """Values at, beside and between the thresholds."""
    rng = np.random.default_rng(seed)
    known = np.concatenate(
        [tree.threshold for tree in ensemble.trees] + [AWKWARD, np.arange(260.0)]
    )
    with np.errstate(over="ignore", under="ignore"):
        values = rng.choice(known, (num_rows, ensemble.num_features)).astype(dtype)
        beside = np.nextafter(values, values.dtype.type(rng.choice([-np.inf, np.inf])))
    return np.where(rng.random(values.shape) < 0.5, values, beside)


def _same(found: Any, expected: Any) -> bool:
    return found.dtype == expected.dtype and found.tobytes() == expected.tobytes()


def _forest(ensemble: Ensemble, instructions: str = "AVX-512") -> Forest:
    return Forest(ensemble, lambda margins: margins, instructions=instructions)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32),
    compare=st.sampled_from(["float32", "float64"]),
    accumulate=st.sampled_from(["float32", "float64"]),
    dtype=st.sampled_from(["float32", "float64"]),
    instructions=st.sampled_from(["baseline", "AVX-512"]),
    leaves=st.sampled_from([1, 2, 7, 40, 300]),
    chain=st.sampled_from([0.0, 0.6, 1.0]),
    categorical=st.booleans(),
    pool=st.sampled_from([3, 40, 2000]),
)
def test_every_bit_is_that_of_a_plain_walk(
    seed: int, compare: str, accumulate: str, dtype: str, instructions: str, leaves: int,
    chain: float, categorical: bool, pool: int,
) -> None:  # fmt: skip
    ensemble = _ensemble(
        seed, compare, accumulate, leaves=leaves, chain=chain, categorical=categorical, pool=pool,
        trees=5,
    )  # fmt: skip
    matrix = _rows(ensemble, seed, 60, dtype)
    found = _forest(ensemble, instructions).predict_margin(matrix)
    assert _same(found, _walk(ensemble, matrix))


@pytest.mark.parametrize("width", [1, 3])
def test_several_outputs(width: int) -> None:
    for leaves in (20, 700):
        ensemble = _ensemble(3, "float32", "float64", leaves=leaves, outputs=3, width=width)
        matrix = _rows(ensemble, 4, 700, "float32")
        assert _same(_forest(ensemble).predict_margin(matrix), _walk(ensemble, matrix))


def test_many_thresholds_of_one_feature_take_several_lanes_and_groups() -> None:
    ensemble = _ensemble(5, "float32", "float32", leaves=250, pool=30000, trees=300)
    forest = _forest(ensemble)
    assert forest.describe()["num_groups"] > 1
    matrix = _rows(ensemble, 6, 60, "float32")
    assert _same(forest.predict_margin(matrix), _walk(ensemble, matrix))


@pytest.mark.parametrize("leaves", [40, 900])
def test_no_bit_depends_on_the_batch(leaves: int) -> None:
    ensemble = _ensemble(7, "float32", "float32", leaves=leaves)
    forest = _forest(ensemble)
    matrix = _rows(ensemble, 8, 5000, "float32")
    whole = forest.predict_margin(matrix)
    rng = np.random.default_rng(9)
    cuts = np.sort(rng.choice(5000, 30, replace=False))
    parts = [forest.predict_margin(part) for part in np.split(matrix, cuts)]
    assert _same(np.concatenate(parts), whole)
    assert _same(forest.predict_margin(matrix[::-1])[::-1], whole)
    assert _same(forest.predict_margin(np.asfortranarray(matrix)), whole)
    assert _same(forest.predict_margin(np.repeat(matrix, 2, axis=1)[:, ::2]), whole)


def test_matrices_of_every_form_are_taken() -> None:
    ensemble = _ensemble(15, "float32", "float32", leaves=300)
    forest = _forest(ensemble)
    matrix = np.random.default_rng(16).integers(-(2**62), 2**62, (500, ensemble.num_features))
    matrix[::2] %= 4
    whole = forest.predict_margin(matrix.astype(np.float32))
    assert _same(forest.predict_margin(matrix), whole)
    swapped = matrix.astype(np.float32).astype(">f4")
    assert _same(forest.predict_margin(swapped), whole)
    fields = [(f"f{number}", "<f4") for number in range(ensemble.num_features)]
    packed = np.zeros(500, dtype=[("odd", "i1"), *fields])  # values are not aligned
    for name, column in zip(fields, matrix.T, strict=True):
        packed[name[0]] = column
    view = np.ndarray(matrix.shape, "<f4", packed.tobytes(), offset=1, strides=(packed.itemsize, 4))
    assert _same(forest.predict_margin(view), whole)
    one_row = np.broadcast_to(matrix[:1].astype(np.float32), matrix.shape)
    assert _same(forest.predict_margin(one_row), np.repeat(whole[:1], 500, axis=0))


def test_threads_share_rows_and_forests() -> None:
    ensemble = _ensemble(10, "float32", "float32", leaves=900)
    forest = _forest(ensemble)
    matrix = _rows(ensemble, 11, 30000, "float32")
    whole = forest.predict_margin(matrix)
    assert _same(forest.predict_margin(matrix, num_threads=3), whole)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: forest.predict_margin(matrix[:3000]), range(40)))
    assert all(_same(one, whole[:3000]) for one in found)


def test_the_output_is_where_it_was_asked_for() -> None:
    ensemble = _ensemble(12, "float32", "float32")
    forest = _forest(ensemble)
    matrix = _rows(ensemble, 13, 300, "float32")
    out = np.full((300, 1), np.nan, dtype=np.float32)
    assert forest.predict_margin(matrix, out) is out
    assert _same(out, forest.predict_margin(matrix))
    assert forest.predict_margin(matrix[:0]).shape == (0, 1)
    with pytest.raises(ContractError, match="expected an output"):
        forest.predict_margin(matrix, out.astype(np.float64))
    with pytest.raises(ContractError, match="expected a matrix of"):
        forest.predict_margin(np.zeros((3, ensemble.num_features + 1)))


def test_what_the_library_refuses_is_refused() -> None:
    ensemble = _ensemble(14, "float32", "float32")
    forest = Forest(ensemble, lambda margins: margins, refuses=3)
    matrix = np.zeros((5000, ensemble.num_features))
    forest.predict(matrix)
    for value in (np.nan, np.inf, 1e300):  # the last is infinite as a float32
        matrix[4321, 0] = value
        with pytest.raises(ContractError, match="column 0"):
            forest.predict(matrix)
    matrix[4321, 0] = np.nan
    Forest(ensemble, lambda margins: margins, refuses=2).predict(matrix)


def _broken(**changes: Any) -> Ensemble:
    arrays = {
        "left": [1, -1, -1], "right": [2, -1, -1], "feature": [0, 0, 0],
        "threshold": [0.0, 0.0, 0.0], "flags": [0, 0, 0], "value": [[0.0], [1.0], [2.0]],
    } | changes  # fmt: skip
    types = {"threshold": np.float64, "flags": np.uint8, "value": np.float64}
    tree = Tree(**{name: np.array(a, types.get(name, np.int32)) for name, a in arrays.items()})
    return Ensemble(
        trees=[tree], num_features=1, num_outputs=1, compare="float32", accumulate="float32",
        initial=np.zeros(1),
    )  # fmt: skip


def test_arrays_that_are_no_tree_are_refused() -> None:
    _forest(_broken())
    for changes in (
        {"left": [3, -1, -1]},
        {"right": [-1, -1, -1]},
        {"left": [0, -1, -1]},
        {"right": [1, -1, -1], "left": [1, 1, -1]},
        {"feature": [1, 0, 0]},
        {"feature": [-1, 0, 0]},
    ):
        with pytest.raises(CorruptError):
            _forest(_broken(**changes))


def test_no_trees_is_not_supported() -> None:
    ensemble = Ensemble(
        trees=[], num_features=1, num_outputs=1, compare="float32", accumulate="float32",
        initial=np.zeros(1),
    )  # fmt: skip
    with pytest.raises(UnsupportedError, match="because it has no trees"):
        _forest(ensemble)
