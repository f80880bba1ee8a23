"""The states of a run and of its work, as data.

A run's states are OCI Data Science's. A transition happens by a conditional UPDATE that names the
states it may leave, so of two racing transitions one wins and the other learns that it lost.

    ACCEPTED ──> IN_PROGRESS ──> SUCCEEDED
       │  │           │  ├─────> FAILED
       │  └──> FAILED │  └─────> NEEDS_ATTENTION ──> IN_PROGRESS | FAILED
       └──> CANCELING <──┘              └──> CANCELING
                 └──> CANCELED                       (any terminal state ──> DELETED)

Back into life a run comes only if somebody resumes it (`resume.py`), by a transition of its own:

    FAILED | CANCELED | NEEDS_ATTENTION ──(resume)──> IN_PROGRESS
"""

from __future__ import annotations

from enum import IntEnum, StrEnum


class RunState(StrEnum):
    """Where a run is in its life."""

    ACCEPTED = "ACCEPTED"  #: stored; will run, come what may
    IN_PROGRESS = "IN_PROGRESS"  #: a worker has begun
    SUCCEEDED = "SUCCEEDED"  #: the manifest is in place
    FAILED = "FAILED"  #: `reason` and `lifecycle_details` say why
    CANCELING = "CANCELING"  #: asked to stop; workers are letting go
    CANCELED = "CANCELED"  #: stopped; nothing was committed
    NEEDS_ATTENTION = "NEEDS_ATTENTION"  #: waits for a person
    DELETED = "DELETED"  #: removed by a user


TRANSITIONS: dict[RunState, frozenset[RunState]] = {
    RunState.ACCEPTED: frozenset(
        {RunState.IN_PROGRESS, RunState.FAILED, RunState.CANCELING, RunState.NEEDS_ATTENTION}
    ),
    RunState.IN_PROGRESS: frozenset(
        {RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELING, RunState.NEEDS_ATTENTION}
    ),
    RunState.NEEDS_ATTENTION: frozenset(
        {RunState.IN_PROGRESS, RunState.FAILED, RunState.CANCELING}
    ),
    RunState.CANCELING: frozenset({RunState.CANCELED}),
    RunState.SUCCEEDED: frozenset({RunState.DELETED}),
    RunState.FAILED: frozenset({RunState.DELETED}),
    RunState.CANCELED: frozenset({RunState.DELETED}),
    RunState.DELETED: frozenset(),
}

TERMINAL = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELED, RunState.DELETED})
# not in the table: only `resume` may do this, so that nothing else revives what has ended
RESUMABLE = frozenset({RunState.FAILED, RunState.CANCELED, RunState.NEEDS_ATTENTION})
# runs whose work may be claimed
LIVE = (RunState.ACCEPTED, RunState.IN_PROGRESS)
# CANCELING is absent: cancelling twice is answered with the first request's state
CANCELABLE = frozenset({RunState.ACCEPTED, RunState.IN_PROGRESS, RunState.NEEDS_ATTENTION})


class WorkState(StrEnum):
    """Where one item of work is."""

    WAITING = "WAITING"  #: behind the run's window (`max_concurrency`)
    READY = "READY"  #: may be claimed
    LEASED = "LEASED"  #: a worker holds it under a fencing token
    DONE = "DONE"  #: its result is recorded
    FAILED = "FAILED"  #: given up; `error` says why
    CANCELED = "CANCELED"  #: its run ended before it was done


LIVE_EPOCH = "0"  # what is decided when an event arrives; a replay is an epoch of its own


class Priority(IntEnum):
    """Whose work is claimed first; smaller is sooner, and nothing of a kind overtakes its own."""

    LIVE = 0  #: what happens now
    REPLAY = 10  #: what happened before, again; waits while live work is ready


class OutcomeState(StrEnum):
    """What became of one (event, rule, action, epoch)."""

    PENDING = "PENDING"  #: open: a member of a group that is not closed
    QUEUED = "QUEUED"  #: open: waits for capacity
    RETRYING = "RETRYING"  #: open: a transient failure is tried again
    STARTED = "STARTED"  #: a run was accepted
    JOINED = "JOINED"  #: became part of a run that another event started
    DELIVERED = "DELIVERED"  #: an external effect was confirmed
    SUPPRESSED = "SUPPRESSED"  #: known already; `reason` says how (duplicate, same object)
    DROPPED = "DROPPED"  #: by the rule's own policy
    SHADOW = "SHADOW"  #: would have acted
    DEAD = "DEAD"  #: failed for good; in the dead letters
    DISCARDED = "DISCARDED"  #: a person threw the dead letter away


OPEN_OUTCOMES = frozenset({OutcomeState.PENDING, OutcomeState.QUEUED, OutcomeState.RETRYING})


class DeadLetterState(StrEnum):
    """What became of a dead letter."""

    OPEN = "OPEN"  #: waits for a person
    REDRIVEN = "REDRIVEN"  #: published again, or tried again
    DISCARDED = "DISCARDED"  #: thrown away by a person


class GroupState(StrEnum):
    """Where a group of events is. A closed one gets no more members."""

    OPEN = "OPEN"  #: events join it
    QUEUED = "QUEUED"  #: closed; waits until fewer runs of its rule and key are active
    JOINED = "JOINED"  #: closed; another group, which waited, acts for it
    STARTED = "STARTED"  #: its run was accepted, or its effect is owed
    DROPPED = "DROPPED"  #: by the rule's own policy
    SHADOW = "SHADOW"  #: would have acted
    DEAD = "DEAD"  #: failed for good
