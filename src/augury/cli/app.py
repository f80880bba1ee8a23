"""All commands in one tree, and the one place where errors become exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from augury.cli import (
    applying,
    audit,
    deadletters,
    events,
    explaining,
    groups,
    models,
    planning,
    processes,
    replaying,
    resources,
    runs,
    scoring,
    status,
    verifying,
)
from augury.cli.output import example

if TYPE_CHECKING:
    from augury.errors import AuguryError

FAILED = 1
UNAVAILABLE = 3
INTERRUPTED = 130

_HELP = """Event-driven distributed batch inference: every row scored exactly once, with proof.

\b
Start here:
  augury up                          everything on this machine, until Ctrl-C
  augury apply -f augury.yaml        models, sources, schedules, jobs and rules
  augury runs watch                  what is being scored
  augury audit                       nothing lost, nothing doubled?
  augury score --help                one file, no services

\b
Settings are environment variables: AUGURY_HOME, AUGURY_PORT, AUGURY_REDIS_URL, ...
Exit codes: 0 done, 1 failed or refused, 2 wrong usage, 3 a service is unavailable,
4 the audit found violations, 130 stopped by Ctrl-C.
"""

app = typer.Typer(
    name="augury",
    help=_HELP,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # Rich's help needs half a second to be imported
    pretty_exceptions_enable=False,
    epilog=example("augury runs start --help"),
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(
    version: bool = typer.Option(False, "--version", help="Show the version and exit."),
) -> None:
    if version:
        import augury

        sys.stdout.write(f"augury {augury.__version__}\n")
        raise typer.Exit


for _module in (
    processes,
    applying,
    events,
    explaining,
    groups,
    replaying,
    runs,
    planning,
    scoring,
    verifying,
    models,
    resources,
    audit,
    deadletters,
    status,
):
    _module.add_to(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: without the program's name; those of this process if None.

    Returns:
        The exit code.
    """
    try:
        app(args=None if arguments is None else list(arguments), prog_name="augury")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # `augury ... | head`: nobody reads any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        from augury.errors import AuguryError

        if not isinstance(error, AuguryError):
            raise
        return _refused(error)
    return 0


def _refused(error: AuguryError) -> int:
    """One clear line, or one for each fault; no traceback."""
    from augury.errors import InvalidError, UnavailableError

    faults = error.faults if isinstance(error, InvalidError) else ()
    if len(faults) > 1:
        text = error.message.removesuffix("; ".join(str(fault) for fault in faults)).rstrip(": ")
        lines = [text, *(f"  {fault}" for fault in faults)]
    else:
        lines = [error.message]
    sys.stderr.write("error: " + "\n".join(lines) + "\n")
    return UNAVAILABLE if isinstance(error, UnavailableError) else FAILED
