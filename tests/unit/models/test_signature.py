import json
from typing import Any

import pytest

from augury.errors import InvalidError
from augury.models.signature import InputColumn, Signature, Task, type_name

A = {"name": "a", "type": "double"}
TEXT = {"name": "c", "type": "string", "categories": ["x", "y"]}


def _document(**changes: Any) -> dict[str, Any]:
    return {"inputs": [A, TEXT], "task": "binary", "classes": [0, 1], **changes}


def _faults(document: Any) -> list[str]:
    with pytest.raises(InvalidError) as caught:
        Signature.from_json(document)
    return [str(fault) for fault in caught.value.faults]


def test_a_signature_survives_json() -> None:
    signature = Signature(
        inputs=(
            InputColumn(name="a", type="float"),
            InputColumn(name="b", type="bool"),
            InputColumn(name="c", type="string", categories=("x", "ü")),
            InputColumn(name="d", type="int32", categories=(10, 20)),
        ),
        task=Task.MULTICLASS,
        classes=("no", "yes", "maybe"),
        dtype="float64",
    )
    text = json.dumps(signature.to_json())
    assert Signature.from_json(json.loads(text)) == signature
    assert signature.names == ("a", "b", "c", "d")
    assert signature.num_features == 4


@pytest.mark.parametrize("classes", [[0, 1], [False, True], ["a", "b"], [0.5, 1.5]])
def test_classes_keep_their_type(classes: list[Any]) -> None:
    found = Signature.from_json(json.loads(json.dumps(_document(classes=classes)))).classes
    assert [(type(value), value) for value in found] == [(type(v), v) for v in classes]


def test_precision_is_the_documents_or_the_default() -> None:
    assert Signature.from_json(_document()).dtype == "float32"
    assert Signature.from_json(_document(), dtype="float64").dtype == "float64"
    assert Signature.from_json(_document(dtype="float32"), dtype="float64").dtype == "float32"


@pytest.mark.parametrize(
    ("given", "arrow"), [("float32", "float"), ("str", "string"), ("int8", "int8")]
)
def test_types_go_by_arrows_name(given: str, arrow: str) -> None:
    assert type_name(given) == arrow
    column = {"name": "a", "type": given}
    if arrow == "string":
        column = {**column, "categories": ["x"]}  # type: ignore[dict-item]
    assert Signature.from_json(_document(inputs=[column])).inputs[0].type == arrow


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"task": "guess"}, "task: expected regression or binary or multiclass, found 'guess'"),
        ({"inputs": []}, "at least one column"),
        ({"inputs": [A, A]}, "a column of this name comes before"),
        ({"inputs": [{"name": "a", "type": "date32[day]"}]}, "found 'date32[day]'"),
        ({"inputs": [{"name": "", "type": "double"}]}, "expected a name"),
        ({"inputs": [{"name": "a", "type": "string"}]}, "needs categories; found none"),
        ({"inputs": [{**TEXT, "categories": []}]}, "at least one category"),
        ({"inputs": [{**TEXT, "categories": ["x", "x"]}]}, "a category comes twice"),
        ({"inputs": [{**TEXT, "categories": ["x", 1]}]}, "categories of a string column"),
        ({"inputs": [{**A, "categories": ["x"]}]}, "a double column cannot have categories"),
        ({"classes": [0]}, "expected two for a binary task, found [0]"),
        ({"task": "regression"}, "expected none for a regression"),
        ({"task": "multiclass", "classes": [1]}, "two or more"),
        ({"classes": [0, "1"]}, "values of one type"),
        ({"classes": [1, 1]}, "each class once"),
        ({"classes": [[0], [1]]}, "strings, integers, bools or floats"),
        ({"dtype": "float16"}, "dtype: expected float32 or float64, found 'float16'"),
    ],
)
def test_each_fault_is_named(changes: dict[str, Any], expected: str) -> None:
    assert any(expected in fault for fault in _faults(_document(**changes)))


def test_faults_of_form_are_named_all_at_once() -> None:
    faults = _faults({"inputs": [3, {"nam": "a", "categories": 7}], "classes": 5, "kind": "x"})
    for expected in ("kind: unknown", "task:", "classes:", "inputs[0]:", "inputs[1].nam: unknown",
                     "inputs[1].name:", "inputs[1].type:", "inputs[1].categories:"):  # fmt: skip
        assert any(expected in fault for fault in faults), expected


@pytest.mark.parametrize("document", [None, [], "x", {"task": "regression", "inputs": "a"}])
def test_what_is_no_document_is_refused(document: Any) -> None:
    assert _faults(document)
