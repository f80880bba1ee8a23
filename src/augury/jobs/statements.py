"""The statements that every shard needs, built once.

Building a statement costs several times as much as running it, and so does finding its compiled
form when it was built anew. So these are values; what differs from call to call is bound.
"""

from __future__ import annotations

import sqlalchemy as sa

from augury.jobs.lifecycle import EVENT_COLUMNS
from augury.jobs.states import LIVE, WorkState
from augury.storage.tables import runs, work

# written out, not bound: only then does a partial index serve the query
IS_READY = sa.text("work.state = 'READY'")
IS_LEASED = sa.text("work.state = 'LEASED'")

# --- claims ---------------------------------------------------------------------------------------

_ITEM = (
    work.c.id,
    work.c.run_id,
    work.c.kind,
    work.c.seq,
    work.c.queue,
    work.c.priority,
    work.c.spec,
    work.c.token,
    work.c.attempts,
    work.c.worker_id,
)
# the fence: true as long as a claim is the item's last one; `fence` gives its parameters
HELD = sa.and_(
    work.c.id == sa.bindparam("item"),
    work.c.state == WorkState.LEASED,
    work.c.token == sa.bindparam("fence"),
    work.c.worker_id == sa.bindparam("holder"),
)
CANDIDATES = (
    sa.select(work.c.id, work.c.run_id)
    .join(runs, runs.c.id == work.c.run_id)
    .where(
        IS_READY,
        work.c.queue.in_(sa.bindparam("queues", expanding=True)),
        work.c.ready_at <= sa.bindparam("now"),
        sa.or_(*(runs.c.state == state for state in LIVE)),
        sa.or_(runs.c.host.is_(None), runs.c.host == sa.bindparam("holder")),
    )
    .order_by(work.c.priority, work.c.ready_at, work.c.seq)
    .limit(sa.bindparam("most"))
)
CANDIDATES_OF_RUN = CANDIDATES.where(work.c.run_id == sa.bindparam("run"))
_LEASE = (
    sa.update(work)
    .values(
        state=WorkState.LEASED,
        token=work.c.token + 1,
        attempts=work.c.attempts + 1,
        worker_id=sa.bindparam("holder"),
        leased_at=sa.bindparam("now"),
        rows_done=0,
    )
    .returning(*_ITEM)
)
CLAIM = _LEASE.where(work.c.id == sa.bindparam("item"), work.c.state == WorkState.READY)
_following = work.alias("following")
CLAIM_NEXT = _LEASE.where(
    work.c.state == WorkState.READY,
    work.c.id
    == sa.select(_following.c.id)
    .where(
        _following.c.run_id == sa.bindparam("run"),
        _following.c.state == WorkState.READY,
        _following.c.queue == sa.bindparam("its_queue"),
        _following.c.ready_at <= sa.bindparam("now"),
    )
    .order_by(_following.c.ready_at, _following.c.seq)
    .limit(1)
    .scalar_subquery(),
)
# what waits for anybody and goes before work of this priority
SOONER = (
    sa.select(work.c.id)
    .join(runs, runs.c.id == work.c.run_id)
    .where(
        IS_READY,
        work.c.queue == sa.bindparam("its_queue"),
        work.c.priority < sa.bindparam("priority"),
        work.c.ready_at <= sa.bindparam("now"),
        runs.c.host.is_(None),
    )
    .limit(1)
)
SET_HOST = (
    sa.update(runs).where(runs.c.id == sa.bindparam("run")).values(host=sa.bindparam("holder"))
)
RUN_STATE = sa.select(runs.c.state).join(work, work.c.run_id == runs.c.id).where(HELD).limit(1)
_active = work.alias("active")
_num_free = sa.bindparam("window", type_=sa.Integer) - sa.func.count()
_free = sa.select(sa.case((_num_free > 0, _num_free), else_=0)).where(
    _active.c.run_id == sa.bindparam("run"),
    sa.or_(_active.c.state == WorkState.READY, _active.c.state == WorkState.LEASED),
)
_waiting = work.alias("waiting")
OPEN = (
    sa.update(work)
    .where(
        work.c.id.in_(
            sa.select(_waiting.c.id)
            .where(_waiting.c.run_id == sa.bindparam("run"), _waiting.c.state == WorkState.WAITING)
            .order_by(_waiting.c.seq)
            .limit(_free.scalar_subquery())
            .scalar_subquery()
        )
    )
    .values(state=WorkState.READY, ready_at=sa.bindparam("now"))
    .returning(work.c.queue)
)

# --- reports --------------------------------------------------------------------------------------

ROWS_BEFORE = sa.select(work.c.rows_done).where(HELD)
_rows_before = sa.select(work.c.rows_done).where(HELD).scalar_subquery()
SHARD_DONE = (
    sa.update(work)
    .where(HELD)
    .values(
        state=WorkState.DONE,
        done_at=sa.bindparam("now"),
        result=sa.bindparam("its_result"),
        rows_done=sa.bindparam("rows"),
    )
)
SHARD_GOES_ON = sa.update(work).where(HELD).values(rows_done=sa.bindparam("rows"))
# before the item itself is changed: its present rows are taken back, whatever they are
COUNT_ROWS = (
    sa.update(runs)
    .where(runs.c.id == sa.bindparam("run"), sa.exists().where(HELD))
    .values(
        rows_done=runs.c.rows_done + sa.bindparam("rows") - _rows_before,
        shards_done=runs.c.shards_done + sa.bindparam("more_shards"),
    )
    .returning(
        *(runs.c[name] for name in EVENT_COLUMNS),
        runs.c.shards_done,
        runs.c.progress_announced,
    )
)
