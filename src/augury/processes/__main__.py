"""`python -m augury.processes ROLE`: one role, as the supervisor starts it (or forks it).

Settings come from the environment, as in any other process of Augury. The supervisor learns that
the role is ready by its process id, as a line on the pipe `--ready-fd`.
"""

from __future__ import annotations

import argparse
import os
import sys

from augury.processes import main as roles
from augury.settings import Settings


def main(arguments: list[str] | None = None) -> int:
    """Runs one role until it is stopped; returns the exit code."""
    options = _parser().parse_args(arguments)
    roles.follow_parent()
    settings = Settings()

    def on_ready() -> None:
        if options.ready_fd is not None:
            os.write(options.ready_fd, b"%d\n" % os.getpid())
            os.close(options.ready_fd)

    match options.role:
        case "api":
            roles.run_api(settings, listen_fd=options.listen_fd, on_ready=on_ready)
        case "worker":
            roles.run_worker(settings, name=options.name, on_ready=on_ready)
        case role:
            getattr(roles, f"run_{role}")(settings, on_ready=on_ready)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m augury.processes", description=__doc__)
    parser.add_argument(
        "role",
        choices=["api", "router", "sources", "dispatcher", "sweeper", "relay", "worker"],
    )
    parser.add_argument("--name", default="worker", help="name of a worker")
    parser.add_argument("--ready-fd", type=int, help="pipe to write to when ready")
    parser.add_argument("--listen-fd", type=int, help="listening socket of the API")
    return parser


if __name__ == "__main__":
    sys.exit(main())
