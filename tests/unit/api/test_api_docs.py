"""docs/api.md names every route, every status, and nothing that is none."""

from __future__ import annotations

import re
from pathlib import Path

from augury.api.app import create_app
from augury.api.errors import _STATUS
from augury.engine import Engine
from augury.resources.store import Kind
from augury.settings import Settings

_PAGE = (Path(__file__).parents[3] / "docs" / "api.md").read_text()


def test_every_route_is_documented(settings: Settings) -> None:
    paths = create_app(Engine(settings)).openapi()["paths"]
    routes = {f"{method.upper()} {path}" for path, found in paths.items() for method in found}
    documented: set[str] = set()
    for route in re.findall(r"^\| `([A-Z]+ /v1/[^`]+)`", _PAGE, re.MULTILINE):
        kinds = [kind for kind in Kind if kind is not Kind.JOB or "able" not in route]
        documented |= {route.replace("{kind}", kind) for kind in kinds}
    assert documented == routes


def test_every_status_and_code_is_documented() -> None:
    rows = re.findall(r"^\| (\d{3}) \| (.*?) \|", _PAGE, re.MULTILINE)
    documented = {int(status): set(re.findall(r"`(\w+)`", codes)) for status, codes in rows}
    for kind, status in _STATUS.items():
        assert kind.code in documented[status], kind
