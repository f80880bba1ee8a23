"""Model formats, one small file each; this is the list of them.

A flavor module is imported when its format is used, and imports its library when it loads a model:
a process that scores nothing carries none of them.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import cast

from augury.errors import InvalidError, NotFoundError
from augury.models.port import Flavor

NAMES = ("xgboost", "sklearn", "lightgbm", "onnx")


def get_flavor(name: str) -> Flavor:
    """The flavor of that name.

    Raises:
        InvalidError: there is none; the message names those there are.
    """
    if name not in NAMES:
        raise InvalidError(f"no model flavor {name!r}; expected one of: {', '.join(NAMES)}")
    return cast("Flavor", import_module(f"{__name__}.{name}").FLAVOR)


def guess_flavor(path: Path) -> Flavor:
    """The flavor of a file, by the ending of its name.

    Raises:
        InvalidError: no flavor has this ending; the message names the endings there are.
    """
    for name in NAMES:
        flavor = get_flavor(name)
        if path.suffix.lower() in flavor.suffixes:
            return flavor
    known = ", ".join(f"{s} ({name})" for name in NAMES for s in get_flavor(name).suffixes)
    raise InvalidError(
        f"{path.name}: the ending {path.suffix!r} belongs to no model flavor; known: {known}. "
        "Say which it is with --flavor"
    )


def open_flavor(path: Path, *, name: str | None = None, trust: bool = False) -> Flavor:
    """The flavor with which a file may be opened.

    Args:
        path: the model file; only its name and existence are looked at.
        name: the flavor's name, if the user says it; None: by the ending.
        trust: True if the user vouches for the file.

    Raises:
        NotFoundError: no such file.
        InvalidError: unknown flavor, or a file that runs code when loaded and is not trusted.
    """
    if not path.exists():
        raise NotFoundError(f"no model file {path}", path=str(path))
    if not path.is_file():
        raise InvalidError(f"model {path}: expected a file, found a folder", path=str(path))
    flavor = get_flavor(name) if name is not None else guess_flavor(path)
    if flavor.trusted_only and not trust:
        raise InvalidError(
            f"model {path}: loading a pickle runs the code in it, so it is refused unless trusted; "
            "if you made this file or trust who did, say --trust",
            path=str(path),
            flavor=flavor.name,
        )
    return flavor
