"""Celery, used safely: one process is one worker, and a message is a wake-up.

`app` is what `celery --app=workers.app worker` runs and what `run_worker` runs in the caller's
process; both do the same, for everything hangs on Celery's signals. What Celery could lose, double
or delay does not matter here, because the ledger knows what has to run (see `worker.py`); so the
settings below turn off what only costs time: results, events, gossip, remote control.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from celery import Celery, signals
from kombu import Exchange, Queue

from augury import clock, telemetry
from augury.errors import UnavailableError
from augury.execution import warmup
from augury.execution.celery_executor import CeleryExecutor
from augury.execution.celery_loop import LoopWatch
from augury.execution.local_executor import LocalExecutor
from augury.execution.messages import TASK, transport_options
from augury.execution.worker import QUEUES, Worker
from augury.jobs.work import SCRIPT
from augury.settings import Settings
from augury.storage.database import Database

_log = logging.getLogger(__name__)
_LONGEST_WAIT_S = 5.0
# two lines for every wake-up say less than the worker's own
_CHATTY = ("celery.worker.strategy", "celery.app.trace")

app = Celery("augury", set_as_current=False)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    task_serializer="json",
    accept_content=["json"],
    result_backend=None,
    task_ignore_result=True,
    task_store_errors_even_if_ignored=False,
    worker_pool="solo",
    worker_concurrency=1,
    task_queues=[Queue(name, Exchange(""), routing_key=name) for name in QUEUES],
    task_default_queue=str(QUEUES[0]),
    task_create_missing_queues=False,
    # a broker that is away is waited for, for ever: work is not lost by it
    broker_connection_retry=True,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_channel_error_retry=True,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    worker_enable_remote_control=False,
    worker_send_task_events=False,
    task_send_sent_event=False,
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
    broker_heartbeat=0,
)


def configure(settings: Settings) -> Celery:
    """Tells the app which broker to use, and with what to make workers; returns the app."""
    app.conf.update(
        broker_url=settings.effective_broker_url,
        broker_transport_options=transport_options(settings),
    )
    _process.settings = settings
    return app


def run_worker(
    settings: Settings,
    *,
    name: str = "worker",
    queues: str | Sequence[str] = QUEUES,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Runs a worker in this process until SIGTERM or SIGINT; call it from the main thread.

    Args:
        settings: of this process.
        name: for people.
        queues: names, or one text with commas between them.
        on_ready: called once it takes work.
    """
    configure(settings)
    names = queues.split(",") if isinstance(queues, str) else list(queues)
    _process.on_ready = on_ready
    worker = app.Worker(
        hostname=f"{name}@%h",
        queues=[str(each) for each in names],
        pool="solo",
        concurrency=1,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    worker.start()


class _Process:
    """This process's worker, if it has one."""

    def __init__(self) -> None:
        self.settings: Settings | None = None
        self.on_ready: Callable[[], None] = lambda: None
        self.worker: Worker | None = None
        self.scripts: LocalExecutor | None = None
        self._parts: list[Any] = []

    def open(self, name: str, queues: Sequence[str]) -> None:
        """Opens what a worker needs, waiting for services that do not answer yet."""
        settings = self.settings or Settings()
        warmup.warm_up()
        database = Database(settings.effective_database_url)
        executor = CeleryExecutor(settings)
        self._parts = [executor, database]
        scoring = [queue for queue in queues if queue != SCRIPT]
        self.worker = Worker(database, executor, settings, name=name, queues=scoring or queues)
        if len(scoring) not in (0, len(queues)):
            # a script is waited for, perhaps for hours: that must not keep anybody from scoring
            self.scripts = LocalExecutor(
                database, settings, num_workers=1, queues=(SCRIPT,), name=f"{name}-script"
            )
        _patiently(lambda: self._start(database))

    def _start(self, database: Database) -> None:
        from augury.storage.migrations import migrate

        assert self.worker is not None  # made just before
        migrate(database)
        self.worker.start()
        if self.scripts is not None:
            self.scripts.start()

    def serve(self, queue: str) -> None:
        """Does what a wake-up asks for, or has it done."""
        if queue == SCRIPT and self.scripts is not None:
            if self.scripts.depth(queue) == 0:  # one look finds all; more would only pile up
                self.scripts.wake(queue)
        elif self.worker is not None:
            self.worker.serve(queue)

    def drain(self) -> None:
        """Takes nothing new; safe in a signal handler."""
        for worker in (self.worker, *(self.scripts.workers if self.scripts else ())):
            if worker is not None:
                worker.drain()

    def close(self) -> None:
        """Gives back what the worker holds, and closes everything."""
        worker, self.worker = self.worker, None
        scripts, self.scripts = self.scripts, None
        if scripts is not None:
            scripts.close()
        if worker is not None:
            worker.stop()
        for part in self._parts:
            part.close()
        self._parts = []


_process = _Process()


def _patiently(start: Callable[[], None]) -> None:
    """Nothing is held yet, so a signal may end the process here and now."""
    wait_s = 0.1
    while True:
        try:
            start()
            return
        except UnavailableError as error:
            _log.warning("worker waits: %s", error, extra={"action": "process_waits"})
            clock.sleep_s(wait_s)
            wait_s = min(_LONGEST_WAIT_S, wait_s * 2)


@app.task(name=TASK, ignore_result=True)  # type: ignore[untyped-decorator]
def wake(queue: str) -> None:
    """A wake-up has arrived."""
    if _process.worker is None:
        _log.warning("woken before the worker was made", extra={"action": "woken_early"})
        return
    _process.serve(queue)


@signals.setup_logging.connect  # type: ignore[untyped-decorator]
def _keep_logging(**_: object) -> None:
    """Whoever listens here keeps Celery from configuring logs: `telemetry` does."""
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)


@signals.worker_init.connect  # type: ignore[untyped-decorator]
def _on_init(sender: Any, **_: object) -> None:
    if _process.settings is None:  # started by the `celery` command
        settings = Settings()
        telemetry.configure(settings.log_level, json_lines=settings.log_json)
        configure(settings)
    queues = [name for name in QUEUES if name in sender.app.amqp.queues.consume_from]
    _process.open(sender.hostname.partition("@")[0], queues or QUEUES)


@signals.worker_ready.connect  # type: ignore[untyped-decorator]
def _on_ready(sender: Any, **_: object) -> None:
    LoopWatch(sender).start()
    on_ready, _process.on_ready = _process.on_ready, lambda: None
    on_ready()


@signals.worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _on_shutting_down(**_: object) -> None:
    """Runs inside the signal handler, perhaps in the middle of a shard."""
    _process.drain()


@signals.worker_shutdown.connect  # type: ignore[untyped-decorator]
def _on_shutdown(**_: object) -> None:
    _process.close()
