"""How things look in JSON: the same fields in the API's answers and in `--json`.

A view is a plain mapping of text, numbers, booleans, lists and mappings. Field names are those of
the tables; instants are RFC 3339 in UTC with `Z`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augury import clock

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from augury.inference.plan import Plan, ShardSpec
    from augury.jobs.runs import Run
    from augury.models.registry import ModelVersion
    from augury.routing.archives import PastEvent
    from augury.routing.replay import Replay

_BULKY = frozenset({"plan", "manifest", "run_key"})


def view(value: DataclassInstance, *, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    """A dataclass's fields, as JSON can hold them."""
    return {
        field.name: plain(getattr(value, field.name))
        for field in fields(value)
        if field.name not in without
    }


def plain(value: Any) -> Any:
    """Anything our values hold, as JSON can hold it."""
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, datetime):
        return clock.iso(value)
    return str(value) if isinstance(value, Path) else view(value)


def run_view(run: Run) -> dict[str, Any]:
    """A run without its plan and manifest, which may be large."""
    derived = {"is_partial": run.is_partial, "manifest_uri": run.manifest_uri}
    return {**view(run, without=_BULKY), **derived}


def event_view(past: PastEvent) -> dict[str, Any]:
    """An accepted event with its outcomes; `event` is its structured form."""
    shown = view(past.event, without=frozenset({"document"}))
    shown["event"] = past.event.document
    shown["is_archived"] = past.is_archived
    shown["outcomes"] = [view(outcome) for outcome in past.outcomes]
    return shown


def replay_view(replay: Replay, states: Mapping[str, int] | None) -> dict[str, Any]:
    """A replay; `states` are the numbers of its outcomes in each state, if they were counted."""
    shown = view(replay)
    return shown if states is None else {**shown, "outcomes": dict(states)}


def model_view(version: ModelVersion) -> dict[str, Any]:
    """A model version; its signature in JSON form."""
    return {
        **view(version, without=frozenset({"signature"})),
        "signature": version.signature.to_json(),
    }


def plan_view(plan: Plan, shards: Sequence[ShardSpec]) -> dict[str, Any]:
    """What a run would do; `shards` in the order of the output."""
    shown = view(plan, without=frozenset({"model", "output_schema", "pins"}))
    shown["model"] = view(plan.model, without=frozenset({"signature"}))
    shown["shards"] = [
        {"seq": shard.seq, "num_rows": shard.num_rows, "ranges": plain(shard.ranges)}
        for shard in shards
    ]
    return shown
