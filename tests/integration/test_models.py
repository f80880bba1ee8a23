"""The registry and the cache over real databases, files and processes."""

from __future__ import annotations

import json
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from filelock import FileLock

from augury.errors import ConflictError, CorruptError, InvalidError, NotFoundError
from augury.models import cache as cache_module
from augury.models import registry
from augury.models.backends import judge, pick
from augury.models.cache import ModelCache
from augury.models.flavors import get_flavor
from augury.models.registry import ModelVersion
from augury.models.signature import Signature, Task
from augury.resources.store import Change
from augury.settings import Settings
from augury.storage.database import Database
from augury.storage.objects import ObjectStore, open_store
from augury.storage.tables import model_versions, outbox


@pytest.fixture
def store(settings: Settings) -> ObjectStore:
    return open_store(settings.effective_store_url, settings)


def _booster(path: Path, seed: int = 0) -> Path:
    import xgboost

    rng = np.random.default_rng(seed)
    features = rng.normal(size=(200, 3))
    matrix = xgboost.DMatrix(features, features[:, 0] > 0, feature_names=["a", "b", "c"])
    xgboost.train({"nthread": 1, "objective": "binary:logistic"}, matrix, 2).save_model(path)
    return path


def _pickled(path: Path) -> Path:
    from sklearn.linear_model import LinearRegression

    rng = np.random.default_rng(0)
    path.write_bytes(pickle.dumps(LinearRegression().fit(rng.normal(size=(50, 2)), range(50))))
    return path


def _events(database: Database) -> list[dict[str, Any]]:
    with database.read() as connection:
        bodies = connection.scalars(sa.select(outbox.c.body).order_by(outbox.c.id)).all()
    return [json.loads(body) for body in bodies]


def _move(database: Database, name: str, alias: str, version: int) -> Change:
    return database.transact(lambda c: registry.set_alias(database, c, name, alias, version))


def test_registering_is_idempotent_by_content(
    database: Database, store: ObjectStore, tmp_path: Path
) -> None:
    path = _booster(tmp_path / "m.ubj")
    first, change = registry.register(
        database, store, name="m", path=path, alias="champion", description="words"
    )
    assert (change, first.version, first.flavor) == (Change.CREATED, 1, "xgboost")
    assert first.signature.task is Task.BINARY
    assert store.read(f"models/{first.digest}.ubj") == path.read_bytes()

    again, change = registry.register(database, store, name="m", path=path, alias="champion")
    assert (again, change) == (first, Change.UNCHANGED)
    moved, change = registry.register(database, store, name="m", path=path, alias="other")
    assert (moved, change) == (first, Change.UPDATED)
    second, change = registry.register(
        database, store, name="m", path=_booster(tmp_path / "n.ubj", seed=1), alias="champion"
    )
    assert (change, second.version) == (Change.CREATED, 2)
    with database.read() as connection:
        assert registry.aliases(connection, "m") == {"champion": 2, "other": 1}
        assert registry.list_versions(connection, "m") == [first, second]


def test_the_verdict_of_the_self_check_is_kept_and_found_anew(
    sqlite_database: Database, store: ObjectStore, tmp_path: Path
) -> None:
    path = _booster(tmp_path / "m.ubj")
    first, _ = registry.register(sqlite_database, store, name="m", path=path)
    assert first.verdict == judge(get_flavor("xgboost"), path, first.signature)
    old = sa.update(model_versions).values(backend="augury forest 0", backend_reason="")
    sqlite_database.transact(lambda connection: connection.execute(old))
    with sqlite_database.read() as connection:
        stale = registry.resolve(connection, "m@1")
    picked = pick(stale.verdict, "xgboost")
    assert picked.backend.startswith("xgboost ")
    assert "checked for augury forest 0" in picked.reason
    again, change = registry.register(sqlite_database, store, name="m", path=path)
    assert (again, change) == (first, Change.UNCHANGED)
    with sqlite_database.read() as connection:
        assert registry.resolve(connection, "m@1") == first


def test_each_change_emits_its_event_once(
    database: Database, store: ObjectStore, tmp_path: Path
) -> None:
    path = _booster(tmp_path / "m.ubj")
    for _ in range(2):
        version, _ = registry.register(database, store, name="m", path=path, alias="champion")
    assert _move(database, "m", "champion", 1) is Change.UNCHANGED
    database.transact(lambda connection: registry.delete(database, connection, "m"))
    registered, moved, gone, deleted = _events(database)
    assert registered["type"] == "augury.model.registered"
    assert registered["data"] == {
        "name": "m", "version": 1, "digest": version.digest, "flavor": "xgboost",
    }  # fmt: skip
    assert moved["type"] == "augury.model.alias_moved"
    assert moved["data"] == {"name": "m", "alias": "champion", "version": 1, "previous": None}
    assert gone["type"] == "augury.model.alias_deleted"
    assert gone["data"] == {"name": "m", "alias": "champion", "version": 1}
    assert (deleted["type"], deleted["data"]) == ("augury.model.deleted", {"name": "m"})
    assert {event["subject"] for event in (registered, moved, gone, deleted)} == {"models/m"}


def test_an_alias_that_comes_back_is_told_again(
    database: Database, store: ObjectStore, tmp_path: Path
) -> None:
    for seed in range(2):
        path = _booster(tmp_path / f"{seed}.ubj", seed)
        registry.register(database, store, name="m", path=path)
    changes = [_move(database, "m", "champion", version) for version in (1, 2, 1)]
    assert changes == [Change.CREATED, Change.UPDATED, Change.UPDATED]
    moves = [event["data"] for event in _events(database) if "alias" in event["type"]]
    assert [(move["previous"], move["version"]) for move in moves] == [(None, 1), (1, 2), (2, 1)]


def test_registering_at_once_makes_one_version(
    database: Database, store: ObjectStore, tmp_path: Path
) -> None:
    path = _booster(tmp_path / "m.ubj")
    together = threading.Barrier(6)

    def register(_: int) -> tuple[ModelVersion, Change]:
        together.wait(timeout=60)
        return registry.register(database, store, name="m", path=path, alias="champion")

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(register, range(6)))
    assert {version.version for version, _ in found} == {1}
    assert sorted(change for _, change in found) == [Change.CREATED] + [Change.UNCHANGED] * 5
    with database.read() as connection:
        assert len(registry.list_versions(connection, "m")) == 1
    assert len(_events(database)) == 2


def test_different_files_at_once_make_each_a_version(
    database: Database, store: ObjectStore, tmp_path: Path
) -> None:
    paths = [_booster(tmp_path / f"{seed}.ubj", seed) for seed in range(5)]
    with ThreadPoolExecutor(5) as pool:
        found = list(
            pool.map(lambda path: registry.register(database, store, name="m", path=path), paths)
        )
    assert sorted(version.version for version, _ in found) == [1, 2, 3, 4, 5]


def test_references_are_resolved(
    sqlite_database: Database, store: ObjectStore, tmp_path: Path
) -> None:
    database = sqlite_database
    versions = [
        registry.register(database, store, name="m", path=_booster(tmp_path / f"{s}.ubj", s))[0]
        for s in range(3)
    ]
    registry.register(database, store, name="another", path=_booster(tmp_path / "0.ubj"))
    _move(database, "m", "champion", 2)
    with database.read() as connection:
        assert registry.resolve(connection, "m") == versions[2]
        assert registry.resolve(connection, "m@1") == versions[0]
        assert registry.resolve(connection, "m@champion") == versions[1]
        assert [v.name for v in registry.list_models(connection)] == ["another", "m"]
        assert [v.version for v in registry.list_models(connection, limit=1)] == [1]
        assert registry.list_models(connection, after="another") == [versions[2]]
        with pytest.raises(NotFoundError, match=r"no version or alias '9'; versions: 1 to 3; "):
            registry.resolve(connection, "m@9")
        with pytest.raises(NotFoundError, match=r"'x'; .*aliases: champion \(2\)"):
            registry.resolve(connection, "m@x")
        with pytest.raises(NotFoundError, match="no model named 'n'; there are: another, m"):
            registry.resolve(connection, "n@champion")
    with pytest.raises(NotFoundError, match="no version or alias '7'"):
        _move(database, "m", "champion", 7)


def test_a_pickle_needs_trust_and_is_not_opened_without(
    sqlite_database: Database, store: ObjectStore, tmp_path: Path
) -> None:
    marker = tmp_path / "opened"

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (marker,))

    (tmp_path / "trap.pkl").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(InvalidError, match="--trust"):
        registry.register(sqlite_database, store, name="m", path=tmp_path / "trap.pkl")
    assert not marker.exists()
    path = _pickled(tmp_path / "m.pkl")
    version, _ = registry.register(sqlite_database, store, name="m", path=path, trust=True)
    assert (version.trusted, version.signature.dtype) == (True, "float64")


@pytest.mark.parametrize(
    ("changes", "error", "expected"),
    [
        ({"name": "a@b"}, InvalidError, "expected a model name"),
        ({"alias": "3"}, InvalidError, "starts with a letter"),
        ({"flavor": "tarot"}, InvalidError, "no model flavor 'tarot'; expected one of: xgboost"),
        ({"path": "none.ubj"}, NotFoundError, "no model file"),
        ({"path": "."}, InvalidError, "found a folder"),
        ({"path": "m.bin"}, InvalidError, r"'.bin' belongs to no model flavor; known: .ubj"),
        ({"path": "short.ubj"}, CorruptError, "damaged"),
        ({"sample": "none.parquet"}, NotFoundError, "no sample file"),
        ({"signature": {"task": "binary"}}, InvalidError, "inputs: expected a list"),
    ],
)
def test_bad_input_is_refused_and_leaves_nothing(
    sqlite_database: Database,
    store: ObjectStore,
    tmp_path: Path,
    changes: dict[str, Any],
    error: type[Exception],
    expected: str,
) -> None:
    good = _booster(tmp_path / "m.ubj").read_bytes()
    (tmp_path / "m.bin").write_bytes(good)
    (tmp_path / "short.ubj").write_bytes(good[: len(good) // 2])
    arguments = {"name": "m", "path": "m.ubj", **changes}
    for key in ("path", "sample"):
        if key in arguments:
            arguments[key] = tmp_path / arguments[key]
    with pytest.raises(error, match=expected):
        registry.register(sqlite_database, store, **arguments)
    with sqlite_database.read() as connection:
        assert registry.list_models(connection) == []
    assert list(store.list()) == []


def test_a_given_signature_counts_and_versions_do_not_change(
    sqlite_database: Database, store: ObjectStore, tmp_path: Path
) -> None:
    path = _booster(tmp_path / "m.ubj")
    document = {
        "inputs": [{"name": name, "type": "float"} for name in ("a", "b", "c")],
        "task": "binary",
        "classes": ["on time", "late"],
    }
    version, _ = registry.register(sqlite_database, store, name="m", path=path, signature=document)
    assert version.signature.classes == ("on time", "late")
    same, change = registry.register(sqlite_database, store, name="m", path=path)
    assert (same, change) == (version, Change.UNCHANGED)
    with pytest.raises(ConflictError, match="m@1 with another signature"):
        registry.register(
            sqlite_database,
            store,
            name="m",
            path=path,
            signature=Signature.from_json({**document, "classes": [0, 1]}),
        )


# --- the cache ------------------------------------------------------------------------------------


@pytest.fixture
def version(sqlite_database: Database, store: ObjectStore, tmp_path: Path) -> ModelVersion:
    path = _booster(tmp_path / "m.ubj")
    return registry.register(sqlite_database, store, name="m", path=path)[0]


def _load(cache: ModelCache, version: ModelVersion, **changes: Any) -> Any:
    arguments = {
        "digest": version.digest,
        "uri": version.uri,
        "flavor": version.flavor,
        "signature": version.signature,
        "num_threads": 1,
    }
    return cache.load(**{**arguments, **changes})


def _cached(folder: Path) -> Path:
    (path,) = (folder / "models").glob("*.ubj")
    return path


def test_a_model_is_pulled_once_a_host_and_loaded_once_a_process(
    settings: Settings, store: ObjectStore, version: ModelVersion, tmp_path: Path
) -> None:
    cache = ModelCache(tmp_path / "cache", settings)
    model = _load(cache, version)
    assert model.predict(np.zeros((2, 3), np.float32)).shape == (2,)
    assert _load(cache, version) is model
    store.delete(f"models/{version.digest}.ubj")
    assert _load(ModelCache(tmp_path / "cache", settings), version) is not model
    with pytest.raises(NotFoundError):
        _load(ModelCache(tmp_path / "elsewhere", settings), version)


def test_threads_that_want_one_model_load_it_once(
    settings: Settings, version: ModelVersion, tmp_path: Path
) -> None:
    cache = ModelCache(tmp_path / "cache", settings)
    with ThreadPoolExecutor(6) as pool:
        models = list(pool.map(lambda _: _load(cache, version), range(6)))
    assert len({id(model) for model in models}) == 1


def test_a_damaged_file_is_pulled_again(
    settings: Settings, version: ModelVersion, tmp_path: Path
) -> None:
    _load(ModelCache(tmp_path / "cache", settings), version)
    path = _cached(tmp_path / "cache")
    good = path.read_bytes()
    for bad in (b"", good[:100], good[:-1] + b"x"):
        path.write_bytes(bad)
        _load(ModelCache(tmp_path / "cache", settings), version)
        assert path.read_bytes() == good


def test_other_content_in_the_store_is_refused_and_not_kept(
    settings: Settings, store: ObjectStore, version: ModelVersion, tmp_path: Path
) -> None:
    store.put(f"models/{version.digest}.ubj", b"something else", overwrite=True)
    with pytest.raises(CorruptError, match=f"expected SHA-256 {version.digest}, found"):
        _load(ModelCache(tmp_path / "cache", settings), version)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.suffix != ".lock"
                and path.is_file()]  # fmt: skip


def test_the_model_used_longest_ago_leaves_memory(
    settings: Settings, version: ModelVersion, tmp_path: Path
) -> None:
    cache = ModelCache(tmp_path / "cache", settings, most_loaded=2)
    one, two = (_load(cache, version, num_threads=n) for n in (1, 2))
    assert _load(cache, version, num_threads=1) is one
    _load(cache, version, num_threads=3)
    assert _load(cache, version, num_threads=1) is one
    assert _load(cache, version, num_threads=2) is not two


def test_who_holds_the_lock_for_too_long_is_named(
    settings: Settings, version: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from augury.errors import UnavailableError

    monkeypatch.setattr(cache_module, "_PULL_S", 0.05)
    (tmp_path / "cache" / "models").mkdir(parents=True)
    held = FileLock(tmp_path / "cache" / "models" / f"{version.digest}.lock", is_singleton=False)
    with held, pytest.raises(UnavailableError, match="another process has been pulling"):
        _load(ModelCache(tmp_path / "cache", settings), version)


def test_no_model_survives_without_its_row(
    sqlite_database: Database, version: ModelVersion
) -> None:
    sqlite_database.transact(lambda c: registry.delete(sqlite_database, c, version.name))
    with sqlite_database.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(model_versions)) == 0
        with pytest.raises(NotFoundError):
            registry.resolve(connection, version.name)
    with pytest.raises(NotFoundError):
        sqlite_database.transact(lambda c: registry.delete(sqlite_database, c, version.name))
