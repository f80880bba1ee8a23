"""Seconds from the start of `augury up` until each part is ready, in a new home.

Run it with

    python benchmarks/bench_startup.py [--times 5] [--workers 1]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from installation import AUGURY, augury_up, notices

PARTS = ("valkey", "api", "router", "worker-1")


def once(workers: int) -> dict[str, float]:
    """One start: seconds until each part said that it was ready."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        started = time.monotonic()
        with augury_up(folder, workers=workers):
            everything_s = time.monotonic() - started
        told = notices(folder)
    ready = {n["child"]: n["after_s"] for n in told if n["action"] == "child_ready"}
    all_after = next(n["after_s"] for n in told if n["action"] == "all_ready")
    launch_s = everything_s - all_after  # the interpreter and its imports, before any notice
    return {part: ready[part] + launch_s for part in PARTS} | {"everything": everything_s}


def help_s() -> float:
    """Seconds of `augury --help`."""
    started = time.monotonic()
    subprocess.run([AUGURY, "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    starts = [once(options.workers) for _ in range(options.times)]
    median = {part: statistics.median(start[part] for start in starts) for part in starts[0]}
    result = {f"{part}_ready_s": round(seconds, 2) for part, seconds in median.items()}
    helps = [help_s() for _ in range(options.times)]
    print(json.dumps(result | {"help_s": round(statistics.median(helps), 3)}))


if __name__ == "__main__":
    main()
