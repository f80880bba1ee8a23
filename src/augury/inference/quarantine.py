"""Leaving out what cannot be read, by name.

A file without a sound footer is left out when the run is planned. A damaged page shows only while
its row group is read: then each of the shard's row groups of that file is read alone, those that
cannot be are named, and the shard is scored without them. Which ones these are follows from the
file's bytes, so a shard gives the same part whoever scores it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from augury.data.batches import BATCH_ROWS, FileSlice, read_batches
from augury.data.manifest import Quarantined
from augury.errors import CorruptError
from augury.inference.plan import Plan, ShardRange, ShardSpec

if TYPE_CHECKING:
    from augury.settings import Settings


def unreadable(
    plan: Plan, shard: ShardSpec, uri: str, settings: Settings, check: Callable[[], None]
) -> tuple[Quarantined, ...]:
    """The shard's row groups of one file that cannot be read.

    Args:
        plan: of the run.
        shard: whose reading failed.
        uri: of the file that was found to be damaged.
        settings: for access to the inputs.
        check: called after each row group.

    Raises:
        IdentityError: the file is not the planned one: it is not damaged, it was replaced.
        UnavailableError: its store failed.
    """
    found = []
    for each in shard.ranges:
        if each.uri == uri:
            reason = _fault(plan, each, settings)
            check()
            if reason is not None:
                found.append(
                    Quarantined(
                        uri=each.uri,
                        tag=each.tag,
                        row_group=each.row_group,
                        num_rows=each.num_rows,
                        reason=reason,
                    )
                )
    return tuple(found)


def _fault(plan: Plan, each: ShardRange, settings: Settings) -> str | None:
    alone = FileSlice(uri=each.uri, tag=each.tag, row_groups=((each.row_group, each.num_rows),))
    try:
        for _ in read_batches(
            alone, plan.model.signature, plan.columns, max_rows=BATCH_ROWS, settings=settings
        ):
            pass
    except CorruptError as error:
        return error.message
    return None


def without(shard: ShardSpec, quarantined: Sequence[Quarantined]) -> ShardSpec:
    """The shard without these row groups; its number and its keys stay."""
    lost = {(each.uri, each.row_group) for each in quarantined}
    kept = tuple(each for each in shard.ranges if (each.uri, each.row_group) not in lost)
    return replace(shard, ranges=kept)
