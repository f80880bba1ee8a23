"""Every event that Augury itself emits, in one table.

The source of our own events is `augury`; their ids follow from what happened, so that an event
sent twice is recognised. Sources name themselves (`augury/sources/landing`), for their events are
facts about the outside.
"""

from __future__ import annotations

from enum import StrEnum

OWN_SOURCE = "augury"


class EventType(StrEnum):
    """Type of an event of ours; the comment says what the event's data holds."""

    OBJECT_CREATED = "augury.object.created"  #: bucket, key, uri, size_bytes, identity
    OBJECT_UPDATED = "augury.object.updated"  #: as created; the key was there before
    SCHEDULE_TICKED = "augury.schedule.ticked"  #: schedule, nominal_at, missed_count

    RUN_ACCEPTED = "augury.run.accepted"  #: run_id, run_name, job, state, rows_*
    RUN_STARTED = "augury.run.started"
    RUN_PROGRESSED = "augury.run.progressed"  #: besides: percent (25, 50, 75)
    RUN_CANCELING = "augury.run.canceling"
    RUN_SUCCEEDED = "augury.run.succeeded"  #: besides: output_uri, manifest_uri, manifest_digest
    RUN_FAILED = "augury.run.failed"  #: besides: reason, details
    RUN_CANCELED = "augury.run.canceled"
    RUN_NEEDS_ATTENTION = "augury.run.needs_attention"
    RUN_DELETED = "augury.run.deleted"

    JOB_CREATED = "augury.job.created"  #: id, name, version (and so for each resource)
    JOB_UPDATED = "augury.job.updated"
    JOB_DELETED = "augury.job.deleted"
    RULE_CREATED = "augury.rule.created"
    RULE_UPDATED = "augury.rule.updated"
    RULE_DELETED = "augury.rule.deleted"
    SCHEDULE_CREATED = "augury.schedule.created"
    SCHEDULE_UPDATED = "augury.schedule.updated"
    SCHEDULE_DELETED = "augury.schedule.deleted"
    SOURCE_CREATED = "augury.source.created"
    SOURCE_UPDATED = "augury.source.updated"
    SOURCE_DELETED = "augury.source.deleted"
    MODEL_REGISTERED = "augury.model.registered"  #: name, version, digest, flavor
    MODEL_ALIAS_MOVED = "augury.model.alias_moved"  #: name, alias, version, previous
