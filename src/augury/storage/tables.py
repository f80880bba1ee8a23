"""The tables, in the order of an event's life.

Names are the nouns of the product (`runs`, `rules`, `outcomes`). What must never happen twice is a
unique constraint here, not a check in code; what must be found fast has its index here.
"""

from __future__ import annotations

import sqlalchemy as sa

from augury.storage.columns import Id as _Id
from augury.storage.columns import Json as _Json
from augury.storage.columns import Name as _Name
from augury.storage.columns import Position as _Position
from augury.storage.columns import at as _at
from augury.storage.columns import count as _count
from augury.storage.columns import metadata
from augury.storage.database import UtcDateTime
from augury.storage.group_tables import group_members, groups, lanes

# the tables of other modules belong to the same schema, and are found here like all
__all__ = ["group_members", "groups", "lanes", "metadata"]

meta = sa.Table(
    "meta",
    metadata,
    sa.Column("key", _Name, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

# --- resources: what users apply -----------------------------------------------------------------


def _resource_tables(plural: str, singular: str) -> tuple[sa.Table, sa.Table]:
    """A resource's current state, and every version of it that ever was."""
    current = sa.Table(
        plural,
        metadata,
        sa.Column("id", _Id, primary_key=True),
        sa.Column("name", _Name, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("spec", _Json, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        _at("created_at"),
        _at("updated_at"),
        _at("deleted_at", nullable=True),
        # a deleted resource keeps its row (history names it) and frees its name
        sa.Index(
            f"uq_{plural}_live_name",
            "name",
            unique=True,
            sqlite_where=sa.text("deleted_at IS NULL"),
            postgresql_where=sa.text("deleted_at IS NULL"),
        ),
    )
    versions = sa.Table(
        f"{singular}_versions",
        metadata,
        sa.Column("id", _Id, primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("spec", _Json, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        _at("created_at"),
    )
    return current, versions


rules, rule_versions = _resource_tables("rules", "rule")
jobs, job_versions = _resource_tables("jobs", "job")
schedules, schedule_versions = _resource_tables("schedules", "schedule")
sources, source_versions = _resource_tables("sources", "source")

rulesets = sa.Table(
    "rulesets",  # one row per change of the set of enabled rules; the newest is the active one
    metadata,
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    _at("created_at"),
)
ruleset_members = sa.Table(
    "ruleset_members",  # rule version R belongs to rulesets from_ruleset <= V < until_ruleset
    metadata,
    sa.Column("rule_id", _Id, primary_key=True),
    sa.Column("rule_version", sa.Integer, primary_key=True),
    sa.Column("from_ruleset", sa.Integer, primary_key=True),
    sa.Column("until_ruleset", sa.Integer, nullable=True),
    sa.Index(None, "until_ruleset"),
)

# --- sources -------------------------------------------------------------------------------------

ticks = sa.Table(
    "ticks",  # unique by nominal instant: two schedulers or a restart neither double nor lose one
    metadata,
    sa.Column("schedule_id", _Id, primary_key=True),
    sa.Column("nominal_at", UtcDateTime, primary_key=True),
    sa.Column("state", sa.String(16), nullable=False),  # FIRED | MISSED | SKIPPED | QUEUED
    sa.Column("missed_count", sa.Integer, nullable=False, server_default="0"),
    _at("recorded_at"),
    sa.Index(
        "ix_ticks_queued",
        "schedule_id",
        sqlite_where=sa.text("state = 'QUEUED'"),
        postgresql_where=sa.text("state = 'QUEUED'"),
    ),
)
source_objects = sa.Table(
    "source_objects",  # what a watcher has seen, so that a listing announces only what is new
    metadata,
    sa.Column("source_id", _Id, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("identity", sa.Text, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),  # PENDING (incomplete) | ANNOUNCED | DELETED
    _at("seen_at"),
    # what the last notification said (webhook and queue sources), to know an older one by
    sa.Column("version", sa.Text, nullable=True),
    sa.Column("last_order", sa.Text, nullable=True),
    _at("last_at", nullable=True),  # by the store's clock, not ours
    sa.Column("life", sa.Integer, nullable=False, server_default="0"),  # deletions so far
)

# --- the bus and the ledger ----------------------------------------------------------------------

outbox = sa.Table(
    "outbox",  # events of ours that the ledger does not hold yet
    metadata,
    sa.Column("id", _Position, primary_key=True, autoincrement=True),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("event_id", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    _at("created_at"),
    _at("sent_at", nullable=True),
    sa.Column("incarnation", _Id, nullable=True),
    sa.UniqueConstraint("source", "event_id"),
    sa.Index(None, "sent_at"),
    sa.Index(None, "incarnation"),
)
events = sa.Table(
    "events",  # one row per accepted event: an entry of the stream that was routed
    metadata,
    sa.Column("position", _Position, primary_key=True, autoincrement=True),
    sa.Column("incarnation", _Id, nullable=False),
    sa.Column("entry_id", sa.String(48), nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("event_id", sa.Text, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("content_digest", sa.String(64), nullable=False),
    sa.Column("ruleset_version", sa.Integer, nullable=False),
    sa.Column("matched", _Json, nullable=False),  # sorted list of rule ids
    sa.Column("duplicate_of", sa.BigInteger, nullable=True),
    _at("accepted_at"),
    sa.UniqueConstraint("incarnation", "entry_id"),
    sa.Index(None, "type", "position"),
    sa.Index(None, "accepted_at", "position"),
    sa.Index(None, "event_id", "source"),  # in this order it serves a search by id alone, too
)
archives = sa.Table(
    "archives",  # files of events that left `events`; together they are its beginning, without gap
    metadata,
    sa.Column("first_position", _Position, primary_key=True, autoincrement=False),
    sa.Column("last_position", sa.BigInteger, nullable=False),  # inclusive
    sa.Column("num_events", sa.Integer, nullable=False),
    sa.Column("num_outcomes", sa.Integer, nullable=False),
    sa.Column("incarnations", _Json, nullable=False),  # events per life of the bus
    _at("first_accepted_at"),
    _at("last_accepted_at"),
    sa.Column("uri", sa.Text, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    _at("created_at"),
    _at("keys_purged_at", nullable=True),  # when (source, id) of its events were forgotten
)
event_keys = sa.Table(
    "event_keys",  # (source, id) of every event; outlives the event by the stated window
    metadata,
    sa.Column("source", sa.Text, primary_key=True),
    sa.Column("event_id", sa.Text, primary_key=True),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("content_digest", sa.String(64), nullable=False),
    _at("seen_at"),
)
outcomes = sa.Table(
    "outcomes",  # exactly one per (event, rule, action, epoch) of the matched set
    metadata,
    sa.Column("id", _Id, primary_key=True),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("rule_id", _Id, nullable=False),
    sa.Column("rule_version", sa.Integer, nullable=False),
    sa.Column("action", _Name, nullable=False),
    sa.Column("epoch", _Name, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text, nullable=True),
    sa.Column("occurrence", sa.Text, nullable=True),
    sa.Column("run_id", _Id, nullable=True),
    _at("created_at"),
    _at("updated_at"),
    sa.UniqueConstraint("position", "rule_id", "action", "epoch"),
    sa.Index(None, "run_id"),
    sa.Index(None, "rule_id", "state"),
)
effects = sa.Table(
    "effects",  # what an action does outside Augury, from the moment it is owed; one per outcome
    metadata,
    sa.Column("id", _Id, primary_key=True),  # the outcome's: the idempotency key outside
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("rule_id", _Id, nullable=False),
    sa.Column("rule_version", sa.Integer, nullable=False),
    sa.Column("action", _Name, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("target", _Name, nullable=False),  # what fails together
    sa.Column("request", _Json, nullable=False),  # filled; secrets by name
    sa.Column("retry", _Json, nullable=False),  # budget and pace
    sa.Column("state", sa.String(16), nullable=False),  # WAITING | LEASED | DELIVERED | DEAD
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("token", sa.BigInteger, nullable=False, server_default="0"),  # fencing, +1 a claim
    sa.Column("worker_id", _Id, nullable=True),
    sa.Column("last_error", sa.Text, nullable=True),
    _at("queued_at"),
    _at("expires_at"),  # no attempt begins later
    _at("next_attempt_at", nullable=True),
    _at("first_attempt_at", nullable=True),
    _at("last_attempt_at", nullable=True),
    _at("done_at", nullable=True),
    sa.Index(
        "ix_effects_due",  # holds all that the search for due targets reads
        "target",
        "next_attempt_at",
        "kind",
        "expires_at",
        sqlite_where=sa.text("state = 'WAITING'"),
        postgresql_where=sa.text("state = 'WAITING'"),
    ),
    sa.Index(
        "ix_effects_leased",
        "worker_id",
        sqlite_where=sa.text("state = 'LEASED'"),
        postgresql_where=sa.text("state = 'LEASED'"),
    ),
)
replays = sa.Table(
    "replays",  # past events through a rule again; the id is the epoch of what it does
    metadata,
    sa.Column("id", _Name, primary_key=True),
    sa.Column("rule_id", _Id, nullable=False),
    sa.Column("rule_version", sa.Integer, nullable=False),
    sa.Column("model", sa.Text, nullable=True),  # name@version for every run; null: the rule's own
    _at("since", nullable=True),
    _at("until", nullable=True),
    sa.Column("last_position", sa.BigInteger, nullable=False),  # the ledger's when it was asked for
    sa.Column("state", sa.String(16), nullable=False),  # RUNNING | DONE | CANCELED
    sa.Column("position", sa.BigInteger, nullable=False),  # everything up to here is decided
    _count("num_events"),
    _count("num_matched"),
    _count("num_outcomes"),
    _count("num_resumes"),  # went on after it was canceled
    sa.Column("last_error", sa.Text, nullable=True),  # why it does not go on, if it does not
    _at("created_at"),
    _at("updated_at"),
    _at("finished_at", nullable=True),
    sa.Index(
        "ix_replays_running",
        "created_at",
        sqlite_where=sa.text("state = 'RUNNING'"),
        postgresql_where=sa.text("state = 'RUNNING'"),
    ),
)
object_claims = sa.Table(
    "object_claims",  # an object enters at most one run or group per rule, action and epoch
    metadata,
    sa.Column("rule_id", _Id, primary_key=True),
    sa.Column("action", _Name, primary_key=True),
    sa.Column("epoch", _Name, primary_key=True),
    sa.Column("object_identity", sa.Text, primary_key=True),
    sa.Column("outcome_id", _Id, nullable=False),
    sa.Column("position", sa.BigInteger, nullable=False),  # the outcome's event; both may go first
)
dead_letters = sa.Table(
    "dead_letters",  # of kind entry (no router could route it) and action (its outcome is DEAD)
    metadata,
    sa.Column("id", _Id, primary_key=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("incarnation", _Id, nullable=True),  # of an entry
    sa.Column("entry_id", sa.String(48), nullable=True),
    sa.Column("outcome_id", _Id, nullable=True),  # of an action, as all up to `request`
    sa.Column("position", sa.BigInteger, nullable=True),
    sa.Column("rule_id", _Id, nullable=True),
    sa.Column("rule_version", sa.Integer, nullable=True),
    sa.Column("action", _Name, nullable=True),
    sa.Column("request", _Json, nullable=True),  # what the event filled in
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),  # OPEN | REDRIVEN | DISCARDED
    _at("created_at"),
    sa.UniqueConstraint("incarnation", "entry_id"),
    sa.Index(None, "outcome_id"),
)
bus_incidents = sa.Table(
    "bus_incidents",  # LOST (another incarnation appeared) | TRIMMED (entries gone before routing)
    metadata,
    sa.Column("id", _Id, primary_key=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("detail", _Json, nullable=False),
    sa.Column("position", sa.BigInteger, nullable=False),  # the ledger's last position at that time
    _at("created_at"),
    _at("acknowledged_at", nullable=True),
)

# --- models --------------------------------------------------------------------------------------

models = sa.Table(
    "models",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    sa.Column("name", _Name, nullable=False, unique=True),
    _at("created_at"),
)
model_versions = sa.Table(
    "model_versions",
    metadata,
    sa.Column("model_id", _Id, sa.ForeignKey("models.id"), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("flavor", sa.String(32), nullable=False),
    sa.Column("signature", _Json, nullable=False),
    sa.Column("uri", sa.Text, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("trusted", sa.Boolean, nullable=False),
    sa.Column("description", sa.Text, nullable=True),
    # what the self-check chose to score with, and why not the kernel
    sa.Column("backend", sa.String(255), nullable=False, default=""),
    sa.Column("backend_reason", sa.Text, nullable=False, default=""),
    _at("created_at"),
    sa.UniqueConstraint("model_id", "digest"),
)
model_aliases = sa.Table(
    "model_aliases",
    metadata,
    sa.Column("model_id", _Id, sa.ForeignKey("models.id"), primary_key=True),
    sa.Column("alias", _Name, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    _at("updated_at"),
)

# --- runs and their work -------------------------------------------------------------------------

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    sa.Column("run_key", sa.String(80), nullable=False, unique=True),
    sa.Column("name", _Name, nullable=False),
    sa.Column("job_id", _Id, nullable=False),
    sa.Column("job_name", _Name, nullable=False),
    sa.Column("job_version", sa.Integer, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),  # inference | script
    sa.Column("spec", _Json, nullable=False),  # the job's spec with the run's overrides on top
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("lifecycle_details", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=True),  # error code of a failed or cancelled run
    sa.Column("mode", sa.String(16), nullable=True),  # null until planned when the job says auto
    sa.Column("position", sa.BigInteger, nullable=True),  # the event that led here
    sa.Column("outcome_id", _Id, nullable=True),
    sa.Column("epoch", _Name, nullable=False, server_default="0"),  # 0: live; else the replay's id
    sa.Column("priority", sa.Integer, nullable=False, server_default="0"),  # see states.Priority
    _at("time_accepted"),
    _at("time_started", nullable=True),
    _at("time_finished", nullable=True),
    _at("time_committed", nullable=True),
    sa.Column("host", _Name, nullable=True),  # mode batch: the one worker that holds the run
    sa.Column("plan", sa.Text, nullable=True),  # the pins, as canonical JSON; shards are in work
    sa.Column("output_uri", sa.Text, nullable=True),
    sa.Column("manifest", sa.Text, nullable=True),  # of the last generation; set by its commit
    sa.Column("manifest_digest", sa.String(64), nullable=True),
    _count("rows_in"),
    _count("rows_predicted"),
    _count("rows_rejected"),
    _count("rows_filtered"),
    _count("num_quarantined"),  # files and row groups left out of the committed result
    _count("rows_done"),
    _count("shards_total"),
    _count("shards_done"),
    sa.Column("progress_announced", sa.Integer, nullable=False, server_default="0"),  # percent
    _at("cleaning_at", nullable=True),  # when removing its parts began: it cannot be resumed then
    _at("cleaned_at", nullable=True),  # when what a run without result left was removed
    _at("time_resumed", nullable=True),
    sa.Column("generation", sa.Integer, nullable=False, server_default="1"),  # of the manifest
    sa.Column("num_resumes", sa.Integer, nullable=False, server_default="0"),
    _count("num_returns"),  # to IN_PROGRESS, by a resume or from NEEDS_ATTENTION
    _count("shards_isolated"),  # given up because they keep killing or outlasting their workers
    # of a script run; what the last attempt gave
    sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),
    sa.Column("exit_code", sa.Integer, nullable=True),
    sa.Column("exit_signal", sa.String(16), nullable=True),  # SIGKILL; then there is no exit code
    sa.Column("peak_memory_bytes", sa.BigInteger, nullable=True),
    sa.Index(None, "state", "time_accepted"),
    sa.Index(None, "job_id", "time_accepted"),
    sa.Index(None, "time_accepted"),
    sa.Index(
        "ix_runs_held",
        "host",
        sqlite_where=sa.text("host IS NOT NULL"),
        postgresql_where=sa.text("host IS NOT NULL"),
    ),
    sa.Index(
        "ix_runs_to_clean",
        "time_finished",
        sqlite_where=sa.text("cleaned_at IS NULL AND time_finished IS NOT NULL"),
        postgresql_where=sa.text("cleaned_at IS NULL AND time_finished IS NOT NULL"),
    ),
)
work = sa.Table(
    "work",  # what has to run: the database knows, the broker only wakes
    metadata,
    sa.Column("id", _Id, primary_key=True),
    sa.Column("run_id", _Id, sa.ForeignKey("runs.id"), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),  # plan | shard | script
    sa.Column("seq", sa.Integer, nullable=False),
    sa.Column("queue", sa.String(32), nullable=False),
    sa.Column("priority", sa.Integer, nullable=False, server_default="0"),  # its run's
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("spec", _Json, nullable=True),
    sa.Column("result", _Json, nullable=True),
    sa.Column("error", sa.Text, nullable=True),
    _count("rows_done"),  # of an unfinished shard; part of the run's rows_done
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("token", sa.BigInteger, nullable=False, server_default="0"),  # fencing, +1 a claim
    sa.Column("worker_id", _Id, nullable=True),
    _at("ready_at", nullable=True),
    _at("leased_at", nullable=True),
    _at("done_at", nullable=True),
    sa.UniqueConstraint("run_id", "kind", "seq"),
    sa.Index(None, "run_id", "state", "seq"),
    sa.Index(
        "ix_work_ready",
        "queue",
        "priority",
        "ready_at",
        sqlite_where=sa.text("state = 'READY'"),
        postgresql_where=sa.text("state = 'READY'"),
    ),
    sa.Index(
        "ix_work_leased",
        "worker_id",
        sqlite_where=sa.text("state = 'LEASED'"),
        postgresql_where=sa.text("state = 'LEASED'"),
    ),
)
workers = sa.Table(
    "workers",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    sa.Column("host", _Name, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("queues", _Json, nullable=False),
    sa.Column("cpus", sa.Integer, nullable=False),
    _count("heartbeat"),
    _at("started_at"),
    _at("stopped_at", nullable=True),
)
run_logs = sa.Table(
    "run_logs",  # what Augury did to a run, line by line
    metadata,
    sa.Column("id", _Position, primary_key=True, autoincrement=True),
    sa.Column("run_id", _Id, nullable=False),
    _at("at"),
    sa.Column("level", sa.String(8), nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Index(None, "run_id", "id"),
)
run_output = sa.Table(
    "run_output",  # what a run's program said, in compressed chunks of lines
    metadata,
    sa.Column("id", _Position, primary_key=True, autoincrement=True),
    sa.Column("run_id", _Id, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("first_number", sa.BigInteger, nullable=False),
    sa.Column("last_number", sa.BigInteger, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    _at("at"),
    sa.UniqueConstraint("run_id", "last_number"),
)
