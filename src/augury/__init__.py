"""Augury: event-driven distributed batch inference.

>>> import augury
>>> augury.publish("shop.order.placed", {"amount": 12})     # doctest: +SKIP
'evt_01JD3Z9K8M2V5QWERTYABCDEFG'

Importing this package imports nothing heavy; what is named here is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from augury.actions.functions import FunctionCall as FunctionCall
    from augury.actions.functions import function as function
    from augury.engine import Engine as Engine
    from augury.engine import open_engine as open_engine
    from augury.engine import publish as publish

__version__ = "0.1.0"
__all__ = ["Engine", "FunctionCall", "__version__", "function", "open_engine", "publish"]

_FROM_ENGINE = ("Engine", "open_engine", "publish")
_FROM_FUNCTIONS = ("FunctionCall", "function")


def __getattr__(name: str) -> Any:
    if name in _FROM_ENGINE:
        from augury import engine

        return getattr(engine, name)
    if name in _FROM_FUNCTIONS:
        from augury.actions import functions

        return getattr(functions, name)
    raise AttributeError(f"module 'augury' has no attribute {name!r}")
