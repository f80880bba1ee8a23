"""Checking entries before anything is written: every fault of every entry, each with its line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict

from augury.engine.job_artifacts import NamedArtifact, examine_named
from augury.engine.paths import absolute_fields
from augury.errors import AuguryError, Fault, InvalidError
from augury.resources import store
from augury.resources.documents import SECTIONS, Entry, refusal, validated
from augury.resources.store import Kind
from augury.settings import Settings

_INFERENCE = "inference"
_INDEX = re.compile(r"\[(\d+)\]|\.?([^.\[\]]+)")


class ModelSpec(BaseModel):
    """A model as a document names it.

    Attributes:
        path: the artifact, a file.
        sample: Parquet file with the inputs' columns, from which the signature is inferred.
        flavor: its format; guessed from the file's name if not given.
        alias: name for this version, moved here from the version that had it.
        trust: the artifact may be unpickled.
        description: for people.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    path: str
    sample: str | None = None
    signature: dict[str, Any] | None = None
    flavor: str | None = None
    alias: str | None = None
    trust: bool = False
    description: str | None = None


@dataclass(kw_only=True)
class Prepared:
    """Everything checked and ready to be written."""

    models: list[tuple[Entry, ModelSpec]] = field(default_factory=list)
    resources: list[tuple[Kind, Entry, Any]] = field(default_factory=list)
    artifacts: list[NamedArtifact] = field(default_factory=list)


def prepare(settings: Settings, entries: Sequence[Entry]) -> Prepared:
    """Checks all entries, writes nothing.

    Args:
        settings: a model may only be named by path where this process is the whole engine.
        entries: of one or several documents.

    Raises:
        InvalidError: with every fault of every entry.
    """
    faults: list[Fault] = []
    prepared = Prepared()
    ordered = sorted(entries, key=lambda entry: (SECTIONS.index(entry.section), entry.name))
    faults += _repeated(ordered)
    several = len({entry.origin for entry in entries}) > 1
    for entry in ordered:
        found: list[Fault] = []
        _prepare_one(settings, entry, prepared, found)
        faults += [_located(fault, entry.origin) if several else fault for fault in found]
    if faults:
        origins = sorted({entry.origin for entry in entries if entry.origin})
        raise refusal(", ".join(origins), faults)
    return prepared


def _located(fault: Fault, origin: str) -> Fault:
    return Fault(path=f"{origin}: {fault.path}", message=fault.message, line=fault.line)


def _repeated(entries: Sequence[Entry]) -> Iterator[Fault]:
    seen: dict[tuple[str, str], Entry] = {}
    for entry in entries:
        first = seen.setdefault((entry.section, entry.name), entry)
        if first is not entry:
            where = (
                f"line {first.lines.get((), '?')}{' of ' + first.origin if first.origin else ''}"
            )
            yield entry.fault(f"stands a second time, the first is in {where.strip()}")


def _prepare_one(settings: Settings, entry: Entry, prepared: Prepared, faults: list[Fault]) -> None:
    fields = absolute_fields(entry, faults)
    if entry.section == "models":
        if model := _model(settings, entry, fields, faults):
            prepared.models.append((entry, model))
        return
    kind = Kind(entry.section.removesuffix("s"))
    if kind is Kind.JOB and fields.get("kind", _INFERENCE) != _INFERENCE:
        _prepare_script(settings, entry, fields, prepared, faults)
        return
    spec = validated(entry, spec_type(kind), faults, fields)
    if spec is None:
        return
    if kind is Kind.RULE:
        _check_rule(entry, spec, faults)
    prepared.resources.append((kind, entry, spec))


def _prepare_script(
    settings: Settings,
    entry: Entry,
    fields: dict[str, Any],
    prepared: Prepared,
    faults: list[Fault],
) -> None:
    from augury.jobs.script_spec import SPEC_TYPES, ScriptSpec

    if fields["kind"] not in SPEC_TYPES:
        message = f"expected one of {', '.join(SPEC_TYPES)}, found {fields['kind']!r}"
        faults.append(entry.fault(message, "kind"))
        return
    path = examine_named(settings, entry, fields, faults)
    spec = validated(entry, ScriptSpec, faults, fields)
    if spec is not None:
        prepared.artifacts.append(NamedArtifact(entry=entry, artifact=spec.artifact, path=path))
        prepared.resources.append((Kind.JOB, entry, spec))


def spec_type(kind: Kind) -> type[BaseModel]:
    """The model by which a kind's spec is validated; of a job without a kind, an inference."""
    from augury.jobs.spec import JobSpec
    from augury.rules.spec import RuleSpec
    from augury.sources.spec import ScheduleSpec, SourceSpec

    types: Mapping[Kind, type[BaseModel]] = {
        Kind.JOB: JobSpec,
        Kind.RULE: RuleSpec,
        Kind.SOURCE: SourceSpec,
        Kind.SCHEDULE: ScheduleSpec,
    }
    return types[kind]


def _check_rule(entry: Entry, spec: Any, faults: list[Fault]) -> None:
    from augury.actions.spec import parse_actions
    from augury.rules.pattern import compile_pattern

    for check in (
        lambda: compile_pattern(spec.pattern, dialect=spec.dialect),
        lambda: parse_actions(spec.actions),
    ):
        try:
            check()
        except InvalidError as error:
            faults += within(entry, error)


def within(entry: Entry, error: InvalidError) -> Iterator[Fault]:
    """The faults of an error as faults of the entry, with their lines."""
    if not error.faults:
        yield entry.fault(error.message)
    for fault in error.faults:
        yield entry.fault(fault.message, *_path(fault.path))


def _path(text: str) -> tuple[str | int, ...]:
    """`$.data.key[0]` of a pattern and `actions.0.job` as steps within the entry."""
    in_pattern = text.startswith("$")
    steps: list[str | int] = ["pattern"] if in_pattern else []
    for index, name in _INDEX.findall(text.removeprefix("$")):
        number = index or (name if name.isdecimal() and not in_pattern else "")
        steps.append(int(number) if number else name.strip("'\""))
    return tuple(steps)


def _model(
    settings: Settings, entry: Entry, fields: Mapping[str, Any], faults: list[Fault]
) -> ModelSpec | None:
    spec = validated(entry, ModelSpec, faults, fields)
    if spec is None:
        return None
    if entry.base is None and not settings.embedded_redis:
        faults.append(entry.fault("models are registered with `augury models register`", "path"))
    for name in ("path", "sample"):
        text = getattr(spec, name)
        if text is not None and not Path(text).is_file():
            faults.append(entry.fault(f"expected a file, found none at {text}", name))
    return spec


def warnings(connection: sa.Connection, prepared: Prepared) -> Iterator[str]:
    """What names something that is not there: it may come later, or be a typing error."""
    from augury.models import registry

    applied = {entry.name for entry, _ in prepared.models}
    for kind, entry, spec in prepared.resources:
        if (
            kind is Kind.JOB
            and spec.kind == _INFERENCE
            and spec.model.partition("@")[0] not in applied
        ):
            try:
                registry.resolve(connection, spec.model)
            except AuguryError as error:
                yield f"job {entry.name!r}: its runs will fail until the model is there: {error}"
        if kind is Kind.RULE:
            for job in _named_jobs(spec):
                if store.find(connection, Kind.JOB, job) is None:
                    yield (
                        f"rule {entry.name!r} starts job {job!r}, which does not exist; events "
                        "that match before it does are recorded as dead"
                    )


def _named_jobs(rule: Any) -> list[str]:
    starts = [action["start_run"] for action in rule.actions if "start_run" in action]
    return [start["job"] for start in starts if "${" not in start["job"]]
