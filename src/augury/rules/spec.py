"""What a rule says.

Pydantic checks the shape at the edge (apply, API); what the pattern means is checked when the rule
is applied (`store.apply_rule`), what the actions mean by `actions.spec`, which this package does
not know.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

type Dialect = Literal["augury", "eventbridge", "oci", "cloudevents"]


class RuleSpec(BaseModel):
    """A rule: which events, and what to do about each.

    Attributes:
        pattern: the JSON filter (docs/patterns.md), in the words of `dialect`.
        actions: see `actions.spec`; at least one.
        enabled: False: the rule is kept, and matches nothing.
        dialect: how the pattern is read.
        description: for people.
        shadow: True: nothing is done; outcomes say what would have been.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    pattern: dict[str, Any] | list[Any]
    actions: list[dict[str, Any]] = Field(min_length=1)
    enabled: bool = True
    dialect: Dialect = "augury"
    description: str | None = None
    shadow: bool = False
