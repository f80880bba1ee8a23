"""The demo's report: tables that a person reads at a glance."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from ledger import Story
from rich.console import Console
from rich.table import Table
from sklearn.metrics import roc_auc_score

LATE_MINUTES = 15


def show(console: Console, story: Story, stage: Path) -> None:
    """Prints the whole story."""
    console.print(_events_table(story))
    console.print(_runs_table(story))
    seconds = story.landing_to_commit_s
    p50, p99 = _percentile(seconds, 50), _percentile(seconds, 99)
    console.print(
        f"   file landed to predictions committed: p50 [b]{p50 * 1000:.0f} ms[/b], "
        f"p99 [b]{p99 * 1000:.0f} ms[/b] over {len(seconds)} files"
    )
    predictions = _committed_rows(stage / "predictions" / "half_year")
    console.print(
        f"   AUC against the real delays: [b]{_auc(predictions):.4f}[/b] "
        f"({predictions.num_rows:,} rows, late means more than {LATE_MINUTES} minutes)"
    )
    run_id, output = list(story.manifests.items())[-1]
    console.print(f"   output of {run_id}: {output}")
    console.print(f"   its manifest: {output.rstrip('/')}/_manifest.json")


def _events_table(story: Story) -> Table:
    table = Table(title=f"{story.events_accepted:,} events accepted", title_justify="left")
    table.add_column("type of event")
    table.add_column("events", justify="right")
    for kind, count in story.events_by_type:
        table.add_row(kind, f"{count:,}")
    table.add_section()
    for state, count in story.outcomes:
        table.add_row(f"outcome {state} (per rule and action)", f"{count:,}")
    return table


def _runs_table(story: Story) -> Table:
    table = Table(title="Runs", title_justify="left")
    for heading in ("job", "mode", "states"):
        table.add_column(heading)
    for heading in ("rows", "median s", "longest s", "rows/s in a run"):
        table.add_column(heading, justify="right")
    for job in story.jobs:
        states = ", ".join(f"{count} {state}" for state, count in job.states.items())
        table.add_row(
            job.job,
            job.mode,
            states,
            f"{job.rows:,}",
            f"{job.median_s:.3f}",
            f"{job.longest_s:.3f}",
            f"{job.rows_per_s:,.0f}",
        )
    return table


def _percentile(ordered: list[float], percent: int) -> float:
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def _committed_rows(folder: Path) -> pa.Table:
    """Rows of committed runs only: read through the manifests, as a careful reader would."""
    paths = [
        manifest.parent / part["key"]
        for manifest in sorted(folder.glob("*/_manifest.json"))
        for part in json.loads(manifest.read_bytes())["parts"]
    ]
    return pa.concat_tables([pq.read_table(path) for path in paths])


def _auc(predictions: pa.Table) -> float:
    """Flights that never arrived have no delay, hence no truth, and are left out."""
    known = predictions.filter(predictions["arr_delay"].is_valid())
    late = known["arr_delay"].to_numpy() > LATE_MINUTES
    return float(roc_auc_score(late, known["probability"].to_numpy()))
