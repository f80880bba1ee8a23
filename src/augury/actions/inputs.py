"""What an action takes from an event before its texts are filled: named, computed, typed.

    inputs:
      files: {jmespath: "data.files[?size > `0`].uri", type: list}
      who: "${data.owner}@example.com"
    start_run: {job: score, input: "${inputs.files}"}

JMESPath was chosen because it is specified, has no loops or I/O, and ends for every input. What
can be known when the rule is applied is checked then: the expression's grammar, its functions and
how many arguments they take, whether each `${inputs.x}` is declared, and whether a value of its
type may stand where it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

import jmespath
import msgspec
from jmespath.exceptions import JMESPathError
from jmespath.functions import Functions
from pydantic import AfterValidator, Field, model_validator

from augury.actions import template
from augury.actions.fields import Json, Spec, Template, exactly_one
from augury.actions.template import TemplateError
from augury.errors import Fault

MAX_CHARS = 1024
MAX_NODES = 100
MAX_BYTES = 1_048_576
_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,99}$"
_SCOPE = "inputs"

type Type = Literal["any", "string", "integer", "number", "boolean", "list", "object"]

_FITS: Mapping[str, Callable[[Any], bool]] = {
    "any": lambda _: True,
    "string": lambda found: isinstance(found, str),
    "integer": lambda found: isinstance(found, int) and not isinstance(found, bool),
    "number": lambda found: isinstance(found, int | float) and not isinstance(found, bool),
    "boolean": lambda found: isinstance(found, bool),
    "list": lambda found: isinstance(found, list),
    "object": lambda found: isinstance(found, Mapping),
}
_SCALAR = frozenset({"any", "string", "integer", "number", "boolean"})


def _expression(text: str) -> str:
    """Checks a JMESPath expression as far as that can be done without an event."""
    try:
        tree = jmespath.compile(text).parsed
    except (JMESPathError, RecursionError) as error:
        raise ValueError(f"expected a JMESPath expression: {error}") from error
    nodes = list(_nodes(tree))
    if len(nodes) > MAX_NODES:
        raise ValueError(f"expected at most {MAX_NODES} parts, found {len(nodes)}")
    for node in nodes:
        if node["type"] == "function_expression":
            _check_function(node["value"], len(node["children"]))
    return text


def _nodes(tree: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += [child for child in node.get("children", ()) if isinstance(child, Mapping)]


def _check_function(name: str, count: int) -> None:
    known = Functions.FUNCTION_TABLE
    if name not in known:
        raise ValueError(f"no function {name!r}; there are: {', '.join(sorted(known))}")
    signature = known[name]["signature"]
    is_variadic = bool(signature and signature[-1].get("variadic"))
    if count < len(signature) or (count > len(signature) and not is_variadic):
        raise ValueError(f"{name}() takes {len(signature)} arguments, found {count}")


class InputSpec(Spec):
    """One input.

    Attributes:
        jmespath, template: how to compute it from the event; exactly one of them.
        type: what it must be; anything else is a fault, and the outcome is dead.
        default: taken where the event has nothing (or null); without it that is a fault.
    """

    jmespath: Annotated[
        str | None, Field(max_length=MAX_CHARS), AfterValidator(lambda t: t and _expression(t))
    ] = None
    template: Template | None = None
    type: Type = "any"
    default: Json = None

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, found: Any) -> Any:
        return {"template": found} if isinstance(found, str) else found

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        exactly_one(self, "jmespath", "template")
        if self.default is not None and not _FITS[self.type](self.default):
            raise ValueError(f"default: expected {self.type}, found {self.default!r:.80}")
        return self

    @cached_property
    def _compiled(self) -> Any:
        return jmespath.compile(self.jmespath or "@")

    def evaluate(self, event: Mapping[str, Any]) -> Any:
        """The input's value for an event in structured form.

        Raises:
            TemplateError: there is none, or one of another type.
        """
        found = self._found(event)
        if found is None:
            found = self.default
        if found is None and self.type != "any":
            raise TemplateError(f"expected {self.type}, found nothing, and there is no default")
        if found is not None and not _FITS[self.type](found):
            raise TemplateError(f"expected {self.type}, found {found!r:.80}")
        return found

    def _found(self, event: Mapping[str, Any]) -> Any:
        if self.template is not None:
            try:
                return template.value(self.template, event)
            except TemplateError:
                if self.default is None:
                    raise
                return None
        try:
            return self._compiled.search(event)
        except (JMESPathError, TypeError, ValueError) as error:
            raise TemplateError(f"{self.jmespath}: {error}") from error


Inputs = dict[Annotated[str, Field(pattern=_NAME)], InputSpec]


def evaluate(
    inputs: Mapping[str, InputSpec], event: Mapping[str, Any]
) -> tuple[Mapping[str, Any], list[Fault]]:
    """The event with its `inputs` beside it, for templates; and what could not be computed."""
    if not inputs:
        return event, []
    values: dict[str, Any] = {}
    faults: list[Fault] = []
    for name, spec in inputs.items():
        try:
            values[name] = spec.evaluate(event)
        except TemplateError as error:
            faults.append(Fault(path=f"{_SCOPE}.{name}", message=str(error)))
    if not faults and len(msgspec.json.encode(values)) > MAX_BYTES:
        faults.append(Fault(path=_SCOPE, message=f"expected at most {MAX_BYTES} bytes of JSON"))
    return {**event, _SCOPE: values}, faults


def nested(inputs: Mapping[str, InputSpec], path: str) -> Iterator[Fault]:
    """Inputs that name inputs: each is computed from the event alone."""
    for name, spec in inputs.items():
        for hole, _ in template.holes(spec.template or ""):
            if hole.partition(".")[0] == _SCOPE:
                message = f"an input is computed from the event alone, found ${{{hole}}}"
                yield Fault(path=f"{path}.{_SCOPE}.{name}", message=message)


def misuses(inputs: Mapping[str, InputSpec], fields: Any, path: str = "") -> Iterator[Fault]:
    """Places of an action's fields at which an input stands that is not declared, or cannot.

    Args:
        inputs: as declared.
        fields: the rest of the action, as JSON.
        path: of `fields` within the action.
    """
    if isinstance(fields, str):
        for hole, is_alone in template.holes(fields):
            if message := _misuse(inputs, hole, _kind(path) if is_alone else "text"):
                yield Fault(path=path, message=message)
    elif isinstance(fields, Mapping):
        for key, item in fields.items():
            yield from misuses(inputs, item, f"{path}.{key}" if path else str(key))
    elif isinstance(fields, list | tuple):
        for index, item in enumerate(fields):
            yield from misuses(inputs, item, f"{path}.{index}")


def _kind(path: str) -> str:
    """What may stand alone at a place: any `json`, a `list` of texts, or one `text`."""
    names = path.split(".")
    if "body" in names or "call" in names:
        return "json"
    listed = names[-1] in ("input", "columns", "to") or names[-2:-1] in (
        ["input"],
        ["columns"],
        ["to"],
    )
    return "list" if listed else "text"


def _misuse(inputs: Mapping[str, InputSpec], hole: str, kind: str) -> str | None:
    scope, _, rest = hole.partition(".")
    if scope != _SCOPE:
        return None
    name, _, deeper = rest.partition(".")
    if name not in inputs:
        known = ", ".join(sorted(inputs)) or "none"
        return f"no input {name!r} is declared in the action's `inputs`; there are: {known}"
    declared = inputs[name].type
    if deeper:
        is_leaf = declared in _SCALAR and declared != "any"
        return f"input {name!r} is a {declared} and has no {deeper!r}" if is_leaf else None
    allowed = _SCALAR | ({"list"} if kind == "list" else set())
    if kind == "json" or declared in allowed:
        return None
    return f"expected text here, and input {name!r} is declared as {declared}"
