"""What a rule says.

Pydantic checks the shape at the edge (apply, API); what the pattern means is checked when the rule
is applied (`store.apply_rule`), what the actions mean by `actions.spec`, which this package does
not know.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from augury.rules.group_spec import GroupSpec

type Dialect = Literal["augury", "eventbridge", "oci", "cloudevents"]
type WhenFull = Literal["queue", "coalesce", "drop"]


class RuleSpec(BaseModel):
    """A rule: which events, and what to do about each.

    Attributes:
        pattern: the JSON filter (docs/patterns.md), in the words of `dialect`.
        actions: see `actions.spec`; at least one.
        enabled: False: the rule is kept, and matches nothing.
        dialect: how the pattern is read.
        description: for people.
        group: which events act together (docs/grouping.md); None: each acts alone.
        max_active: most unfinished runs of this rule at a time, per key of `group`; None: no limit.
        when_full: what becomes of a group that closes while there are so many.
        shadow: True: nothing is done; outcomes say what would have been.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    pattern: dict[str, Any] | list[Any]
    actions: list[dict[str, Any]] = Field(min_length=1)
    enabled: bool = True
    dialect: Dialect = "augury"
    description: str | None = None
    group: GroupSpec | None = None
    max_active: int | None = Field(default=None, ge=1, le=10_000)
    when_full: WhenFull = "queue"
    shadow: bool = False

    @property
    def is_grouped(self) -> bool:
        """True if its events wait for a grouper, be it alone."""
        return self.group is not None or self.max_active is not None
