"""LightGBM's text files: what is read of them, and that no damaged one gets past the checks."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import pytest

from augury.errors import CorruptError
from augury.models.lightgbm_file import read_file

TREE_1 = """Tree=0
num_leaves=3
num_cat=1
split_feature=0 1
split_gain=3 2
threshold=0.5 0
decision_type=10 1
left_child=1 -1
right_child=-2 -3
leaf_value=0.25 -1 1e-3
leaf_weight=1 1 1
leaf_count=4 5 6
internal_value=0 0
internal_weight=0 0
internal_count=15 10
cat_boundaries=0 2
cat_threshold=5 1
is_linear=0
shrinkage=1


"""
TREE_2 = """Tree=1
num_leaves=1
num_cat=0
split_feature=
threshold=
decision_type=
left_child=
right_child=
leaf_value=0.125
shrinkage=0.1


"""
TAIL = """end of trees

feature_importances:
a=1

parameters:
[boosting: gbdt]
[categorical_feature: 1]

end of parameters

pandas_categorical:[["x", "y"]]
"""


@cache
def _text() -> str:
    head = [
        "tree", "version=v4", "num_class=1", "num_tree_per_iteration=1", "label_index=0",
        "max_feature_idx=1", "objective=binary sigmoid:1.5", "feature_names=a b",
        "feature_infos=[0:1] 0:1:33", f"tree_sizes={len(TREE_1)} {len(TREE_2)}", "", "",
    ]  # fmt: skip
    return "\n".join(head) + TREE_1 + TREE_2 + TAIL


def test_what_a_file_says_is_read() -> None:
    model = read_file(_text().encode())
    assert (model.num_features, model.num_outputs, model.names) == (2, 1, ("a", "b"))
    assert (model.objective, model.sigmoid, model.averages) == ("binary", 1.5, False)
    assert model.pandas_categories == (("x", "y"),)
    assert model.categorical == (1,)
    first, second = model.trees
    assert first.threshold.tolist() == [0.5, 0.0]
    assert first.left_child.tolist() == [1, -1]
    assert first.cat_threshold.tolist() == [5, 1]
    assert second.leaf_value.tolist() == [0.125]
    assert len(second.split_feature) == 0


DAMAGE = {
    "a child beyond": ("left_child=1 -1", "left_child=7 -1"),
    "a leaf beyond": ("right_child=-2 -3", "right_child=-2 -9"),
    "two parents": ("right_child=-2 -3", "right_child=-2 -1"),
    "a circle": ("left_child=1 -1", "left_child=0 -1"),
    "a feature beyond": ("split_feature=0 1", "split_feature=0 2"),
    "a negative feature": ("split_feature=0 1", "split_feature=-1 1"),
    "too few thresholds": ("threshold=0.5 0\n", "threshold=0.5\n"),
    "too many leaves": ("num_leaves=3", "num_leaves=4"),
    "no leaves": ("num_leaves=3", "num_leaves=0"),
    "no number": ("leaf_value=0.25", "leaf_value=0,25"),
    "a missing line": ("decision_type=10 1\n", ""),
    "an unknown split": ("decision_type=10 1", "decision_type=77 1"),
    "a set beyond": ("threshold=0.5 0\n", "threshold=0.5 1\n"),
    "half a set": ("threshold=0.5 0\n", "threshold=0.5 0.5\n"),
    "no set": ("threshold=0.5 0\n", "threshold=0.5 nan\n"),
    "sets beyond": ("cat_boundaries=0 2", "cat_boundaries=0 9"),
    "sets backwards": ("cat_boundaries=0 2", "cat_boundaries=2 0"),
    "a word too wide": ("cat_threshold=5 1", "cat_threshold=5 4294967296"),
    "more features": ("max_feature_idx=1", "max_feature_idx=5"),
    "negative features": ("max_feature_idx=1", "max_feature_idx=-2"),
    "no features": ("max_feature_idx=1\n", ""),
    "more outputs": ("num_tree_per_iteration=1", "num_tree_per_iteration=3"),
    "other sizes": ("tree_sizes=", "tree_sizes=9"),
    "fewer sizes": (f"tree_sizes={len(TREE_1)} ", "tree_sizes="),
    "other categories": ("pandas_categorical:[[", "pandas_categorical:[7, ["),
    "another first line": ("tree\nversion", "forest\nversion"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_does_not_fit_is_corrupt(name: str) -> None:
    before, after = DAMAGE[name]
    assert before in _text()
    damaged = _text().replace(before, after, 1)
    sizes = re.search(r"tree_sizes=(\d+) (\d+)", damaged)
    if sizes and "sizes" not in name:  # the sizes shall not be what is noticed
        change = len(after) - len(before)
        if before in TREE_1:
            fitting = f"tree_sizes={len(TREE_1) + change} {len(TREE_2)}"
            damaged = damaged.replace(sizes.group(0), fitting)
    with pytest.raises(CorruptError, match="LightGBM"):
        read_file(damaged.encode())


def test_no_truncation_gets_past_the_checks() -> None:
    raw = _text().encode()
    whole = len(raw) - len('\npandas_categorical:[["x", "y"]]\n')  # as other languages save it
    assert read_file(raw[:whole]).pandas_categories == ()
    for length in set(range(len(raw))) - {whole, whole + 1}:
        with pytest.raises(CorruptError):
            read_file(raw[:length])


def test_no_changed_byte_does_more_than_change_the_model_or_be_an_error() -> None:
    raw, rng = bytearray(_text().encode()), np.random.default_rng(0)
    for _ in range(1500):
        place = int(rng.integers(len(raw)))
        kept = raw[place]
        raw[place] = int(rng.choice(list(b"0123456789-. \n=e\xff\x00[")))
        try:
            model = read_file(bytes(raw))
        except CorruptError:
            pass
        else:
            for tree in model.trees:
                inner = len(tree.split_feature)
                assert all(0 <= feature < model.num_features for feature in tree.split_feature)
                assert all(-len(tree.leaf_value) <= c < inner for c in tree.left_child)
        raw[place] = kept
