from pathlib import Path

import pytest

from augury.errors import InvalidError
from augury.models.inputs import check_names, named_inputs, reconcile
from augury.models.signature import InputColumn, Signature, Task

PATH = Path("m.ubj")
NUMBER = InputColumn(name="a", type="double")
TEXT = InputColumn(name="c", type="string", categories=("x", "y"))
CODED = InputColumn(name="c", type="string")


def _sample(*columns: InputColumn) -> dict[str, InputColumn]:
    return {column.name: column for column in columns}


def test_a_models_own_names_win() -> None:
    assert named_inputs([NUMBER], 1, _sample(TEXT), PATH) == (NUMBER,)


def test_without_names_the_samples_columns_are_meant_in_their_order() -> None:
    b, a = InputColumn(name="b", type="float"), InputColumn(name="a", type="int32")
    assert named_inputs(None, 2, _sample(b, a), PATH) == (b, a)


def test_without_names_and_sample_they_are_numbered() -> None:
    assert [column.name for column in named_inputs(None, 3, None, PATH)] == ["f0", "f1", "f2"]


def test_a_sample_of_another_width_is_refused() -> None:
    with pytest.raises(InvalidError, match="its 3 inputs, and the sample has 1 columns"):
        named_inputs(None, 3, _sample(NUMBER), PATH)


def test_types_come_from_the_sample_and_other_columns_do_not_matter() -> None:
    seen = InputColumn(name="a", type="int16")
    extra = InputColumn(name="when", type="timestamp[us]")
    assert reconcile([NUMBER], _sample(extra, seen), PATH) == (seen,)


def test_categories_of_the_model_win_over_the_samples() -> None:
    other = InputColumn(name="c", type="string", categories=("y", "x", "z"))
    assert reconcile([TEXT], _sample(other), PATH) == (TEXT,)
    assert reconcile([CODED], _sample(other), PATH) == (other,)


@pytest.mark.parametrize(
    ("own", "seen", "expected"),
    [
        (NUMBER, TEXT, "a: not in the sample"),
        (NUMBER, InputColumn(name="a", type="string"), "a: expected numbers, found string"),
        (NUMBER, InputColumn(name="a", type="date32[day]"), "found date32"),
        (TEXT, InputColumn(name="c", type="double"), "c: expected text, found double"),
        (CODED, InputColumn(name="c", type="string"), "does not store its categories"),
        (CODED, None, "does not store its categories"),
    ],
)
def test_a_misfit_is_named(own: InputColumn, seen: InputColumn | None, expected: str) -> None:
    sample = None if seen is None else _sample(seen)
    with pytest.raises(InvalidError, match=expected):
        reconcile([own], sample, PATH)


def test_all_misfits_are_named_at_once() -> None:
    with pytest.raises(InvalidError) as caught:
        reconcile([NUMBER, CODED], {}, PATH)
    assert {fault.path for fault in caught.value.faults} == {"a", "c"}


def test_a_signature_must_have_the_models_inputs_in_their_order() -> None:
    signature = Signature(inputs=(NUMBER, TEXT), task=Task.REGRESSION)
    check_names(("a", "c"), 2, signature, PATH)
    check_names((), 2, signature, PATH)
    with pytest.raises(InvalidError, match="expected the inputs c, a"):
        check_names(("c", "a"), 2, signature, PATH)
    with pytest.raises(InvalidError, match="has 3 inputs, the signature 2"):
        check_names((), 3, signature, PATH)
