"""The main job on real data: half a year of flights lands day by day and is scored as it lands.

Everything here happens through what a user has: `augury up` in the background, `augury apply`,
files renamed into a folder, `augury runs start`, `augury audit`. The ledger is only read.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import ledger
import report
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
AUGURY = str(Path(sys.executable).with_name("augury"))
console = Console()


def main() -> int:
    """Tells the story; returns the exit code."""
    options = _options()
    stage = Path(options.folder).resolve()
    home = stage / "home"
    os.environ["AUGURY_HOME"] = str(home)
    if home.exists():
        shutil.rmtree(home)
    _title("1", "Half a year of real flights, and a model trained on the half before")
    _prepare(stage)
    with _engine(stage, workers=options.workers, keep=options.keep) as ready_s:
        console.print(f"   ready to accept events after [b]{ready_s:.1f} s[/b]")
        _title("3", "Model, source, schedule, jobs and rules, from one YAML file")
        _augury("apply", "-f", str(stage / "augury.yaml"))
        watch = ledger.Ledger(home)
        _title("4", "The days land one after another; a rule scores each as it lands")
        landed = _land_days(stage, watch, options.days)
        _title("5", "A cron rule adds a mini-batch")
        _wait_for_tick(watch)
        _title("6", "One distributed run scores the whole half year at once")
        _augury("runs", "start", "score_half_year", quiet=True)
        _wait_for_runs(watch)
        _title("7", "What happened")
        story = watch.story(landed)
        report.show(console, story, stage)
        _title("8", "The audit: nothing lost, nothing doubled?")
        audited = _augury("audit", check=False)
    _farewell(options.keep, stage)
    return 0 if audited == 0 and story.all_succeeded else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", default=".demo", help="where the demo keeps its files")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--days", type=int, default=184, help="how many days land (from July 1)")
    parser.add_argument("--keep", action="store_true", help="leave the engine running")
    return parser.parse_args()


def _title(number: str, text: str) -> None:
    console.print(f"\n[bold cyan]{number}[/] [bold]{text}[/]")


def _prepare(stage: Path) -> None:
    """Training data, model and day files are made once and kept between demos."""
    stage.mkdir(parents=True, exist_ok=True)
    for name in ("landing", "standby", "archive", "predictions"):
        shutil.rmtree(stage / name, ignore_errors=True)
        (stage / name).mkdir()
    shutil.copy(HERE / "augury.yaml", stage / "augury.yaml")
    if not (stage / "model" / "model.ubj").exists():
        train = [sys.executable, str(ROOT / "models/flight_delay/train.py")]
        subprocess.run([*train, "--output", str(stage / "model")], check=True)
    for source in sorted((stage / "model" / "months").glob("*.parquet")):
        os.link(source, stage / "archive" / source.name)
    first_day = min((stage / "model" / "days").glob("*.parquet"))
    shutil.copy(first_day, stage / "standby" / first_day.name)
    rows = sum(1 for _ in (stage / "model" / "days").glob("*.parquet"))
    console.print(f"   {rows} days of July to December lie ready in {stage / 'model' / 'days'}")


@contextlib.contextmanager
def _engine(stage: Path, *, workers: int, keep: bool) -> Iterator[float]:
    """`augury up` in the background; yields the seconds until it was ready."""
    _title("2", f"augury up: Valkey, API, router, dispatcher and others, and {workers} workers")
    log = (stage / "up.log").open("w")
    started = time.monotonic()
    up = subprocess.Popen(
        [AUGURY, "up", "--workers", str(workers), "--port", "0"],
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        _wait_until_ready(up, stage)
        yield time.monotonic() - started
    except BaseException:
        _stop(up)
        raise
    if keep:
        console.print(f"\n   left running (process {up.pid}); stop it with: kill -INT {up.pid}")
    else:
        _stop(up)


def _wait_until_ready(up: subprocess.Popen[bytes], stage: Path) -> None:
    ready = stage / "home" / "ready.json"
    while not ready.exists():
        if up.poll() is not None:
            raise SystemExit(f"augury up ended early; see {stage / 'up.log'}")
        time.sleep(0.05)


def _stop(up: subprocess.Popen[bytes]) -> None:
    up.send_signal(signal.SIGINT)
    up.wait(timeout=60)


def _augury(*arguments: str, quiet: bool = False, check: bool = True) -> int:
    done = subprocess.run(
        [AUGURY, *arguments], stdout=subprocess.PIPE if quiet else None, check=False
    )
    if check and done.returncode != 0:
        raise SystemExit(f"augury {' '.join(arguments)} failed with exit code {done.returncode}")
    return done.returncode


def _progress() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


def _land_days(stage: Path, watch: ledger.Ledger, limit: int) -> dict[str, float]:
    """Renames one day after another into the watched folder; returns when each landed."""
    days = sorted((stage / "model" / "days").glob("*.parquet"))[:limit]
    landed: dict[str, float] = {}
    with _progress() as progress:
        files = progress.add_task("days landed", total=len(days), note="")
        scored = progress.add_task("days scored and committed", total=len(days), note="")
        for day in days:
            waiting = stage / "model" / f".{day.name}"
            shutil.copy(day, waiting)
            landed[day.name] = time.time()
            waiting.rename(stage / "landing" / day.name)
            done, rows = watch.committed("score_day")
            progress.update(scored, completed=done, note=f"{rows:,} rows")
            progress.update(files, advance=1, note=day.stem)
            time.sleep(0.15)
        while (done := watch.committed("score_day"))[0] < len(days):
            progress.update(scored, completed=done[0], note=f"{done[1]:,} rows")
            watch.fail_if_stuck()
            time.sleep(0.1)
        progress.update(scored, completed=done[0], note=f"{done[1]:,} rows")
    return landed


def _wait_for_tick(watch: ledger.Ledger) -> None:
    with console.status("   waiting for the minute to turn"):
        while not watch.committed("score_standby")[0]:
            watch.fail_if_stuck()
            time.sleep(0.2)
    console.print(f"   the schedule ticked; {watch.committed('score_standby')[1]:,} rows scored")


def _wait_for_runs(watch: ledger.Ledger) -> None:
    with _progress() as progress:
        task = progress.add_task("rows of the half year", total=None, note="")
        while watch.unfinished():
            done, total = watch.rows("score_half_year")
            progress.update(task, completed=done, total=total or None)
            watch.fail_if_stuck()
            time.sleep(0.1)
        done, total = watch.rows("score_half_year")
        progress.update(task, completed=done, total=total)


def _farewell(keep: bool, stage: Path) -> None:
    home = json.dumps(str(stage / "home"))
    console.print("\n[bold]Try next[/]")
    if not keep:
        console.print("   make demo KEEP=1              the same, and leave it running")
    console.print(f"   export AUGURY_HOME={home}")
    console.print("   augury events list --limit 5  what was accepted")
    console.print("   augury runs list              what it led to")
    console.print("   augury score --help           one file, no services")


if __name__ == "__main__":
    sys.exit(main())
