"""How busy an engine is: counts only, cheap enough to be asked every second."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from augury.actions.effects import DISPATCHED
from augury.engine.views import plain, view
from augury.errors import UnavailableError
from augury.jobs.states import WorkState
from augury.routing.ledger import count_events, count_outcomes
from augury.storage.tables import effects, outbox, runs, work, workers

if TYPE_CHECKING:
    from augury.engine.parts import Parts

_OPEN_WORK = (WorkState.WAITING, WorkState.READY, WorkState.LEASED)


def status(parts: Parts) -> dict[str, Any]:
    """Bus, ledger, runs, queues, effects, workers and dispatchers.

    Raises:
        UnavailableError: the database did not answer. A bus that does not is part of the answer.
    """
    with parts.database.read() as connection:
        ledger = {"events": count_events(connection), "outcomes": count_outcomes(connection)}
        return {
            "bus": _bus(parts),
            "outbox": connection.scalar(sa.select(sa.func.count()).select_from(outbox)) or 0,
            **{name: plain(counts) for name, counts in ledger.items()},
            "runs": _counts(connection, sa.select(runs.c.state, sa.func.count()), runs.c.state),
            "queues": _queues(connection),
            "effects": _counts(
                connection, sa.select(effects.c.state, sa.func.count()), effects.c.state
            ),
            **_processes(connection),
        }


def _bus(parts: Parts) -> dict[str, Any]:
    try:
        durability = parts.bus.durability()
        told = view(parts.bus.status())
    except UnavailableError as error:
        return {"available": False, "message": error.message}
    word = "durable" if durability.ok else "relaxed"
    return {"available": True, **told, "durability": word, "advice": durability.advice}


def _counts(
    connection: sa.Connection, select: sa.Select[Any], by: sa.Column[Any]
) -> dict[str, int]:
    return {str(state): count for state, count in connection.execute(select.group_by(by))}


def _queues(connection: sa.Connection) -> dict[str, dict[str, int]]:
    """Items of work that are not over, per queue and state."""
    found: dict[str, dict[str, int]] = {}
    rows = connection.execute(
        sa.select(work.c.queue, work.c.state, sa.func.count())
        .where(work.c.state.in_(_OPEN_WORK))
        .group_by(work.c.queue, work.c.state)
    )
    for queue, state, count in rows:
        found.setdefault(queue, {})[state.lower()] = count
    return found


def _processes(connection: sa.Connection) -> dict[str, list[dict[str, Any]]]:
    """Those that prove by a heartbeat that they live: `workers` and `dispatchers`."""
    rows = connection.execute(
        sa.select(workers).where(workers.c.stopped_at.is_(None)).order_by(workers.c.id)
    )
    found: dict[str, list[dict[str, Any]]] = {"workers": [], "dispatchers": []}
    for row in rows:
        noun = "dispatchers" if row.queues == [DISPATCHED] else "workers"
        found[noun].append(dict(plain(dict(row._mapping))))
    return found
