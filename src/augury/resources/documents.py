"""Documents of `augury apply`: YAML or JSON text in, entries with line numbers out.

A document is a mapping of sections (`models`, `sources`, `schedules`, `jobs`, `rules`) to lists of
entries; every entry has a `name` and the fields of its spec. Reading keeps the line of every field,
so that whatever is found wrong later, here or by a spec, can say where it stands. JSON is read by
the same reader, since it is YAML. Pure: what the fields mean is the specs' business.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import msgspec
import yaml
from pydantic import BaseModel, ValidationError

from augury.errors import Fault, InvalidError

SECTIONS = ("models", "sources", "schedules", "jobs", "rules")
LONGEST_NAME = 200
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{LONGEST_NAME - 1}}}\Z")
_SURROGATE = re.compile("[\ud800-\udfff]")
_MOST_NODES = 200_000
_DEEPEST = 100
_TIMESTAMP = "tag:yaml.org,2002:timestamp"

type Path_ = tuple[str | int, ...]
type Lines = Mapping[Path_, int]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One entry of a document.

    Attributes:
        section: where it stands, for example `jobs`.
        name: of the resource.
        fields: the spec's fields as they stand there, `name` not among them.
        origin: the document's name, for messages; empty if it has none.
        base: folder to which relative paths are relative; None: relative paths mean nothing.
        lines: line (from 1) of each field, by its path within the entry.
    """

    section: str
    name: str
    fields: Mapping[str, Any]
    origin: str = ""
    base: Path | None = None
    lines: Lines = field(default_factory=dict)

    def fault(self, message: str, *path: str | int) -> Fault:
        """What is wrong at `path` within this entry, with the line of the nearest field."""
        nearest = next((path[:n] for n in range(len(path), -1, -1) if path[:n] in self.lines), None)
        return Fault(
            path=".".join(str(part) for part in (self.section, self.name, *path) if part != ""),
            message=message,
            line=None if nearest is None else self.lines[nearest],
        )


class _Loader(yaml.SafeLoader):
    """YAML's safe types but timestamps: a date in a spec is text, as it is in JSON."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own declaration
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def parse_document(text: str | bytes, *, origin: str = "", base: Path | None = None) -> list[Entry]:
    """Reads one document.

    Args:
        text: YAML (several documents in one stream are read as one) or JSON, in UTF-8.
        origin: name of the document, for messages.
        base: folder to which the document's relative paths are relative.

    Raises:
        InvalidError: it cannot be read, or is no document; every fault is named with its line.
    """
    reader = _Reader(origin, base)
    for root in _composed(text, origin):
        reader.read(root)
    if reader.faults:
        raise refusal(origin, reader.faults)
    return reader.entries


def parse_entry(text: str | bytes, *, section: str = "", name: str = "") -> Entry:
    """Reads the fields of one entry, alone: the body of a request, for example.

    Args:
        text: YAML or JSON, in UTF-8; a field `name` may stand in it if it says `name`.
        section: where the entry would stand in a document.
        name: of the resource; empty for what has none, and then `name` is a field like others.

    Raises:
        InvalidError: it cannot be read, or the name is none; every fault is named.
    """
    fault = name_fault(name) if name else None
    if fault:
        raise refusal("", [Fault(path="name", message=fault)])
    roots = _composed(text, "")
    if len(roots) != 1 or not isinstance(roots[0], yaml.MappingNode):
        found = _kind(roots[0]) if len(roots) == 1 else f"{len(roots)} documents"
        raise refusal("", [Fault(path="", message=f"expected a mapping of fields, found {found}")])
    reader = _Reader("", None)
    entry = reader.entry(section, name, roots[0])
    if reader.faults:
        raise refusal("", reader.faults)
    return entry


def refusal(origin: str, faults: Sequence[Fault]) -> InvalidError:
    """The error that refuses a document."""
    return InvalidError(f"{origin} refused" if origin else "refused", faults=faults)


def _composed(text: str | bytes, origin: str) -> list[yaml.Node]:
    try:
        decoded = text if isinstance(text, str) else text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise refusal(origin, [Fault(path="", message=f"expected UTF-8: {error}")]) from error
    try:
        nodes = yaml.compose_all(decoded, Loader=_Loader)
        return [node for node in nodes if node is not None and not _is_null(node)]
    except yaml.YAMLError as error:
        if decoded.lstrip().startswith("{") and (node := _json(decoded)) is not None:
            return [node]
        raise refusal(origin, [_syntax(error)]) from error
    except RecursionError as error:
        fault = Fault(path="", message=f"expected at most {_DEEPEST} levels, found many more")
        raise refusal(origin, [fault]) from error


def _json(text: str) -> yaml.Node | None:
    """JSON that is no YAML: indented by tabs. Its lines are lost."""
    try:
        compact = msgspec.json.encode(msgspec.json.decode(text))
        return yaml.compose(compact.decode(), Loader=_Loader)
    except (msgspec.DecodeError, yaml.YAMLError, RecursionError):
        return None


def _syntax(error: yaml.YAMLError) -> Fault:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = " ".join(
        str(part)
        for part in (getattr(error, "context", None), getattr(error, "problem", None))
        if part
    )
    return Fault(
        path="",
        message=f"not YAML: {problem or error}",
        line=None if mark is None else mark.line + 1,
    )


class _Reader:
    """Collects entries and faults from the nodes of one document."""

    def __init__(self, origin: str, base: Path | None) -> None:
        self.entries: list[Entry] = []
        self.faults: list[Fault] = []
        self._origin = origin
        self._base = base
        self._num_nodes = 0
        self._constructor = _Loader("")

    def read(self, root: yaml.Node) -> None:
        if not isinstance(root, yaml.MappingNode):
            self._fault(root, "", f"expected sections ({', '.join(SECTIONS)}), found {_kind(root)}")
            return
        for name, node in self._pairs(root, ""):
            if name not in SECTIONS:
                hint = did_you_mean(name, SECTIONS)
                self._fault(node, name, f"unknown section{hint or ': expected ' + _any(SECTIONS)}")
            elif isinstance(node, yaml.SequenceNode):
                for index, item in enumerate(node.value):
                    self._entry(name, index, item)
            elif not _is_null(node):
                self._fault(node, name, f"expected a list of entries, found {_kind(node)}")

    def _entry(self, section: str, index: int, node: yaml.Node) -> None:
        where = f"{section}.{index}"
        if not isinstance(node, yaml.MappingNode):
            self._fault(node, where, f"expected an entry with a name, found {_kind(node)}")
            return
        lines: dict[Path_, int] = {}
        fields = self._value(node, (), lines, where)
        name = fields.pop("name", None)
        if fault := name_fault(name):
            line = lines.get(("name",), _line(node))
            self.faults.append(Fault(path=f"{where}.name", message=fault, line=line))
            return
        self.entries.append(self._made(section, name, fields, lines))

    def entry(self, section: str, name: str, node: yaml.MappingNode) -> Entry:
        """One entry whose name is known."""
        lines: dict[Path_, int] = {}
        fields = self._value(node, (), lines, ".".join(part for part in (section, name) if part))
        if name and fields.get("name", name) != name:
            self._fault(node, "name", f"expected {name!r}, found {fields['name']!r:.80}")
        if name:
            fields.pop("name", None)
        return self._made(section, name, fields, lines)

    def _made(self, section: str, name: str, fields: dict[str, Any], lines: Lines) -> Entry:
        return Entry(
            section=section,
            name=name,
            fields=fields,
            origin=self._origin,
            base=self._base,
            lines=lines,
        )

    def _value(self, node: yaml.Node, path: Path_, lines: dict[Path_, int], where: str) -> Any:
        """The node's plain value; notes the line of everything in it."""
        self._num_nodes += 1  # an alias counts each time: that is what bounds it
        if self._num_nodes > _MOST_NODES or len(path) > _DEEPEST:
            raise refusal(self._origin, [_too_large(node)])
        lines.setdefault(path, _line(node))
        if isinstance(node, yaml.SequenceNode):
            return [
                self._value(item, (*path, index), lines, where)
                for index, item in enumerate(node.value)
            ]
        if isinstance(node, yaml.MappingNode):
            found: dict[str, Any] = {}
            for key, value in self._pairs(node, where):
                found[key] = self._value(value, (*path, key), lines, where)
            return found
        return self._scalar(node, where)

    def _scalar(self, node: yaml.Node, where: str) -> Any:
        try:
            found = self._constructor.construct_object(node)
        except (yaml.YAMLError, ValueError, LookupError, TypeError) as error:
            problem = getattr(error, "problem", None) or error
            self._fault(node, where, f"cannot be read: {problem}")
            return None
        if not _fits_json(found):
            self._fault(node, where, f"expected what JSON can hold, found {found!r:.80}")
            return None
        return found

    def _pairs(self, node: yaml.MappingNode, where: str) -> Iterable[tuple[str, yaml.Node]]:
        """Keys with their values; a key that stands twice is a fault, not the last one wins."""
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen:
                self._fault(key_node, f"{where}.{key}".strip("."), "stands here a second time")
            seen.add(key)
        try:
            self._constructor.flatten_mapping(node)  # `<<`: what it brings is first, and weaker
        except (yaml.YAMLError, RecursionError) as error:
            problem = getattr(error, "problem", None) or "it merges itself"
            self._fault(node, where, f"cannot be merged: {problem}")
        yield from {str(key_node.value): value for key_node, value in node.value}.items()

    def _fault(self, node: yaml.Node, path: str, message: str) -> None:
        self.faults.append(Fault(path=path, message=message, line=_line(node)))


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _too_large(node: yaml.Node) -> Fault:
    message = f"expected at most {_MOST_NODES:,} values and {_DEEPEST} levels, found more"
    return Fault(path="", message=message, line=_line(node))


def _fits_json(found: Any) -> bool:
    """Neither NaN nor bytes; nor text that PostgreSQL or UTF-8 cannot hold."""
    if isinstance(found, str):
        return "\0" not in found and not _SURROGATE.search(found)
    if isinstance(found, float):
        return math.isfinite(found)
    return found is None or isinstance(found, bool | int)


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    return "nothing" if _is_null(node) else repr(node.value)[:80]


def _any(names: Iterable[str]) -> str:
    return ", ".join(names)


def name_fault(name: object) -> str | None:
    """What is wrong with a resource's name; None if nothing is."""
    if isinstance(name, str) and _NAME.match(name):
        return None
    found = "nothing" if name is None else repr(name)[:80]
    return (
        f"expected a name of up to {LONGEST_NAME} letters, digits, '_', '-' and '.', beginning "
        f"with a letter or digit, found {found}"
    )


def did_you_mean(found: str, known: Iterable[str]) -> str:
    """`; did you mean 'output'?`, or nothing if nothing is close."""
    close = difflib.get_close_matches(found, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def validated[M: BaseModel](
    entry: Entry, spec: type[M], faults: list[Fault], fields: Mapping[str, Any] | None = None
) -> M | None:
    """The entry's fields as a spec; None if they are none, and then `faults` is longer.

    Args:
        entry: whose name and lines the faults carry.
        spec: pydantic model to validate by.
        faults: gets every fault found.
        fields: instead of the entry's own, for example with paths made absolute.
    """
    try:
        return spec.model_validate(entry.fields if fields is None else fields)
    except ValidationError as error:
        faults += [
            entry.fault(_message(spec, found), *_shown(found["loc"]))
            for found in error.errors(include_url=False)
        ]
        return None


def _message(spec: type[BaseModel], found: Any) -> str:
    kind, where, value = found["type"], found["loc"], found["input"]
    if kind == "extra_forbidden":
        known = _fields_at(spec, where[:-1])
        hint = did_you_mean(str(where[-1]), known)
        return f"unknown field{hint}" if hint else f"unknown field; expected one of {_any(known)}"
    if kind == "missing":
        return "expected, found nothing"
    text = str(found["msg"]).removeprefix("Value error, ")
    return text if "found" in text else f"{text}, found {value!r:.80}"


def _shown(where: Path_) -> Path_:
    """Pydantic names the members of unions and validators in its paths; people do not."""
    return tuple(part for part in where if not (isinstance(part, str) and "[" in part))


def _fields_at(spec: type[BaseModel], where: Path_) -> list[str]:
    """Names of the fields that may stand at `where`."""
    at: type[BaseModel] = spec
    for part in where:
        if isinstance(part, str) and part in at.model_fields:
            at = _model_in(at.model_fields[part].annotation) or at
    return sorted(at.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in get_args(annotation) if (found := _model_in(arg))), None)
