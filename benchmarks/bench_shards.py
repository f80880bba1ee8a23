"""What one shard costs beside its rows: a thousand shards of ten rows with a tiny model.

The rows lie in files of fifty row groups, one row group a shard.

The overhead is (seconds from the first shard's lease to the last one's end) * workers / shards:
claim, read, score, write, fsync, report. Run it with

    python benchmarks/bench_shards.py [--shards 1000] [--workers 2]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from augury.engine import Engine
from augury.jobs.spec import RunOverrides
from augury.storage.tables import runs, work
from installation import apply, augury_up, model_and_job, train, until, write_rows

_ROWS = 10
_GROUPS = 50


def measure(engine: Engine, mode: str, workers: int) -> dict[str, Any]:
    """One run in one mode."""
    run, _ = engine.start_run("score", RunOverrides.model_validate({"mode": mode}))

    def state() -> str:
        with engine.database.read() as connection:
            return str(connection.scalar(sa.select(runs.c.state).where(runs.c.id == run.id)))

    until(lambda: state() in {"SUCCEEDED", "FAILED"}, "the run is over", timeout_s=600)
    with engine.database.read() as connection:
        shards = connection.execute(
            sa.select(work.c.leased_at, work.c.done_at).where(
                work.c.run_id == run.id, work.c.kind == "shard"
            )
        ).all()
        row = connection.execute(sa.select(runs).where(runs.c.id == run.id)).one()
    seconds = (max(s.done_at for s in shards) - min(s.leased_at for s in shards)).total_seconds()
    hands = workers if mode == "distributed" else 1
    return {
        "state": row.state,
        "shards": len(shards),
        "seconds": round(seconds, 3),
        "overhead_per_shard_s": round(seconds * hands / len(shards), 5),
        "accepted_to_finished_s": round((row.time_finished - row.time_accepted).total_seconds(), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        train(folder, num_trees=1, depth=1)
        for number in range(options.shards // _GROUPS):
            path = folder / "in" / f"{number:04}.parquet"
            write_rows(path, _GROUPS * _ROWS, row_group_rows=_ROWS, seed=number)
        with augury_up(folder, workers=options.workers) as engine:
            uri = (folder / "in").as_uri() + "/"
            apply(folder, model_and_job(input=[{"uri": uri}], target_shard_rows=_ROWS))
            result = {
                mode: measure(engine, mode, options.workers)
                for mode in ("distributed", "batch", "mini_batch")
            }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
