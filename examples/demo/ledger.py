"""Reads what the demo shows from the ledger; writes nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa

from augury.storage.database import Database
from augury.storage.tables import events, outcomes, runs

_FINAL = ("SUCCEEDED", "FAILED", "CANCELED")


@dataclass(frozen=True, kw_only=True)
class JobFigures:
    """All runs of one job. Times in seconds, rates in rows per second."""

    job: str
    mode: str
    states: dict[str, int]
    rows: int
    median_s: float
    longest_s: float
    rows_per_s: float


@dataclass(frozen=True, kw_only=True)
class Story:
    """Everything that the report shows."""

    events_accepted: int
    events_by_type: list[tuple[str, int]]
    outcomes: list[tuple[str, int]]
    jobs: list[JobFigures]
    landing_to_commit_s: list[float]
    manifests: dict[str, str]
    all_succeeded: bool


class Ledger:
    """The demo's view of a running engine's ledger."""

    def __init__(self, home: Path) -> None:
        self._database = Database(f"sqlite:///{home / 'augury.db'}")

    def committed(self, job: str) -> tuple[int, int]:
        """(runs succeeded, rows predicted) of a job."""
        query = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(runs.c.rows_predicted), 0))
        done, rows = self._one(query.where(runs.c.job_name == job, runs.c.state == "SUCCEEDED"))
        return int(done), int(rows)

    def rows(self, job: str) -> tuple[int, int]:
        """(rows done, rows planned) of a job's runs so far."""
        query = sa.select(
            sa.func.coalesce(sa.func.sum(runs.c.rows_done), 0),
            sa.func.coalesce(sa.func.sum(runs.c.rows_in), 0),
        )
        done, planned = self._one(query.where(runs.c.job_name == job))
        return int(done), int(planned)

    def unfinished(self) -> int:
        """Runs that are not in a final state."""
        (count,) = self._one(sa.select(sa.func.count()).where(runs.c.state.not_in(_FINAL)))
        return int(count)

    def fail_if_stuck(self) -> None:
        """Ends the demo with the run's own words when one failed."""
        query = sa.select(runs.c.id, runs.c.lifecycle_details).where(runs.c.state == "FAILED")
        with self._database.read() as connection:
            failed = connection.execute(query).first()
        if failed is not None:
            raise SystemExit(f"run {failed.id} failed: {failed.lifecycle_details}")

    def story(self, landed: dict[str, float]) -> Story:
        """The figures of everything so far; `landed` maps file names to epoch seconds."""
        with self._database.read() as connection:
            by_type = connection.execute(
                sa.select(events.c.type, sa.func.count())
                .group_by(events.c.type)
                .order_by(sa.func.count().desc(), events.c.type)
            ).all()
            by_outcome = connection.execute(
                sa.select(outcomes.c.state, sa.func.count()).group_by(outcomes.c.state)
            ).all()
            all_runs = connection.execute(sa.select(runs).order_by(runs.c.time_accepted)).all()
            files = connection.execute(
                sa.select(events.c.body, runs.c.time_committed)
                .join(runs, runs.c.position == events.c.position)
                .where(runs.c.job_name == "score_day")
            ).all()
        return Story(
            events_accepted=sum(count for _, count in by_type),
            events_by_type=[(kind, count) for kind, count in by_type],
            outcomes=[(state, count) for state, count in by_outcome],
            jobs=_figures(all_runs),
            landing_to_commit_s=sorted(_latencies(files, landed)),
            manifests={run.id: run.output_uri for run in all_runs if run.output_uri},
            all_succeeded=all(run.state == "SUCCEEDED" for run in all_runs),
        )

    def _one(self, query: sa.Select[tuple[int, ...]]) -> tuple[int, ...]:
        with self._database.read() as connection:
            return tuple(connection.execute(query).one())


def _latencies(files: list[sa.Row], landed: dict[str, float]) -> list[float]:
    seconds = []
    for body, committed in files:
        name = json.loads(body)["data"]["key"].rpartition("/")[2]
        at = datetime.fromtimestamp(landed[name], UTC)
        seconds.append((committed - at).total_seconds())
    return seconds


def _figures(all_runs: list[sa.Row]) -> list[JobFigures]:
    figures = []
    for job in dict.fromkeys(run.job_name for run in all_runs):
        mine = [run for run in all_runs if run.job_name == job]
        seconds = sorted(
            (run.time_finished - run.time_started).total_seconds()
            for run in mine
            if run.time_finished and run.time_started
        )
        rows = sum(run.rows_predicted for run in mine)
        states = {run.state: sum(r.state == run.state for r in mine) for run in mine}
        figures.append(
            JobFigures(
                job=job,
                mode=", ".join(sorted({run.mode or "-" for run in mine})),
                states=states,
                rows=rows,
                median_s=seconds[len(seconds) // 2] if seconds else 0.0,
                longest_s=seconds[-1] if seconds else 0.0,
                rows_per_s=rows / sum(seconds) if sum(seconds) else 0.0,
            )
        )
    return figures
