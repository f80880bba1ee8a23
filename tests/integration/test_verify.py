"""`augury verify`: each promise of an output broken alone is named, and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pyarrow import parquet as pq
from scoring_world import damage, numbers, regression, score, write

from augury.cli.app import main
from augury.data.manifest import MANIFEST_KEY, Manifest
from augury.data.verification import verify_output
from augury.ids import digest
from augury.settings import Settings
from augury.storage.objects import open_store


@pytest.fixture
def output(tmp_path: Path, settings: Settings) -> Path:
    """Two parts, one reject part, one row group quarantined; copied to where nobody wrote it."""
    write(tmp_path / "in/a.parquet", numbers(30), row_group_size=10)
    damage(write(tmp_path / "in/b.parquet", numbers(20, start=30), row_group_size=10), 1)
    scored = score(
        settings,
        [tmp_path / "in"],
        tmp_path / "out",
        regression("a", "b"),
        on_bad_row="reject",
        expect={"a": {"range": [1, None]}},
        on_corrupt_file="quarantine",
        target_shard_rows=30,
    )
    scored.output.put(MANIFEST_KEY, scored.manifest().to_bytes())
    return Path(shutil.copytree(scored.folder, tmp_path / "cold"))


def found(output: Path, settings: Settings) -> list[str]:
    verification = verify_output(open_store(f"{output}/", settings))
    assert verification.ok == (not verification.violations)
    return [violation.check for violation in verification.violations]


def rewritten(output: Path, change: Callable[[Manifest], Manifest]) -> None:
    path = output / MANIFEST_KEY
    path.write_bytes(change(Manifest.from_bytes(path.read_bytes())).to_bytes())


def test_a_sound_output_is_told(
    output: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    (output / "_notes").write_text("readers skip this")
    assert found(output, settings) == []
    assert main(["verify", str(output)]) == 0
    said = capsys.readouterr().out
    assert "rows     40 in = 38 predicted + 2 rejected + 0 filtered" in said
    assert "PARTIAL  damaged and left out: row group 1 of" in said
    assert main(["verify", str(output), "--json"]) == 0
    told: dict[str, Any] = msgspec.json.decode(capsys.readouterr().out)
    assert (told["ok"], told["complete"], told["rows"]["rows_rejected"]) == (True, False, 2)


def manifest_deleted(output: Path) -> None:
    (output / MANIFEST_KEY).unlink()


def manifest_edited(output: Path) -> None:
    path = output / MANIFEST_KEY
    path.write_bytes(path.read_bytes().replace(b'"sha256":"', b'"sha256":"f', 1))


def part_deleted(output: Path) -> None:
    (output / "part-00001.parquet").unlink()


def reject_part_deleted(output: Path) -> None:
    (output / "_rejected/part-00000.parquet").unlink()


def part_cut_short(output: Path) -> None:
    path = output / "part-00000.parquet"
    path.write_bytes(path.read_bytes()[:-1])


def bit_turned(output: Path) -> None:
    path = output / "_rejected/part-00000.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def fewer_rows_in_a_part(output: Path) -> None:
    path = output / "part-00001.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)

    def change(manifest: Manifest) -> Manifest:
        first, second = manifest.parts
        data = path.read_bytes()
        other = replace(second, sha256=digest(data), size_bytes=len(data))
        return replace(manifest, parts=(first, other))

    rewritten(output, change)


def file_out_of_balance(output: Path) -> None:
    def change(manifest: Manifest) -> Manifest:
        first, second = manifest.files
        files = (
            replace(first, rows_predicted=first.rows_predicted + 1),
            replace(second, rows_predicted=second.rows_predicted - 1),
        )
        return replace(manifest, files=files)

    rewritten(output, change)


def rejects_that_no_part_holds(output: Path) -> None:
    shutil.rmtree(output / "_rejected")
    rewritten(output, lambda manifest: replace(manifest, reject_parts=()))


def sum_that_the_files_do_not_give(output: Path) -> None:
    def change(manifest: Manifest) -> Manifest:
        return replace(manifest, rows=replace(manifest.rows, rows_in=manifest.rows.rows_in + 1))

    rewritten(output, change)


def partial_and_not_said(output: Path) -> None:
    rewritten(output, lambda manifest: replace(manifest, complete=True))


def part_too_many(output: Path) -> None:
    shutil.copyfile(output / "part-00000.parquet", output / "part-00009.parquet")


def reject_part_too_many(output: Path) -> None:
    path = output / "_rejected/part-00000.parquet"
    shutil.copyfile(path, path.with_name("part-00009.parquet"))


@pytest.mark.parametrize(
    ("corrupt", "checks"),
    [
        (manifest_deleted, {"manifest"}),
        (manifest_edited, {"manifest"}),
        (part_deleted, {"missing"}),
        (reject_part_deleted, {"missing"}),
        (part_cut_short, {"size"}),
        (bit_turned, {"sha256"}),
        (fewer_rows_in_a_part, {"footer"}),
        (file_out_of_balance, {"rows"}),
        (rejects_that_no_part_holds, {"rows"}),
        (sum_that_the_files_do_not_give, {"rows"}),
        (partial_and_not_said, {"complete"}),
        (part_too_many, {"extra"}),
        (reject_part_too_many, {"extra"}),
    ],
)
def test_what_is_broken_is_named(
    output: Path,
    settings: Settings,
    corrupt: Callable[[Path], None],
    checks: set[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    corrupt(output)
    assert set(found(output, settings)) == checks
    assert main(["verify", str(output)]) == 4
    assert f"VIOLATION {next(iter(checks))}: " in capsys.readouterr().out


def test_nothing_there_is_no_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path / "nowhere")]) == 1
    assert "expected an output at" in capsys.readouterr().err
