"""Building the manifest: where the rows are counted.

The last step of a run before its commit. Law 2 is asserted here for every file and in sum, from
what the shards counted while scoring against what the plan promised from the footers, less what was
quarantined; a run that lost or doubled a row cannot be committed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from augury.data.manifest import FileRows, Manifest, Part, Quarantined, Rows
from augury.data.unknown import merged
from augury.errors import ConservationError, RejectLimitError
from augury.inference.plan import Plan, ShardResult, total_rows
from augury.inference.rejects import FIRST_REJECTS, over_limit


def build_manifest(
    plan: Plan, *, run_id: str, job: str, results: Sequence[ShardResult]
) -> Manifest:
    """The manifest of a finished run. Pure: the same results give the same bytes.

    Args:
        plan: of the run.
        run_id: of the run.
        job: name of its job.
        results: of all its shards, in any order.

    Raises:
        ConservationError: a shard is missing or came twice, or the rows do not add up.
        RejectLimitError: more rows were rejected than the plan allows.
    """
    ordered = sorted(results, key=lambda result: result.seq)
    _check_shards(plan, ordered)
    files = _by_file(plan, ordered)
    parts = tuple(result.part for result in ordered if result.part is not None)
    rejects = tuple(result.reject_part for result in ordered if result.reject_part is not None)
    quarantined = (*plan.quarantined, *_lost(ordered))
    rows = total_rows([file.rows for file in files])
    _check_sums(plan, rows, ordered, parts, rejects)
    check_budget(plan, ordered)
    return Manifest(
        run_id=run_id,
        job=job,
        model=_model(plan),
        rows=rows,
        files=files,
        parts=parts,
        reject_parts=rejects,
        quarantined=quarantined,
        complete=not quarantined,
        unknown_categories=merged(result.unknown_categories for result in ordered),
        pins=msgspec.to_builtins(plan.pins),
        plan_digest=plan.digest,
    )


def _check_shards(plan: Plan, ordered: Sequence[ShardResult]) -> None:
    expected = list(range(plan.num_shards))
    found = [result.seq for result in ordered]
    if found != expected:
        missing = sorted(set(expected) - set(found))
        raise ConservationError(
            f"expected the results of shards 0 to {plan.num_shards - 1}, each once; found "
            f"{len(found)}, without {missing[:10]}",
            expected=plan.num_shards,
            found=len(found),
        )


def next_generation(before: Manifest, plan: Plan, results: Sequence[ShardResult]) -> Manifest:
    """The manifest after the rejected rows of a generation were scored again. Pure.

    Args:
        before: the manifest of the generation before.
        plan: of the retry; its files are the reject parts of `before`.
        results: of all its shards.

    Raises:
        ConservationError: a shard is missing, or the rows do not add up.
    """
    ordered = sorted(results, key=lambda result: result.seq)
    _check_shards(plan, ordered)
    parts = [result.part for result in ordered if result.part is not None]
    rejects = tuple(result.reject_part for result in ordered if result.reject_part is not None)
    files = _after_retry(before, ordered)
    rows = total_rows([file.rows for file in files])
    all_parts = (*before.parts, *parts)
    _check_generation(before, rows, all_parts, rejects)
    return replace(
        before,
        generation=plan.generation,
        previous=before.digest,
        model=_model(plan),
        rows=rows,
        files=files,
        parts=all_parts,
        reject_parts=rejects,
        superseded=(*before.superseded, *before.reject_parts),
        unknown_categories=merged(
            [before.unknown_categories, *(result.unknown_categories for result in ordered)]
        ),
        pins=msgspec.to_builtins(plan.pins),
        plan_digest=plan.digest,
    )


def _after_retry(before: Manifest, results: Sequence[ShardResult]) -> tuple[FileRows, ...]:
    left: Counter[str] = Counter()
    for result in results:
        left.update(result.rejected_by_file)
    return tuple(
        replace(
            file,
            rows_rejected=left[file.uri],
            rows_predicted=file.rows_predicted + file.rows_rejected - left[file.uri],
        )
        for file in before.files
    )


def _check_generation(
    before: Manifest, rows: Rows, parts: Sequence[Part], rejects: Sequence[Part]
) -> None:
    written = sum(part.num_rows for part in parts)
    set_aside = sum(part.num_rows for part in rejects)
    in_parts = (written, set_aside) == (rows.rows_predicted, rows.rows_rejected)
    if rows.rows_in != before.rows.rows_in or not rows.balanced or not in_parts:
        raise ConservationError(
            f"expected {before.rows} less what is predicted now; the files give {rows}, the parts "
            f"hold {written} predicted and {set_aside} rejected",
            expected=before.rows.rows_in,
            found=rows.rows_in,
        )


def _model(plan: Plan) -> Mapping[str, Any]:
    return {
        "name": plan.model.name,
        "version": plan.model.version,
        "digest": plan.model.digest,
        "flavor": plan.model.flavor,
    }


def check_budget(plan: Plan, results: Sequence[ShardResult]) -> None:
    """Looks whether some shards together rejected more than the whole run may.

    Raises:
        RejectLimitError: they did; names the first rejects.
    """
    allowed = plan.rows.max_rejected
    found = sum(result.rows_rejected for result in results)
    if allowed is not None and found > allowed:
        first = [row for result in results for row in result.first_rejects]
        raise RejectLimitError(
            over_limit(found, allowed, first[:FIRST_REJECTS]), allowed=allowed, found=found
        )


def _lost(ordered: Sequence[ShardResult]) -> list[Quarantined]:
    return [each for result in ordered for each in result.quarantined]


def _by_file(plan: Plan, ordered: Sequence[ShardResult]) -> tuple[FileRows, ...]:
    counted: dict[tuple[str, str], Rows] = {}
    for result in ordered:
        for share in result.files:
            identity = (share.uri, share.tag)
            counted[identity] = counted.get(identity, Rows()) + share.rows
    lost: Counter[tuple[str, str]] = Counter()
    for each in _lost(ordered):
        lost[each.uri, each.tag] += each.num_rows or 0
    files = []
    for file in plan.files:
        rows = counted.pop((file.uri, file.tag), Rows())
        _check_file(file.uri, file.num_rows - lost[file.uri, file.tag], rows)
        files.append(FileRows(uri=file.uri, tag=file.tag, **msgspec.to_builtins(rows)))
    if counted:
        raise ConservationError(f"rows of files that were not planned: {sorted(counted)[:10]}")
    return tuple(files)


def _check_file(uri: str, num_rows: int, rows: Rows) -> None:
    if rows.rows_in != num_rows or not rows.balanced:
        raise ConservationError(
            f"{uri}: expected {num_rows} rows = predicted + rejected + filtered, found {rows}",
            uri=uri,
            expected=num_rows,
            found=rows.rows_in,
        )


def _check_sums(
    plan: Plan,
    rows: Rows,
    ordered: Sequence[ShardResult],
    parts: Sequence[Part],
    rejects: Sequence[Part],
) -> None:
    written = sum(part.num_rows for part in parts)
    set_aside = sum(part.num_rows for part in rejects)
    reported = total_rows([result.rows for result in ordered])
    in_parts = (written, set_aside) == (rows.rows_predicted, rows.rows_rejected)
    expected = plan.rows_in - sum(each.num_rows or 0 for each in _lost(ordered))
    if rows.rows_in != expected or reported != rows or not in_parts:
        raise ConservationError(
            f"expected {expected} rows in all; the files give {rows}, the shards {reported}, "
            f"the parts hold {written} predicted and {set_aside} rejected",
            expected=expected,
            found=rows.rows_in,
        )
