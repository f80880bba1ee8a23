"""Scoring when something is wrong: the error says what, and nothing is left behind."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet as pq
from scoring_world import Sums, Version, nothing, numbers, regression, write

from augury import clock
from augury.errors import (
    ConflictError,
    CorruptError,
    IdentityError,
    InvalidError,
    LimitError,
    UnavailableError,
)
from augury.inference.plan import Plan, ShardSpec
from augury.inference.planning import plan_run
from augury.inference.score import score_shard
from augury.jobs.spec import JobSpec
from augury.settings import Settings
from augury.storage.objects import ObjectStore, open_store

SIGNATURE = regression("a", "b")


class World:
    """One input file, planned as one shard, and an output."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.settings = settings
        self.path = write(folder / "in/f.parquet", numbers(20_000), row_group_size=1000)
        self.out = folder / "out"
        self.store: ObjectStore = open_store(f"{self.out}/", settings)
        self.plan, (self.shard,) = self.planned()

    def planned(self) -> tuple[Plan, list[ShardSpec]]:
        spec = JobSpec.model_validate(
            {"model": "m", "input": [{"uri": str(self.path)}], "output": str(self.out)}
        )
        version: Any = Version(signature=SIGNATURE)
        return plan_run(spec, version, self.settings, check=nothing)

    def score(
        self,
        model: Any = None,
        *,
        plan: Plan | None = None,
        check: Callable[[], None] = nothing,
        on_progress: Callable[[int], None] = nothing,
    ) -> Any:
        return score_shard(
            plan or self.plan,
            self.shard,
            model or Sums(SIGNATURE),
            self.store,
            self.settings,
            num_threads=1,
            on_progress=on_progress,
            check=check,
        )

    def left(self) -> list[str]:
        return [path.name for path in self.out.rglob("*")]


@pytest.fixture
def world(tmp_path: Path, settings: Settings) -> World:
    return World(tmp_path, settings)


@pytest.fixture(autouse=True, params=[0, 10**6], ids=["in_threads", "alone"])
def alone_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("augury.inference.pipeline._ALONE_ROWS", request.param)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Any:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


class Failing(Sums):
    """Fails, or does something, at its n-th call."""

    def __init__(self, act: Callable[[], Any], call: int = 2) -> None:
        super().__init__(SIGNATURE)
        self._act = act
        self._call = call

    def predict(self, matrix: Any) -> Any:
        found = super().predict(matrix)
        changed = self._act() if len(self.batches) == self._call else None
        return found if changed is None else changed


# --- inputs ---------------------------------------------------------------------------------------


def test_a_file_replaced_after_planning_fails_naming_both(world: World) -> None:
    planned = world.plan.files[0].tag
    write(world.path, numbers(20_000, start=1), row_group_size=1000)
    found = world.planned()[0].files[0].tag
    with pytest.raises(IdentityError, match=f"expected tag {planned}, found {found}"):
        world.score()
    assert world.left() == []


def test_a_file_deleted_after_planning_fails_naming_both(world: World) -> None:
    world.path.unlink()
    with pytest.raises(IdentityError, match="found nothing: it was deleted") as caught:
        world.score()
    assert caught.value.attributes["expected"] == world.plan.files[0].tag
    assert world.left() == []


@pytest.mark.parametrize("how", ["replaced", "deleted", "overwritten"])
def test_a_file_that_changes_while_it_is_read_fails(
    world: World, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("augury.data.batches.BATCH_ROWS", 1000)  # so that reading lasts

    def act() -> None:
        if how == "deleted":
            world.path.unlink()
        elif how == "replaced":
            other = write(world.path.with_name("other"), numbers(20_000, start=1))
            other.rename(world.path)
        else:
            world.path.write_bytes(bytes(world.path.stat().st_size))

    with pytest.raises(IdentityError):
        world.score(Failing(act))
    assert world.left() == []


def damage(path: Path, start: int, length: int) -> None:
    data = bytearray(path.read_bytes())
    data[start : start + length] = b"\xff" * length
    path.write_bytes(data)


@pytest.mark.parametrize("codec", ["snappy", "zstd", "gzip", "none"])
def test_a_damaged_page_is_told_by_name(world: World, codec: str) -> None:
    pq.write_table(numbers(20_000), world.path, row_group_size=1000, compression=codec)
    offset = pq.read_metadata(world.path).row_group(7).column(1).dictionary_page_offset
    damage(world.path, offset, 60)
    world.plan, (world.shard,) = world.planned()
    with pytest.raises(CorruptError, match=r"f\.parquet is not a sound Parquet file"):
        world.score()
    assert world.left() == []


def test_a_flipped_bit_is_found_by_the_page_s_checksum(world: World) -> None:
    pq.write_table(
        numbers(20_000),
        world.path,
        compression="none",
        write_page_checksum=True,
        use_dictionary=False,
    )
    offset = pq.read_metadata(world.path).row_group(0).column(1).data_page_offset
    damage(world.path, offset + 5_000, 1)
    world.plan, (world.shard,) = world.planned()
    with pytest.raises(CorruptError, match=r"f\.parquet"):
        world.score()


def test_fewer_rows_than_the_footer_says_are_found(world: World) -> None:
    ranges = (replace(world.shard.ranges[0], num_rows=1001), *world.shard.ranges[1:])
    world.shard = replace(world.shard, ranges=ranges)
    with pytest.raises(CorruptError, match=r"expected 20001 rows .*, found 20000"):
        world.score()
    assert world.left() == []


# --- the model ------------------------------------------------------------------------------------


def test_a_model_that_fails_is_told_with_the_file(world: World) -> None:
    def act() -> None:
        raise ValueError("Input contains NaN")

    with pytest.raises(InvalidError, match=r"model m \(sums 1\) failed .*f\.parquet.* NaN"):
        world.score(Failing(act))
    assert world.left() == []


def test_no_memory_is_a_limit(world: World) -> None:
    def act() -> None:
        raise MemoryError

    with pytest.raises(LimitError, match="no memory left"):
        world.score(Failing(act))


def test_predictions_of_another_shape_are_refused(world: World) -> None:
    with pytest.raises(InvalidError, match="does not fit its signature"):
        world.score(Failing(lambda: pa.array([1]).to_numpy()))


# --- the output -----------------------------------------------------------------------------------


class Full:
    """An output without space: what is staged goes to /dev/full."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def stage(self, key: str) -> Path:
        path = self._store.stage(key)
        path.symlink_to("/dev/full")
        return path


def test_a_full_disk_is_told_and_nothing_is_left(world: World) -> None:
    full: Any = Full(world.store)
    world.store = full
    with pytest.raises(LimitError, match="no space left"):
        world.score()
    assert world.left() == []


def test_an_output_that_cannot_be_made_is_told(world: World) -> None:
    world.out.write_text("a file where a folder should be")
    with pytest.raises((UnavailableError, ConflictError, InvalidError)):
        world.score()


def test_other_content_in_the_part_s_place_is_never_overwritten(world: World) -> None:
    world.store.put(world.shard.part_key, b"something else")
    with pytest.raises(ConflictError, match="other content"):
        world.score()
    assert (world.out / world.shard.part_key).read_bytes() == b"something else"
    assert world.left() == [world.shard.part_key]


# --- aborting -------------------------------------------------------------------------------------


class Slow(Sums):
    """Takes as long as a large model: 20 seconds for the file."""

    def predict(self, matrix: Any) -> Any:
        clock.sleep_s(len(matrix) / 1000)
        return super().predict(matrix)


def test_an_aborting_check_ends_the_shard_promptly(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = clock.monotonic_s()
    monkeypatch.setattr("augury.inference.pipeline._FIRST_ROWS", 64)

    def check() -> None:
        if clock.monotonic_s() - started > 0.5:
            raise KeyError("cancelled")

    with pytest.raises(KeyError):
        world.score(Slow(SIGNATURE), check=check)
    assert clock.monotonic_s() - started < 5.0  # of twenty seconds of work
    assert world.left() == []


def test_a_check_that_aborts_after_the_last_row_publishes_nothing(world: World) -> None:
    done: list[int] = []

    def check() -> None:
        if sum(done) == 20_000:
            raise KeyError("cancelled")

    with pytest.raises(KeyError):
        world.score(check=check, on_progress=done.append)
    assert world.left() == []


def test_an_error_of_the_progress_callback_ends_the_shard(world: World) -> None:
    def on_progress(num_rows: int) -> None:
        raise KeyError("lost lease")

    with pytest.raises(KeyError):
        world.score(on_progress=on_progress)
    assert world.left() == []


# --- pins -----------------------------------------------------------------------------------------


def test_pins_that_do_not_hold_here_are_refused_naming_each(world: World) -> None:
    pins = replace(
        world.plan.pins,
        backend="sums 2",
        machine="abacus",
        libraries={**world.plan.pins.libraries, "pyarrow": "1.0"},
    )
    with pytest.raises(ConflictError) as caught:
        world.score(plan=replace(world.plan, pins=pins))
    text = str(caught.value)
    assert "backend: expected sums 2, found sums 1" in text
    assert "machine: expected abacus, found " in text
    assert f"pyarrow: expected 1.0, found {pa.__version__}" in text
    assert world.left() == []


def test_a_library_that_is_not_installed_does_not_honour_its_pin(world: World) -> None:
    pins = replace(world.plan.pins, libraries={"no-such-library": "1.0"})
    with pytest.raises(ConflictError, match=r"no-such-library: expected 1\.0, found none"):
        world.score(plan=replace(world.plan, pins=pins))
