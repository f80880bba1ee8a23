"""Applying documents on both databases: idempotent, whole, with models from files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
import xgboost

from augury.engine import Engine
from augury.engine.declarative import ApplyResult
from augury.errors import CorruptError, InvalidError, NotFoundError
from augury.models.registry import aliases, list_versions
from augury.resources.documents import parse_document
from augury.resources.store import Kind, get, listed
from augury.rules.ruleset import active_version
from augury.settings import Settings
from augury.storage import tables

_RULE = "{name: r, pattern: {type: [a.b]}, actions: [{start_run: {job: j}}]}"
_JOB = "{name: j, model: m@champion, output: out/}"


@pytest.fixture
def engine(live_settings: Settings) -> Iterator[Engine]:
    with Engine(live_settings) as found:
        yield found


def _train(path: Path, *, seed: int) -> None:
    matrix = np.random.default_rng(seed).standard_normal((50, 2), dtype=np.float32)
    data = xgboost.DMatrix(matrix, matrix[:, 0] > 0, feature_names=["a", "b"])
    xgboost.train({"objective": "binary:logistic", "nthread": 1}, data, 2).save_model(path)


def _apply(engine: Engine, base: Path, text: str, *, dry_run: bool = False) -> ApplyResult:
    return engine.apply(parse_document(text, origin="a.yaml", base=base), dry_run=dry_run)


def _changes(result: ApplyResult) -> Sequence[tuple[str, str, int]]:
    return [(item.kind, item.change.value, item.version) for item in result.items]


def test_a_model_is_registered_once_per_content(engine: Engine, tmp_path: Path) -> None:
    text = f"models: [{{name: m, path: m.ubj, alias: champion}}]\njobs: [{_JOB}]\n"
    _train(tmp_path / "m.ubj", seed=1)
    foreseen = _apply(engine, tmp_path, text, dry_run=True)
    assert _changes(foreseen) == [("model", "created", 1), ("job", "created", 1)]
    assert foreseen.warnings == ()
    with engine.database.read() as connection, pytest.raises(NotFoundError):
        list_versions(connection, "m")
    assert _changes(_apply(engine, tmp_path, text)) == _changes(foreseen)
    again = _apply(engine, tmp_path, text)
    assert _changes(again) == [("model", "unchanged", 1), ("job", "unchanged", 1)]
    _train(tmp_path / "m.ubj", seed=2)
    assert _changes(_apply(engine, tmp_path, text, dry_run=True))[0] == ("model", "created", 2)
    assert _changes(_apply(engine, tmp_path, text))[0] == ("model", "created", 2)
    with engine.database.read() as connection:
        assert aliases(connection, "m") == {"champion": 2}


def test_a_damaged_model_is_named_with_its_line(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "m.ubj").write_bytes(b"{not a model")
    with pytest.raises((CorruptError, InvalidError), match=r"line 3: models\.m"):
        _apply(engine, tmp_path, "models:\n- name: m\n  path: m.ubj\n")


def test_one_fault_refuses_all(engine: Engine, tmp_path: Path) -> None:
    text = (
        f"jobs: [{_JOB}]\nrules:\n- {_RULE}\n- {{name: bad, pattern: {{type: x}}, actions: []}}\n"
    )
    with pytest.raises(InvalidError) as caught:
        _apply(engine, tmp_path, text)
    assert {fault.line for fault in caught.value.faults} == {4}
    with engine.database.read() as connection:
        assert listed(connection, Kind.JOB) == []
        assert active_version(connection) == 0
        assert connection.scalar(sa.select(sa.func.count()).select_from(tables.outbox)) == 0


def test_the_same_name_twice_is_refused(engine: Engine, tmp_path: Path) -> None:
    entries = parse_document(f"jobs: [{_JOB}]", origin="a.yaml", base=tmp_path)
    entries += parse_document(f"jobs: [{_JOB}]", origin="b.yaml", base=tmp_path)
    with pytest.raises(InvalidError, match=r"a second time, the first is in line 1 of a\.yaml"):
        engine.apply(entries)


def test_a_dry_run_leaves_no_trace(engine: Engine, tmp_path: Path) -> None:
    foreseen = _apply(engine, tmp_path, f"rules: [{_RULE}]", dry_run=True)
    assert _changes(foreseen) == [("rule", "created", 1)]
    assert "'j', which does not exist" in foreseen.warnings[0]
    with engine.database.read() as connection:
        assert active_version(connection) == 0
    assert engine.bus.status().length == 0


def test_warnings_see_what_the_same_document_makes(engine: Engine, tmp_path: Path) -> None:
    _train(tmp_path / "m.ubj", seed=1)
    text = (
        f"models: [{{name: m, path: m.ubj, alias: champion}}]\njobs: [{_JOB}]\nrules: [{_RULE}]\n"
    )
    assert _apply(engine, tmp_path, text).warnings == ()


def test_switching_keeps_the_rest(engine: Engine, tmp_path: Path) -> None:
    _apply(engine, tmp_path, f"rules: [{_RULE}]")
    engine.enable(Kind.RULE, "r", enabled=False)
    with engine.database.read() as connection:
        rule = get(connection, Kind.RULE, "r")
    assert (rule.enabled, rule.version, rule.spec["pattern"]) == (False, 2, {"type": ["a.b"]})
    with pytest.raises(NotFoundError):
        engine.enable(Kind.RULE, "nobody", enabled=True)
    assert engine.put(Kind.JOB, "k", {"model": "m", "output": "s3://b/"}).change == "created"
    with pytest.raises(InvalidError, match="name"):
        engine.put(Kind.JOB, "a b", {})
    engine.delete(Kind.RULE, "r")
    with pytest.raises(NotFoundError):
        engine.delete(Kind.RULE, "r")
