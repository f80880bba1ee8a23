"""What one process holds open, and what users can ask of it.

`parts` chooses and wires adapters, `declarative` applies documents, `views` says how things look
in JSON, and `Engine` joins them: the API and the command line have no other way in. Importing this
imports nothing heavy.
"""

from __future__ import annotations

from augury.engine.facade import Engine, diagnose, open_engine, publish, shared_engine

__all__ = ["Engine", "diagnose", "open_engine", "publish", "shared_engine"]
