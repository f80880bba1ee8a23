"""What commands run with: settings, logs and an engine; and how they read what they are given."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from augury.engine import Engine
    from augury.settings import Settings

Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, for programs.")]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="Most items to show.")]


def load_settings(**changed: Any) -> Settings:
    """Settings from the environment, those given as arguments on top (None: not given).

    Raises:
        InvalidError: naming every variable that does not fit.
    """
    from pydantic import ValidationError

    from augury.errors import Fault, InvalidError
    from augury.settings import Settings

    given = {name: value for name, value in changed.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        faults = [
            Fault(
                path=f"AUGURY_{'_'.join(str(part) for part in found['loc']).upper()}",
                message=f"{found['msg']}, found {found['input']!r:.80}",
            )
            for found in error.errors(include_url=False)
        ]
        raise InvalidError("invalid settings", faults=faults) from error


@contextmanager
def open_engine() -> Iterator[Engine]:
    """An engine for one command; logs of warnings and errors go to stderr."""
    from augury import telemetry
    from augury.engine import Engine

    settings = load_settings()
    quiet = settings.log_level.upper() in {"INFO", "WARNING"}
    telemetry.configure("ERROR" if quiet else settings.log_level, json_lines=settings.log_json)
    with Engine(settings) as engine:
        yield engine


def read_text(argument: str) -> bytes:
    """What `-` (stdin) or a path holds.

    Raises:
        NotFoundError: no such file.
        InvalidError: it cannot be read.
    """
    from augury.errors import InvalidError, NotFoundError

    if argument == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(argument).read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError(f"no file {argument}", path=argument) from error
    except OSError as error:
        raise InvalidError(f"cannot read {argument}: {error.strerror}", path=argument) from error


def given_json(argument: str, what: str) -> Any:
    """JSON given as text, or as `@file` (`@-`: stdin).

    Raises:
        InvalidError: it is not JSON.
    """
    import msgspec

    from augury.errors import InvalidError

    text = read_text(argument[1:]) if argument.startswith("@") else argument.encode()
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidError(
            f"{what}: expected JSON (a text needs its quotes: '\"text\"'), or @file; {error}"
        ) from error
