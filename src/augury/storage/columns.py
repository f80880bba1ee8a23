"""What the tables are made of: the metadata that names their constraints, and kinds of columns."""

from __future__ import annotations

import sqlalchemy as sa

from augury.storage.database import UtcDateTime

metadata = sa.MetaData(
    naming_convention={
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(column_0_N_label)s",
    }
)

Position = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Json = sa.JSON()
Id = sa.String(64)
Name = sa.String(255)


def at(name: str, *, nullable: bool = False) -> sa.Column[object]:
    """An instant."""
    return sa.Column(name, UtcDateTime, nullable=nullable)


def count(name: str) -> sa.Column[int]:
    """A number that begins with 0."""
    return sa.Column(name, sa.BigInteger, nullable=False, server_default="0")
