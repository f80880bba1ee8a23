"""`augury up`, the single processes of which it consists, and the doctor."""

from __future__ import annotations

from typing import Annotated

import typer

from augury.cli.context import Json, load_settings
from augury.cli.output import example, print_json, print_table

_QUEUES = "mini_batch,batch,distributed,call,script"


def add_to(app: typer.Typer) -> None:
    """Registers the commands."""
    app.command(
        epilog=example("augury up", "AUGURY_HOME=/srv/augury augury up --workers 4 --port 8470")
    )(up)
    app.command(epilog=example("AUGURY_REDIS_URL=redis://bus:6379 augury api --port 8470"))(api)
    app.command(epilog=example("AUGURY_REDIS_URL=redis://bus:6379 augury router"))(router)
    app.command(
        epilog=example("AUGURY_SECRET_SLACK_HOOK=https://hooks.slack.com/... augury dispatcher")
    )(dispatcher)
    app.command(epilog=example("AUGURY_REDIS_URL=redis://bus:6379 augury sweeper"))(sweeper)
    app.command(epilog=example("AUGURY_REDIS_URL=redis://bus:6379 augury relay"))(relay)
    app.command(epilog=example("augury worker --name gpu-1 --queues distributed"))(worker)
    app.command(epilog=example("augury doctor", "augury doctor --json"))(doctor)


def up(
    workers: Annotated[int, typer.Option(min=0, max=256, help="Worker processes.")] = 2,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of the API; 0: any free one.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address of the API.")] = None,
    as_json: Json = False,
) -> None:
    """Starts everything under AUGURY_HOME, until Ctrl-C.

    Valkey, API, router, sources, dispatcher, sweeper, relay and workers; one that dies is started
    again. The first Ctrl-C lets them finish what they hold, the second stops them at once.
    """
    from augury.processes.up import up as run

    raise typer.Exit(run(load_settings(port=port, host=host), workers=workers, json_lines=as_json))


def api(
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; 0: any free one.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
) -> None:
    """Serves HTTP, until stopped."""
    from augury.processes.main import run_api

    run_api(load_settings(port=port, host=host))


def router() -> None:
    """Routes events to runs, until stopped."""
    from augury.processes.main import run_router

    run_router(load_settings())


def sources() -> None:
    """Watches objects and clocks, until stopped."""
    from augury.processes.main import run_sources

    run_sources(load_settings())


def dispatcher() -> None:
    """Delivers webhooks, mail and messages that actions owe, until stopped."""
    from augury.processes.main import run_dispatcher

    run_dispatcher(load_settings())


def sweeper() -> None:
    """Expires leases and wakes workers, until stopped."""
    from augury.processes.main import run_sweeper

    run_sweeper(load_settings())


def relay() -> None:
    """Sends Augury's own events to the bus, until stopped."""
    from augury.processes.main import run_relay

    run_relay(load_settings())


def worker(
    name: Annotated[str, typer.Option(help="Name of the worker, for logs.")] = "worker",
    queues: Annotated[str, typer.Option(help="Queues to serve, separated by commas.")] = _QUEUES,
) -> None:
    """Scores what it is woken for; one process is one worker."""
    from augury.processes.main import run_worker

    run_worker(load_settings(), name=name, queues=queues)


def doctor(as_json: Json = False) -> None:
    """Looks for what is wrong with this installation.

    Settings, connections, versions, and what makes promises unsafe; nothing is changed. Exits
    with 1 if there is a problem; advice alone is no problem.
    """
    from augury.engine import diagnose
    from augury.engine.views import view
    from augury.monitoring.doctor import Level

    findings = diagnose(load_settings())
    if as_json:
        print_json([view(finding) for finding in findings])
    else:
        rows = [[found.level, found.subject, found.message, found.advice] for found in findings]
        print_table(["level", "subject", "found", "change"], rows)
    if any(finding.level is Level.PROBLEM for finding in findings):
        raise typer.Exit(1)
