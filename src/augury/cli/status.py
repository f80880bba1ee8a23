"""`augury status`: how busy everything is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from augury.cli.context import Json, open_engine
from augury.cli.output import echo, example, print_json, print_table


def add_to(app: typer.Typer) -> None:
    """Registers the command."""
    app.command(epilog=example("augury status", "watch -n1 augury status"))(status)


def status(as_json: Json = False) -> None:
    """Shows how busy everything is: bus, workers, queues, runs, events."""
    from augury.engine.status import status as status_of

    with open_engine() as engine:
        found = status_of(engine)
    if as_json:
        print_json(found)
        return
    bus = found["bus"]
    if bus["available"]:
        echo(f"bus       {bus['length']} entries, {bus['lag']} unread, {bus['pending']} in hand, "
             f"oldest {bus['oldest_age_s']:.1f} s, {bus['durability']}")  # fmt: skip
    else:
        echo(f"bus       {bus['message']}")
    echo(f"outbox    {found['outbox']} events to send")
    for name in ("events", "outcomes", "effects", "runs"):
        echo(f"{name:<9} {_counts(found[name])}")
    for queue, counts in found["queues"].items():
        echo(f"queue     {queue}: {_counts(counts)}")
    rows = [
        [worker["id"], worker["host"], worker["pid"], ",".join(worker["queues"]), worker["cpus"]]
        for worker in (*found["workers"], *found["dispatchers"])
    ]
    print_table(["worker", "host", "pid", "queues", "cpus"], rows, empty="no workers")


def _counts(counts: Mapping[str, Any]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"
