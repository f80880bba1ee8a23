"""Paths and URIs of a document's entry, made absolute.

A document may say `./landing/`: relative to its own file, so that a folder with its document can be
moved. What is stored is always a URI, which means the same on every host and in every process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from augury.errors import Fault, InvalidError
from augury.resources.documents import Entry
from augury.storage.objects import canonical_url

_PATHS = {"models": ("path", "sample"), "jobs": ("artifact",)}
_URIS = {"sources": ("uri",), "jobs": ("output",)}


def absolute_uri(text: str, base: Path | None) -> str:
    """`text` as a URI: a path becomes `file:///...`, relative to `base`; a URI stays.

    Raises:
        ValueError: it is relative and there is no base, or no store has such addresses.
    """
    if text.startswith("${"):
        return text
    whole = text if "://" in text else f"file://{absolute_path(text, base)}"
    if "${" in whole:  # known when an event fills it
        return whole
    try:
        return canonical_url(whole)
    except InvalidError as error:
        raise ValueError(error.message) from error


def absolute_path(text: str, base: Path | None) -> str:
    """`text` as an absolute path without `..`; a slash at its end stays.

    Raises:
        ValueError: it is relative, and there is no base.
    """
    if base is None and not text.startswith("/"):
        raise ValueError(
            "expected a URI such as s3://bucket/prefix/ or file:///data/in/ (a relative path means "
            f"nothing here), found {text!r}"
        )
    whole = os.path.normpath(os.path.join(base or "/", text))  # noqa: PTH118 - keeps no slash
    return whole + "/" if text.endswith("/") and whole != "/" else whole


def absolute_fields(entry: Entry, faults: list[Fault]) -> dict[str, Any]:
    """The entry's fields, its paths made absolute. What has the wrong type is left as it is."""

    def made(value: Any, convert: Callable[[str, Path | None], str], *path: str | int) -> Any:
        if not isinstance(value, str) or not value:
            return value
        try:
            return convert(
                value.removeprefix("file://") if convert is absolute_path else value, entry.base
            )
        except ValueError as error:
            faults.append(entry.fault(str(error), *path))
            return value

    fields = dict(entry.fields)
    for name in _PATHS.get(entry.section, ()):
        if name in fields:
            fields[name] = made(fields[name], absolute_path, name)
    for name in _URIS.get(entry.section, ()):
        if name in fields:
            fields[name] = made(fields[name], absolute_uri, name)
    if entry.section == "jobs" and isinstance(fields.get("input"), list):
        fields["input"] = [
            {**item, "uri": made(item["uri"], absolute_uri, "input", index, "uri")}
            if isinstance(item, Mapping) and "uri" in item
            else item
            for index, item in enumerate(fields["input"])
        ]
    if entry.section == "rules" and isinstance(fields.get("actions"), list):
        fields["actions"] = [
            _absolute_action(action, index, made) for index, action in enumerate(fields["actions"])
        ]
    return fields


def _absolute_action(action: Any, index: int, made: Callable[..., Any]) -> Any:
    start = action.get("start_run") if isinstance(action, Mapping) else None
    if not isinstance(start, Mapping):
        return action
    where = ("actions", index, "start_run")
    start = dict(start)
    if "output" in start:
        start["output"] = made(start["output"], absolute_uri, *where, "output")
    if isinstance(start.get("input"), str):
        start["input"] = made(start["input"], absolute_uri, *where, "input")
    elif isinstance(start.get("input"), list):
        start["input"] = [
            made(text, absolute_uri, *where, "input", n) for n, text in enumerate(start["input"])
        ]
    return {**action, "start_run": start}
