"""The engine: opened lazily, safe among threads, publishes what is valid and durable."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import msgspec
import pytest

import augury
from augury.engine import Engine, publish
from augury.errors import InvalidError, UnavailableError
from augury.settings import Settings


def _modules_after(code: str) -> set[str]:
    script = f"{code}\nimport sys; print(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_importing_augury_is_cheap() -> None:
    loaded = _modules_after("import augury; augury.publish; augury.open_engine()")
    assert not loaded & {"celery", "sqlalchemy", "redis", "pyarrow", "numpy", "xgboost", "fastapi"}


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="publich"):
        augury.publich  # noqa: B018 - reading it is the test


def test_published_event_is_on_the_bus(live_settings: Settings) -> None:
    with Engine(live_settings) as engine:
        event_id = publish(
            "shop.order.placed", {"amount": 12}, source="shop", subject="o/1", engine=engine
        )
        (delivery,) = engine.bus.read("me", count=10, block_s=0)
        found = msgspec.json.decode(delivery.body)
    assert found["id"] == event_id
    assert (found["type"], found["source"], found["subject"]) == (
        "shop.order.placed",
        "shop",
        "o/1",
    )
    assert found["data"] == {"amount": 12}
    assert found["specversion"] == "1.0"


def test_whole_event_keeps_its_id(live_settings: Settings) -> None:
    event = {"specversion": "1.0", "source": "s", "id": "7", "type": "a.b.happened"}
    with Engine(live_settings) as engine:
        assert publish(event, engine=engine) == "7"


def test_every_fault_of_an_event_is_named(live_settings: Settings) -> None:
    with Engine(live_settings) as engine:
        with pytest.raises(InvalidError) as caught:
            publish({"specversion": "2", "source": "", "id": "7"}, engine=engine)
        assert engine.bus.status().length == 0
    assert {fault.path for fault in caught.value.faults} == {"specversion", "source", "type"}


def test_oversized_event_is_refused(live_settings: Settings) -> None:
    small = live_settings.model_copy(update={"max_event_bytes": 1000})
    with Engine(small) as engine, pytest.raises(InvalidError, match="1000"):
        publish("a.b.happened", "x" * 1000, engine=engine)


def test_silent_bus_is_unavailable(settings: Settings) -> None:
    nobody = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1"})
    with Engine(nobody) as engine, pytest.raises(UnavailableError):
        publish("a.b.happened", engine=engine)


def test_threads_share_what_is_opened_once(live_settings: Settings) -> None:
    found: list[Any] = []
    together = threading.Barrier(8)

    def use(engine: Engine) -> None:
        together.wait()
        found.append((engine.database, engine.bus))

    with Engine(live_settings) as engine:
        threads = [threading.Thread(target=use, args=(engine,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len({(id(database), id(bus)) for database, bus in found}) == 1


def test_closed_engine_opens_anew(live_settings: Settings) -> None:
    engine = Engine(live_settings)
    before = engine.database
    engine.close()
    engine.close()
    assert engine.database is not before
    engine.close()
