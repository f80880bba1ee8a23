"""What `celery --app=workers.app worker` loads: Augury's Celery app, set up from the environment.

It does exactly what the worker processes of `augury up` do; README.md has the whole command line,
and says which queues there are and how to scale.
"""

from __future__ import annotations

from augury.execution.celery_app import app

__all__ = ["app"]
