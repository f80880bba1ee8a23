"""Law 2 and the commit, by what lies in the object store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from itertools import pairwise

from augury.data.manifest import MANIFEST_KEY, Rows, chain_faults
from augury.errors import AuguryError, CorruptError
from augury.ids import digest
from augury.monitoring.audit.check import Check, Finding, differences, shown
from augury.monitoring.audit.outputs import Output

_COUNTS = ("rows_in", "rows_predicted", "rows_rejected", "rows_filtered")


def _store(output: Output) -> Iterator[Finding]:
    try:
        len(output.objects)
    except AuguryError as error:  # away, or the bucket is gone
        yield Finding(output.subject, f"its output at {output.row.output_uri}", error.message)


def _text(output: Output) -> Iterator[Finding]:
    row = output.row
    try:
        said = output.read_manifest()
    except CorruptError as error:
        yield Finding(output.subject, "a manifest in the ledger", error.message)
        return
    expected, found = differences(
        {
            "manifest_digest": digest(row.manifest.encode()),
            "run_id": said.run_id,
            "generation": said.generation,
        },
        {
            "manifest_digest": row.manifest_digest,
            "run_id": row.id,
            "generation": row.generation,
        },
    )
    if found:
        yield Finding(output.subject, f"what its manifest says: {expected}", found)
    plan = digest((row.plan or "").encode())
    if output.first is not None and output.first.plan_digest != plan:
        expected = f"plan_digest={output.first.plan_digest} as its first manifest says"
        yield Finding(output.subject, expected, plan)


def _object(output: Output) -> Iterator[Finding]:
    data = output.manifest_bytes()
    if data is None:
        expected = f"{output.row.output_uri}{output.manifest_key}"
        yield Finding(output.subject, expected, "no such object")
    elif data != output.row.manifest.encode():
        expected = f"{output.manifest_key} as the ledger has it ({output.row.manifest_digest})"
        yield Finding(output.subject, expected, digest(data))


def _part_object(output: Output) -> Iterator[Finding]:
    for part in output.parts:
        found = output.found.get(part.key)
        subject = f"{output.subject}, {part.key}"
        if found is None:
            yield Finding(subject, "an object, for the manifest names it", "no such object")
            continue
        expected, differs = differences(
            {"size_bytes": part.size_bytes, "sha256": part.sha256}, asdict(found)
        )
        if differs:
            yield Finding(subject, expected, differs)


def _part_rows(output: Output) -> Iterator[Finding]:
    for part in output.parts:
        found = output.found.get(part.key)
        if found is None or found.sha256 != part.sha256:
            continue  # another check's finding
        if found.num_rows != part.num_rows:
            subject = f"{output.subject}, {part.key}"
            yield Finding(subject, f"{part.num_rows} rows", f"{found.num_rows} by its footer")


def _law(output: Output) -> Iterator[Finding]:
    manifest = output.manifest
    if manifest is None:
        return
    for file in manifest.files:
        if not file.rows.balanced:
            yield Finding(f"{output.subject}, input {file.uri}", *_unbalanced(file.rows))
    total = sum((file.rows for file in manifest.files), Rows())
    written = {
        "rows_predicted": sum(part.num_rows for part in manifest.parts),
        "rows_rejected": sum(part.num_rows for part in manifest.reject_parts),
    }
    ledger = {name: getattr(output.row, name) for name in _COUNTS}
    for what, expected, found in (
        ("sum of its files", asdict(manifest.rows), asdict(total)),
        ("ledger", asdict(manifest.rows), ledger),
        ("parts", {name: getattr(manifest.rows, name) for name in written}, written),
    ):
        wanted, differs = differences(expected, found)
        if differs:
            yield Finding(f"{output.subject}, {what}", f"as its manifest: {wanted}", differs)


def _unbalanced(rows: Rows) -> tuple[str, str]:
    accounted = rows.rows_predicted + rows.rows_rejected + rows.rows_filtered
    return f"{rows.rows_in} rows accounted for", f"{accounted}"


def _input_rows(output: Output) -> Iterator[Finding]:
    for file in output.manifest.files if output.manifest else ():
        num_rows = output.input_rows(file.uri, file.tag)
        lost = output.quarantined_rows(file.uri)
        if num_rows is not None and num_rows != file.rows_in + lost:
            subject = f"{output.subject}, input {file.uri}"
            found = f"rows_in={file.rows_in}, and {lost} quarantined"
            yield Finding(subject, f"{num_rows} rows by its footer", found)


def _stray(output: Output) -> Iterator[Finding]:
    if output.manifest is None:
        return
    for key in output.strays:
        found = f"{output.objects[key].size_bytes} bytes"
        yield Finding(f"{output.subject}, {key}", "in the manifest, or not there", found)


def _shard_rows(output: Output) -> Iterator[Finding]:
    """What the shards reported, one by one, is what the first manifest says in sum."""
    manifest = output.first
    if manifest is None:
        return
    reported: Counter[str] = Counter()
    parts = {}
    for shard in output.shards:
        result = shard.result or {}
        reported.update({name: result.get(name, 0) for name in _COUNTS})
        for part in filter(None, (result.get("part"), result.get("reject_part"))):
            parts[part["key"]] = part["sha256"]
    expected, found = differences(asdict(manifest.rows), reported)
    if found:
        yield Finding(output.subject, f"shards that report {expected}", found)
    named = {part.key: part.sha256 for part in (*manifest.parts, *manifest.reject_parts)}
    for key in sorted(named.keys() | parts.keys()):
        if named.get(key) != parts.get(key):
            subject = f"{output.subject}, {key}"
            yield Finding(subject, f"sha256={named.get(key)}", f"shard: {parts.get(key)}")


def _shard_ranges(output: Output) -> Iterator[Finding]:
    """Every row group is in exactly one shard, and all of them together are the input."""
    if output.manifest is None:
        return
    seen: dict[tuple[str, int], int] = {}
    planned: Counter[str] = Counter()
    for shard in output.shards:
        for each in (shard.spec or {}).get("ranges", ()):
            place = (each["uri"], each["row_group"])
            if place in seen:
                subject = f"{output.subject}, row group {each['row_group']} of {each['uri']}"
                yield Finding(subject, "in one shard", f"in {seen[place]} and {shard.seq}")
            else:
                planned[each["uri"]] += each["num_rows"]
            seen.setdefault(place, shard.seq)
    for file in output.manifest.files:
        expected = file.rows_in + output.quarantined_rows(file.uri)
        if planned[file.uri] != expected:
            subject = f"{output.subject}, input {file.uri}"
            yield Finding(subject, f"{expected} rows in shards", f"{planned[file.uri]}")


def _quarantine(output: Output) -> Iterator[Finding]:
    """A partial result says so, and what it leaves out cannot be read indeed."""
    manifest = output.manifest
    if manifest is None:
        return
    lost = len(manifest.quarantined)
    expected, found = differences(
        {"complete": lost == 0, "num_quarantined": lost},
        {"complete": manifest.complete, "num_quarantined": output.row.num_quarantined},
    )
    if found:
        yield Finding(output.subject, f"what its manifest lists: {expected}", found)
    for each in manifest.quarantined:
        if output.can_read(each):
            yield Finding(f"{output.subject}, {each}", "damaged", "every page can be read")


def _generations(output: Output) -> Iterator[Finding]:
    """Each generation follows from the one before, and all their manifests are still there."""
    if output.manifest is None or output.row.generation == 1:
        return
    if not output.former:
        expected = f"the manifests of the {output.row.generation - 1} generations before"
        yield Finding(output.subject, expected, "one is missing, or cannot be read")
        return
    for before, after in pairwise([*output.former, output.manifest]):
        for expected, found in chain_faults(before, after):
            yield Finding(f"{output.subject}, generation {after.generation}", expected, found)


def _orphan(output: Output) -> Iterator[Finding]:
    data = output.manifest_bytes()
    if data is not None:
        expected = f"no {MANIFEST_KEY}, for nothing was committed ({output.row.state})"
        yield Finding(output.subject, expected, shown(data.decode(errors="replace")))


_DO_NOT_USE = "do not use this output: start the run again, and report a bug"
_TOUCHED = (
    "the output was changed after it was committed: restore it, or start the run again (a new run "
    "writes the same bytes into a folder of its own)"
)

STORE_CHECK: Check[Output] = Check(
    name="output_store",
    examine=_store,
    advice="the output could not be looked at, so nothing is proven about it: see that the store "
    "answers and that Augury may read it, then audit again",
)
OUTPUT_CHECKS: tuple[Check[Output], ...] = (
    Check(name="manifest_text", examine=_text, advice=_DO_NOT_USE),
    Check(name="manifest_object", examine=_object, advice=_TOUCHED),
    Check(name="part_object", examine=_part_object, advice=_TOUCHED),
    Check(name="part_rows", examine=_part_rows, advice=_DO_NOT_USE),
    Check(name="output_rows", examine=_law, advice=_DO_NOT_USE),
    Check(name="input_rows", examine=_input_rows, advice=_DO_NOT_USE),
    Check(
        name="stray_object",
        examine=_stray,
        advice="whoever reads this folder by listing reads more than was committed: see who wrote "
        "the object, and remove it",
    ),
    Check(name="shard_rows", examine=_shard_rows, advice=_DO_NOT_USE),
    Check(name="shard_ranges", examine=_shard_ranges, advice=_DO_NOT_USE),
    Check(name="generations", examine=_generations, advice=_TOUCHED),
    Check(
        name="quarantine",
        examine=_quarantine,
        advice="the result leaves out what it should not, or does not say that it is partial: "
        "start the run again, and report a bug if the file was always sound",
    ),
)
UNCOMMITTED_CHECKS: tuple[Check[Output], ...] = (
    Check(
        name="manifest_orphan",
        examine=_orphan,
        advice="readers take this output for complete, and it is not: remove the object",
    ),
)
