"""What a worker reports about the item that it holds, and what is done about one that cannot.

Each function is one short transaction's work: it takes the run's row, checks the fence and changes
item and run together. A report under a token that is not the item's last raises `LostLeaseError`
and changes nothing.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from augury import clock, ids
from augury.bus.outbox import emit
from augury.jobs import isolation, logs, statements
from augury.jobs.lifecycle import (
    PROGRESS_PERCENTS,
    lock_run,
    progress_event,
    transition,
)
from augury.jobs.rejected import Rejected, count_rejected
from augury.jobs.runs import close_canceled
from augury.jobs.spec import Mode
from augury.jobs.states import CANCELABLE, LIVE, RunState, WorkState
from augury.jobs.work import (
    HELD_MODES,
    SCRIPT,
    SHARD,
    WorkItem,
    fence,
    item_of,
    leased_by,
    let_all_go,
    lost,
    open_window,
    set_host,
)
from augury.storage.database import Database
from augury.storage.tables import runs, work, workers

_FIRST_BACKOFF_S = 0.5
_LONGEST_BACKOFF_S = 60.0
WORKER_LOST = "worker_lost"
SHARD_DEADLINE = "shard_deadline"
_MAY_GO_ON = CANCELABLE


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What planning gives, as the ledger stores it.

    Attributes:
        plan: the pins, as canonical JSON.
        mode: never `auto`.
        rows_in: rows of all inputs.
        shards: at least one, in order; each complete in itself.
    """

    plan: str
    mode: Mode
    rows_in: int
    shards: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What a stored plan led to.

    Attributes:
        shard: the first shard, leased to the planner, if that goes on by itself (`mini_batch`).
        opened: shards that are ready for whoever is woken.
    """

    shard: WorkItem | None
    opened: int


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What a finished shard led to.

    Attributes:
        is_last: True if all shards of the run are in.
        shards_total: shards of the run.
        is_news: True if events were emitted.
        host: the run's holder.
        opened: shards that became ready, by queue.
    """

    is_last: bool
    shards_total: int
    is_news: bool
    host: str | None
    opened: Mapping[str, int]


# --- planned --------------------------------------------------------------------------------------


def finish_plan(
    database: Database, connection: sa.Connection, item: WorkItem, planned: Planned
) -> Stored:
    """Stores a run's plan and its shards, all or nothing.

    Shards beyond the window wait. In mode `mini_batch` the planner goes on by itself: it becomes
    the run's holder, and its first shard is leased to it at once.

    Raises:
        LostLeaseError: the item is not the caller's any more; nothing was stored.
    """
    run = _reporting(database, connection, item)
    _close(connection, item, state=WorkState.DONE)
    num_shards = len(planned.shards)
    goes_on = planned.mode is Mode.MINI_BATCH
    details = f"Scoring {planned.rows_in} rows in {num_shards} shard{'s' * (num_shards != 1)}."
    connection.execute(
        sa.update(runs)
        .where(runs.c.id == run.id)
        .values(
            plan=planned.plan,
            mode=planned.mode,
            rows_in=planned.rows_in,
            shards_total=num_shards,
            lifecycle_details=details,
            host=item.worker_id if goes_on else None,
        )
    )
    logs.append(connection, run.id, "info", f"{details} Mode {planned.mode}.")
    window = run.spec["max_concurrency"]
    rows = [
        _shard_row(item, seq, spec, planned.mode, is_ready=seq < window)
        for seq, spec in enumerate(planned.shards)
    ]
    connection.execute(sa.insert(work), rows)
    if goes_on:
        return Stored(shard=_lease_first(connection, item, rows[0]["id"]), opened=0)
    return Stored(shard=None, opened=min(window, num_shards))


def _shard_row(
    plan: WorkItem, seq: int, spec: Mapping[str, Any], mode: Mode, *, is_ready: bool
) -> dict[str, Any]:
    return {
        "id": ids.new_id("work"),
        "run_id": plan.run_id,
        "kind": SHARD,
        "seq": seq,
        "queue": mode,
        "priority": plan.priority,
        "state": WorkState.READY if is_ready else WorkState.WAITING,
        "spec": spec,
        "ready_at": clock.utc_now() if is_ready else None,
    }


def _lease_first(connection: sa.Connection, plan: WorkItem, shard_id: str) -> WorkItem:
    leased = connection.execute(
        sa.update(work)
        .where(work.c.id == shard_id)
        .values(
            state=WorkState.LEASED,
            token=1,
            attempts=1,
            worker_id=plan.worker_id,
            leased_at=clock.utc_now(),
        )
        .returning(*work.c)
    ).one()
    return item_of(leased)


# --- scored ---------------------------------------------------------------------------------------


def finish_shard(
    database: Database,
    connection: sa.Connection,
    item: WorkItem,
    result: Mapping[str, Any],
    *,
    rows_done: int,
    rejected: Rejected | None = None,
) -> Finished:
    """Records a shard's result, counts it, tells of progress and lets the next shards in.

    Args:
        database: for the dialect.
        connection: the transaction.
        item: the shard.
        result: as a plain document.
        rows_done: rows of the shard.
        rejected: how many of them it rejected; more than the run may reject fail the run.

    Raises:
        LostLeaseError: the item is not the caller's any more; nothing was recorded.
    """
    run = _reporting(database, connection, item)
    changed, is_news = _count_rows(database, connection, item, rows_done, more_shards=1)
    done = {"now": clock.utc_now(), "its_result": result, "rows": rows_done}
    if connection.execute(statements.SHARD_DONE, {**fence(item), **done}).rowcount != 1:
        raise lost(item)
    if rejected is not None and not count_rejected(database, connection, changed, run, rejected):
        return Finished(is_last=False, shards_total=0, is_news=True, host=run.host, opened={})
    is_last = changed.shards_done == run.shards_total
    if run.shards_isolated and isolation.end_if_over(database, connection, run, changed):
        return Finished(is_last=False, shards_total=0, is_news=True, host=run.host, opened={})
    frees = is_last and run.mode in HELD_MODES
    if frees:
        set_host(connection, run.id, None)
    return Finished(
        is_last=is_last,
        shards_total=run.shards_total,
        is_news=is_news,
        host=None if frees else run.host,
        opened={} if is_last else _open_window(connection, run),
    )


def _open_window(connection: sa.Connection, run: Any) -> Mapping[str, int]:
    window = run.spec["max_concurrency"]
    if run.shards_total <= window:  # they have been ready from the beginning
        return {}
    return open_window(connection, run.id, window)


def report_progress(
    database: Database, connection: sa.Connection, item: WorkItem, rows_done: int
) -> None:
    """Counts the rows that an unfinished shard has done so far.

    Raises:
        LostLeaseError: the item is not the caller's any more.
    """
    _reporting(database, connection, item)
    _count_rows(database, connection, item, rows_done, more_shards=0)
    connection.execute(statements.SHARD_GOES_ON, {**fence(item), "rows": rows_done})


def _count_rows(
    database: Database, connection: sa.Connection, item: WorkItem, rows: int, *, more_shards: int
) -> tuple[Any, bool]:
    """Counts `rows` of an item in its run, instead of those that the item has reported before.

    Tells of each quarter once, however often rows are counted again. The caller has the run's row,
    and changes the item afterwards.

    Returns:
        The run's counts, and whether there was something to tell.
    """
    counted = {"run": item.run_id, "rows": rows, "more_shards": more_shards}
    changed = connection.execute(statements.COUNT_ROWS, {**fence(item), **counted}).one_or_none()
    if changed is None:
        raise lost(item)
    passed = [
        percent
        for percent in PROGRESS_PERCENTS
        if changed.progress_announced < percent
        and 0 < changed.rows_in * percent <= changed.rows_done * 100
    ]
    if passed:
        connection.execute(
            sa.update(runs).where(runs.c.id == item.run_id).values(progress_announced=passed[-1])
        )
        emit(database, connection, [progress_event(changed, percent) for percent in passed])
    return changed, bool(passed)


# --- not done -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why an attempt failed.

    Attributes:
        code: stable error code; the run's `reason` if the run ends by it.
        message: a sentence for people.
        is_permanent: True if trying again cannot help.
        backoff: False if the next attempt need not wait.
        isolates: True if it speaks against this item alone: when a shard has no attempt left, it is
            given up, and the others are finished before the run fails.
    """

    code: str
    message: str
    is_permanent: bool
    backoff: bool = True
    isolates: bool = False


def fail(
    database: Database, connection: sa.Connection, item: WorkItem, failure: Failure
) -> RunState:
    """Records a failed attempt: another one after some time, or the end of the run.

    Returns:
        The run's state afterwards.

    Raises:
        LostLeaseError: the item is not the caller's any more.
    """
    run = _reporting(database, connection, item)
    return _failed(database, connection, run, item, failure)


def _failed(
    database: Database, connection: sa.Connection, run: Any, item: WorkItem, failure: Failure
) -> RunState:
    error = f"{failure.code}: {failure.message}"
    if failure.isolates and item.is_shard and item.attempts >= run.spec["max_attempts"]:
        return isolation.isolate(database, connection, run, item, error)
    if failure.is_permanent or item.attempts >= run.spec["max_attempts"]:
        _close(connection, item, state=WorkState.FAILED, error=error)
        tried = "" if failure.is_permanent else f" (attempt {item.attempts}, the last)"
        details = f"Run failed: {item.what}{tried}: {failure.message}"
        if item.is_script:  # OCI's words: the message is the whole sentence
            details = f"{failure.message}{tried if item.attempts > 1 else ''}"
        transition(
            database, connection, run.id, RunState.FAILED, details=details, reason=failure.code
        )
        return RunState.FAILED
    pause_s = _backoff_s(item.attempts) if failure.backoff else 0.0
    _give_back(connection, item, error=error, pause_s=pause_s)
    again = f"again in {pause_s:.1f} s" if pause_s else "again at once"
    text = f"{item.what}, attempt {item.attempts}: {failure.message}; {again}"
    logs.append(connection, run.id, "warning", text)
    return RunState(run.state)


def _backoff_s(attempts: int) -> float:
    doubled = _FIRST_BACKOFF_S * 2.0 ** (attempts - 1)
    return min(_LONGEST_BACKOFF_S, doubled) * random.uniform(0.8, 1.2)


def release(database: Database, connection: sa.Connection, item: WorkItem) -> bool:
    """Gives an item back unfinished, without counting the attempt; ends it if its run has ended.

    Returns:
        False if the item is not the caller's any more; then nothing happens.
    """
    run = lock_run(database, connection, item.run_id)
    if run is None or connection.scalar(statements.ROWS_BEFORE, fence(item)) is None:
        _clean_again(connection, item.run_id)
        return False
    if run.state in _MAY_GO_ON:
        _give_back(connection, item, attempts=work.c.attempts - 1)
    else:
        _end(database, connection, item)
    if run.host == item.worker_id:
        set_host(connection, run.id, None)
    return True


def _clean_again(connection: sa.Connection, run_id: str) -> None:
    """A late worker may have written a part of a run that ended without result."""
    connection.execute(
        sa.update(runs)
        .where(runs.c.id == run_id, runs.c.kind != SCRIPT, runs.c.time_committed.is_(None))
        .values(cleaned_at=None)
    )


def expire(
    database: Database, connection: sa.Connection, worker_id: str, heartbeat: int
) -> Counter[str]:
    """Takes everything from a worker whose heartbeat counter still is `heartbeat`.

    The attempt counts: an item that kills its workers ends its run some time.

    Returns:
        Items that are ready now, by queue; empty if the worker has moved its counter meanwhile.
    """
    row = sa.select(workers.c.heartbeat).where(workers.c.id == worker_id)
    if connection.scalar(database.lock_rows(row)) != heartbeat:
        return Counter()
    ready: Counter[str] = Counter()
    for item in leased_by(connection, worker_id):
        run = lock_run(database, connection, item.run_id)
        if run.state in _MAY_GO_ON:
            after = _failed(database, connection, run, item, _worker_lost(worker_id))
            is_tried_again = item.attempts < run.spec["max_attempts"]
            ready[item.queue] += is_tried_again and after is not RunState.FAILED
        else:
            _end(database, connection, item)
    let_all_go(connection, worker_id)
    connection.execute(
        sa.update(workers).where(workers.c.id == worker_id).values(stopped_at=clock.utc_now())
    )
    return ready


def _worker_lost(worker_id: str) -> Failure:
    message = f"worker {worker_id} was lost while it held this"
    return Failure(
        code=WORKER_LOST, message=message, is_permanent=False, backoff=False, isolates=True
    )


def expire_shard(
    database: Database, connection: sa.Connection, item: WorkItem, limit_s: float
) -> bool:
    """Takes a shard from a worker that has had it for longer than its deadline.

    The attempt counts. The worker learns of it when it looks; its report comes too late.

    Returns:
        True if the shard may be claimed again now; False if it was given up, or is not this
        claim's any more.
    """
    run = lock_run(database, connection, item.run_id)
    if run is None or connection.scalar(statements.ROWS_BEFORE, fence(item)) is None:
        return False
    if run.state != RunState.IN_PROGRESS:
        return False
    if run.host == item.worker_id:
        set_host(connection, run.id, None)
    message = f"took longer than maximum_shard_runtime_s, {limit_s:g} s, on {item.worker_id}"
    failure = Failure(
        code=SHARD_DEADLINE, message=message, is_permanent=False, backoff=False, isolates=True
    )
    _failed(database, connection, run, item, failure)
    is_tried_again: bool = item.attempts < run.spec["max_attempts"]
    return is_tried_again


# --- the fence ------------------------------------------------------------------------------------


def _reporting(database: Database, connection: sa.Connection, item: WorkItem) -> Any:
    """The run's row, locked; the run goes on."""
    run = lock_run(database, connection, item.run_id)
    if run is None or run.state not in LIVE:
        raise lost(item, f"the run is {'gone' if run is None else run.state}")
    return run


def _rows_before(connection: sa.Connection, item: WorkItem) -> int:
    """The rows that an item has reported so far; it is still held."""
    before = connection.scalar(statements.ROWS_BEFORE, fence(item))
    if before is None:
        raise lost(item)
    return int(before)


def _close(connection: sa.Connection, item: WorkItem, **values: Any) -> None:
    """Ends an item that is still held."""
    closing = sa.update(work).where(statements.HELD).values(done_at=clock.utc_now(), **values)
    if connection.execute(closing, fence(item)).rowcount != 1:
        raise lost(item)


def _give_back(
    connection: sa.Connection, item: WorkItem, *, pause_s: float = 0.0, **values: Any
) -> None:
    """READY again, and what it had reported of its rows is taken back."""
    before = _rows_before(connection, item)
    ready_at = clock.utc_now() + timedelta(seconds=pause_s)
    values = {"rows_done": 0, "worker_id": None, **values}
    changing = (
        sa.update(work)
        .where(statements.HELD)
        .values(state=WorkState.READY, ready_at=ready_at, **values)
    )
    if connection.execute(changing, fence(item)).rowcount != 1:
        raise lost(item)
    if before:
        connection.execute(
            sa.update(runs)
            .where(runs.c.id == item.run_id)
            .values(rows_done=runs.c.rows_done - before)
        )


def _end(database: Database, connection: sa.Connection, item: WorkItem) -> None:
    """The run has ended, or is about to: the item with it."""
    _close(connection, item, state=WorkState.CANCELED)
    close_canceled(database, connection, item.run_id)
