"""The command line: `augury`.

Exit codes: 0 done; 1 failed or refused; 2 wrong usage; 3 a service is unavailable; 4 the audit
found violations; 130 stopped by Ctrl-C. Results go to stdout, everything else to stderr. Modules
import what they need where they need it, so that `augury --help` is there at once.
"""

from __future__ import annotations

from augury.cli.app import main

__all__ = ["main"]
