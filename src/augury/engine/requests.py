"""What a client asks of a run: the job's name and what the run changes of the job's spec."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from augury.engine.paths import absolute_uri
from augury.errors import Fault, InvalidError
from augury.jobs.spec import RunOverrides
from augury.resources.documents import Entry, validated


class RunRequest(RunOverrides):
    """A run of `job`; the other fields override the job's, None leaves them."""

    job: str = Field(min_length=1)

    def overrides(self) -> RunOverrides:
        """All fields but the job."""
        return RunOverrides.model_validate(self.model_dump(exclude={"job"}, exclude_none=True))


def run_request(entry: Entry, *, base: Path | None = None) -> RunRequest:
    """Checks a request.

    Args:
        entry: its fields; `input` may be one URI, several, or objects with `uri` and `tag`.
        base: folder to which relative paths are relative; None: they are refused.

    Raises:
        InvalidError: with every fault.
    """
    faults: list[Fault] = []
    fields = _absolute(entry, base, faults)
    request = validated(entry, RunRequest, faults, fields)
    if request is None or faults:
        raise InvalidError("cannot start a run", faults=faults)
    return request


def _absolute(entry: Entry, base: Path | None, faults: list[Fault]) -> dict[str, Any]:
    def made(text: Any, *path: str | int) -> Any:
        try:
            return absolute_uri(text, base) if isinstance(text, str) and text else text
        except ValueError as error:
            faults.append(entry.fault(str(error), *path))
            return text

    fields = dict(entry.fields)
    if "output" in fields:
        fields["output"] = made(fields["output"], "output")
    given = fields.get("input")
    if isinstance(given, str | list):
        fields["input"] = [
            _input(item, lambda text, n=number: made(text, "input", n, "uri"))
            for number, item in enumerate([given] if isinstance(given, str) else given)
        ]
    return fields


def _input(item: Any, made: Any) -> Any:
    if isinstance(item, Mapping):
        return {**item, "uri": made(item["uri"])} if "uri" in item else item
    return {"uri": made(item)}
