"""The tables of groups: lanes, groups, and members on their way through them."""

from __future__ import annotations

import sqlalchemy as sa

from augury.storage.columns import Id, Name, at, metadata

lanes = sa.Table(
    "lanes",  # a rule's events of one key: who groups them holds this row
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("rule_id", Id, nullable=False),
    sa.Column("epoch", Name, nullable=False),
    sa.Column("key", sa.Text, nullable=False),  # values of group_by as a JSON list
    # the newest under which a member was folded
    sa.Column("rule_version", sa.Integer, nullable=False, server_default="0"),
    at("created_at"),
    sa.Index(None, "rule_id"),
)
groups = sa.Table(
    "groups",  # events that act together; each closes once, in the order of the stream
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("lane_id", Id, nullable=False),
    sa.Column("rule_id", Id, nullable=False),
    sa.Column("rule_version", sa.Integer, nullable=False),
    sa.Column("action", Name, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("first_order", sa.String(48), nullable=False),
    at("opened_at"),
    at("last_at"),
    at("due_at", nullable=True),  # by the bus's clock; null: only an event closes it
    at("closed_at", nullable=True),
    sa.Column("why", sa.String(16), nullable=True),  # what closed it
    sa.Column("num_events", sa.Integer, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("expected", sa.Integer, nullable=True),
    sa.Column("joined_into", Id, nullable=True),  # the waiting group that acts for this one
    sa.Column("run_id", Id, nullable=True),
    # set while its run counts against max_active, which was this
    sa.Column("slot_of", sa.Integer, nullable=True),
    at("created_at"),
    at("updated_at"),
    sa.Index(
        "uq_groups_open",  # there is one at most, whoever groups
        "lane_id",
        "action",
        unique=True,
        sqlite_where=sa.text("state = 'OPEN'"),
        postgresql_where=sa.text("state = 'OPEN'"),
    ),
    sa.Index(
        "ix_groups_due",
        "due_at",
        sqlite_where=sa.text("state = 'OPEN'"),
        postgresql_where=sa.text("state = 'OPEN'"),
    ),
    sa.Index(
        "ix_groups_waiting",
        "lane_id",
        "closed_at",
        sqlite_where=sa.text("state = 'QUEUED'"),
        postgresql_where=sa.text("state = 'QUEUED'"),
    ),
    sa.Index(
        "ix_groups_slots",
        "lane_id",
        sqlite_where=sa.text("slot_of IS NOT NULL"),
        postgresql_where=sa.text("slot_of IS NOT NULL"),
    ),
    sa.Index(None, "first_order", "id"),
    sa.Index(None, "joined_into"),
    sa.Index(None, "rule_id", "state"),
)
group_members = sa.Table(
    "group_members",  # an outcome on its way through a group; without group_id: not yet folded
    metadata,
    sa.Column("outcome_id", Id, primary_key=True),
    sa.Column("lane_id", Id, nullable=False),
    sa.Column("action", Name, nullable=False),
    sa.Column("rule_version", sa.Integer, nullable=False),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("entry_order", sa.String(48), nullable=False),  # of the stream, as text that sorts
    at("accepted_at"),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("uri", sa.Text, nullable=True),
    sa.Column("tag", sa.Text, nullable=True),
    sa.Column("is_marker", sa.Boolean, nullable=False),
    sa.Column("expected", sa.Integer, nullable=True),
    sa.Column("body", sa.Text, nullable=True),  # of a replayed event, which may be in the archive
    sa.Column("group_id", Id, nullable=True),
    sa.Index(None, "group_id", "entry_order"),
    sa.Index(None, "position"),
    sa.Index(
        "ix_group_members_unfolded",
        "lane_id",
        "entry_order",
        sqlite_where=sa.text("group_id IS NULL"),
        postgresql_where=sa.text("group_id IS NULL"),
    ),
)
