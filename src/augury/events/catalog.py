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

    OBJECT_CREATED = "augury.object.created"  #: source, bucket, key, uri, size_bytes, tag, identity
    OBJECT_UPDATED = "augury.object.updated"  #: as created; the key held something else before
    OBJECT_DELETED = "augury.object.deleted"  #: as created; no tag or identity if not said
    OBJECT_READ = "augury.object.read"  #: as created, where the provider tells of reading
    OBJECT_SUPERSEDED = "augury.object.superseded"  #: and change, known: newer was told before
    WEBHOOK_RECEIVED = "augury.webhook.received"  #: the JSON that came, untouched
    MESSAGE_RECEIVED = "augury.message.received"  #: the JSON or bytes that came, untouched
    SCHEDULE_TICKED = "augury.schedule.ticked"  #: schedule, nominal_at, missed_count

    RUN_ACCEPTED = "augury.run.accepted"  #: run_id, run_name, job, state, rows_*
    RUN_STARTED = "augury.run.started"  #: as accepted
    RUN_PROGRESSED = "augury.run.progressed"  #: as accepted, and percent (25, 50, 75)
    RUN_CANCELING = "augury.run.canceling"  #: as accepted
    RUN_SUCCEEDED = "augury.run.succeeded"  #: and output_uri, manifest_*, complete, num_quarantined
    RUN_FAILED = "augury.run.failed"  #: as accepted, and reason (an error's code), details
    RUN_RESUMED = "augury.run.resumed"  #: as accepted, and num_resumes
    RUN_RETRIED = "augury.run.retried"  #: as succeeded, and generation: rejects were scored again
    RUN_CANCELED = "augury.run.canceled"  #: as accepted
    RUN_NEEDS_ATTENTION = "augury.run.needs_attention"  #: as accepted, and reason, details
    RUN_DELETED = "augury.run.deleted"  #: as accepted

    JOB_CREATED = "augury.job.created"  #: id, name, version
    JOB_UPDATED = "augury.job.updated"  #: id, name, version
    JOB_DELETED = "augury.job.deleted"  #: id, name, version
    RULE_CREATED = "augury.rule.created"  #: id, name, version
    RULE_UPDATED = "augury.rule.updated"  #: id, name, version
    RULE_DELETED = "augury.rule.deleted"  #: id, name, version
    SCHEDULE_CREATED = "augury.schedule.created"  #: id, name, version
    SCHEDULE_UPDATED = "augury.schedule.updated"  #: id, name, version
    SCHEDULE_DELETED = "augury.schedule.deleted"  #: id, name, version
    SOURCE_CREATED = "augury.source.created"  #: id, name, version
    SOURCE_UPDATED = "augury.source.updated"  #: id, name, version
    SOURCE_DELETED = "augury.source.deleted"  #: id, name, version
    MODEL_REGISTERED = "augury.model.registered"  #: name, version, digest, flavor
    MODEL_ALIAS_MOVED = "augury.model.alias_moved"  #: name, alias, version, previous; null if new
    MODEL_ALIAS_DELETED = "augury.model.alias_deleted"  #: name, alias, version; its model went
    MODEL_DELETED = "augury.model.deleted"  #: name

    REPLAY_CREATED = "augury.replay.created"  #: id, rule_id, rule_version, model, state, num_*
    REPLAY_RESUMED = "augury.replay.resumed"  #: as created: it was canceled, and goes on
    REPLAY_DONE = "augury.replay.done"  #: as created
    REPLAY_CANCELED = "augury.replay.canceled"  #: as created
